"""Chips that are shared among processes: the same numbers, whatever is asked of them."""

from __future__ import annotations

import copy
import io
import os
import pickle
from dataclasses import replace

import cloudpickle
import pytest
import torch
from model_cases import ADAPTERS
from spread import spread
from test_spikes_sweep import a_loader, a_model
from torch import nn

from spikewvat import BiasTrim, Crossbar, Scale
from spikewvat.devices import Gaussian
from spikewvat.errors import UnsupportedModelError
from spikewvat.processes import Processes
from spikewvat.robustness import Evaluator, simulate_chips
from spikewvat.robustness.chip import Chip
from spikewvat.robustness.corruptions import Deletion, ThresholdMismatch
from spikewvat.serialisation import plain


def images(batch=10):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(30, 2, 6, 6, generator=generator)
    return [(pictures[i : i + batch], torch.arange(i, i + batch) % 4) for i in range(0, 30, batch)]


def convolutional(*layers):
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *layers)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 4))


class Drawing(nn.Module):
    """Stays active in evaluation mode."""

    def forward(self, x):
        return x + torch.randn_like(x)


QUESTIONS = {
    "chips": lambda test: test.chips(Gaussian(0.2), chips=5, target=0.2),
    "sweep": lambda test: test.sweep(Gaussian, [0, 0.1, 0.2], chips=3),
    "stopping early": lambda test: test.chips(
        Gaussian(0.1), chips=40, min_chips=5, interval_width=0.5
    ),
    "subsets": lambda test: test.chips(Gaussian(0.2), chips=5, images_per_chip=7),
    "calibrated": lambda test: test.chips(
        Gaussian(0.3), chips=3, calibrate=[Scale(8), BiasTrim(8)], calibration=iter(images())
    ),
}
OPTIONS = {
    "plain": {},
    "loss": {"loss": lambda output, labels: nn.functional.cross_entropy(output, labels)},
    "bf16": {"autocast": torch.bfloat16},
}


class HereAndNow:
    """Processes that are this one: what is sent to them is packed and unpacked all the same."""

    def __init__(self, count, worker, purpose):
        buffer = io.BytesIO()
        torch.save(worker, buffer, pickle_module=cloudpickle)
        buffer.seek(0)
        self._worker = torch.load(buffer, weights_only=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def each(self, tasks):
        for task in tasks:
            with torch.no_grad():
                yield pickle.loads(pickle.dumps(self._worker(*pickle.loads(pickle.dumps(task)))))


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr("spikewvat.robustness.chips.Processes", HereAndNow)


@spread("ask, options, layers", QUESTIONS, list(OPTIONS), [(), (Drawing(),)], each=3)
def test_what_is_sent_gives_the_same_numbers(here, ask, options, layers):
    ask, options = QUESTIONS[ask], OPTIONS[options]
    model = convolutional(*layers)
    found = [plain(ask(Evaluator(model, images(), jobs=n, **options))) for n in (1, 2)]
    assert found[0] == found[1]


def test_processes_give_the_same_numbers():
    model, options, ask = convolutional(Drawing()), OPTIONS["loss"], QUESTIONS["sweep"]
    found = [plain(ask(Evaluator(model, images(), jobs=n, **options))) for n in (1, 2)]
    assert found[0] == found[1]


@pytest.mark.parametrize("case", ADAPTERS, ids=lambda case: case.name)
def test_every_framework(here, case):
    model, x = case.make(), case.input()
    count = x.shape[1] if x.dim() in (3, 5) else x.shape[0]
    batches = [(x, torch.arange(count) % 3)] * 2
    ask = {"time": "network", "chips": 3}
    found = [plain(simulate_chips(model, batches, Gaussian(0.2), jobs=n, **ask)) for n in (1, 2)]
    assert found[0] == found[1]


def test_spikes_and_neurons_go_wrong_elsewhere_as_here(here):
    chip = Chip(Gaussian(0.1), thresholds=0.2)
    crossbar = Crossbar(adc_bits=3, adc_range=2.0, output_noise=0.2)
    found = []
    for jobs in (1, 2):
        test = Evaluator(a_model(), a_loader(), jobs=jobs)
        found.append(
            [
                plain(test.corrupt(Deletion, [0, 0.3], device=Gaussian(0.1), chips=3)),
                plain(test.corrupt(ThresholdMismatch, [0.2], chips=3)),
                plain(test.chips(chip, chips=3)),
                plain(test.chips(replace(chip, crossbar=crossbar), chips=3)),
                plain(test.chips(chip, chips=3)),
            ]
        )
    assert found[0] == found[1]


def test_the_network_is_as_it_was_and_can_be_asked_again(here):
    model = convolutional()
    before = copy.deepcopy(model.state_dict())
    done = []
    test = Evaluator(model, images(), jobs=2)
    report = test.chips(Gaussian(0.1), chips=4, progress=lambda *row: done.append(row))
    assert done == [(n + 1, 4, a) for n, a in enumerate(report.accuracies.tolist())]
    with torch.no_grad():
        model[0].weight.neg_()
    other = Evaluator(model, images()).chips(Gaussian(0.1), chips=4)
    assert plain(test.chips(Gaussian(0.1), chips=4)) == plain(other)
    with torch.no_grad():
        model[0].weight.neg_()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_cannot_be_shared():
    with pytest.raises(ValueError, match="jobs must be a whole number of at least 1, got 0"):
        Evaluator(convolutional(), images(), jobs=0)
    with pytest.raises(ValueError, match="stack=True cannot be combined with jobs=2"):
        Evaluator(convolutional(), images(), jobs=2, stack=True)
    test = Evaluator(convolutional(), images(), jobs=2, cache_bytes=0)
    with pytest.raises(ValueError, match="30 images do not fit into memory, which jobs=2 needs"):
        test.chips(Gaussian(0.1))
    model = convolutional()
    nn.utils.parametrizations.weight_norm(model[-1])
    with pytest.raises(UnsupportedModelError, match="'4.weight' is computed by its layer"):
        Evaluator(model, images(), jobs=2).chips(Gaussian(0.1))
    model = convolutional()
    model.lines = (line for line in "ab")
    with pytest.raises(UnsupportedModelError, match=r"jobs=2 sends .* pickle 'generator' object"):
        Evaluator(model, images(), jobs=2).chips(Gaussian(0.1))


def test_errors_in_a_process_and_its_death_are_told():
    def run(number):
        if number == 1:
            raise OSError("the disk is gone")
        if number == 2:
            os._exit(1)
        print("an answer is nothing printed")
        return 10 * number

    with Processes(2, run, "this test") as processes:
        assert list(processes.each([(0,), (3,)])) == [0, 30]
        with pytest.raises(OSError, match="the disk is gone"):
            list(processes.each([(1,)]))
        with pytest.raises(RuntimeError, match="this test: one of the 2 processes was killed"):
            list(processes.each([(2,), (3,)]))
        begun = list(processes._processes)
    assert all(process.returncode is not None for process in begun)


def test_a_copy_keeps_the_loader_that_it_still_needs():
    test = Evaluator(convolutional(), images(), cache_bytes=0)
    assert copy.deepcopy(test).accuracy == test.accuracy
