"""What a network draws itself: the same numbers for the same chip, and for nobody else."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from spikewvat.devices import Gaussian, Ideal
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness import Evaluator, simulate_chips
from spikewvat.robustness.corruptions import Deletion
from spikewvat.robustness.draws import Draws
from spikewvat.spiking.losses import rate_cross_entropy


def by_torch(shape):
    return torch.rand(shape)


def by_numpy(shape):
    return torch.from_numpy(np.random.random(tuple(shape)))  # noqa: NPY002


def by_python(shape):
    return torch.tensor([random.random() for _ in range(shape.numel())]).reshape(shape)


SOURCES = [by_torch, by_numpy, by_python]


class Drawing(nn.Module):
    """Encodes its input at random."""

    def __init__(self, source):
        super().__init__()
        self.fc, self.source = nn.Linear(8, 4), source

    def forward(self, x):
        return torch.stack([self.fc((self.source(x.shape) < x).to(x)) for _ in range(3)])


class Start(nn.Module):
    """Random initial potentials, and dropout that is kept on."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        v, outputs = torch.randn(len(x), 16), []
        for _ in range(3):
            v = 0.9 * v + self.fc(x)
            spikes = nn.functional.dropout((v > 0.5).float(), 0.3, training=True)
            outputs.append(self.out(spikes))
        return torch.stack(outputs)


def images(count=90, batch=30):
    x, labels = torch.rand(count, 8), torch.randint(0, 4, (count,))
    return list(zip(x.split(batch), labels.split(batch), strict=True))


def states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


def everything(test):
    around = test.landscape
    kinds = {"chips": 4, "seed": 2}
    return [
        test.accuracy,
        test.chips(Gaussian(0.1), **kinds).accuracies.tolist(),
        test.chips(Gaussian(0.1), images_per_chip=20, **kinds).accuracies.tolist(),
        [report.accuracies.tolist() for report in test.sweep(Gaussian, [0, 0.1], **kinds).reports],
        around.lines(Gaussian(0.1), lines=1, points=3).losses.tolist(),
        around.sharpness(Gaussian(0.1), chips=3, ascent_points=1).report.losses.tolist(),
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_equal_seeds_are_equal_chips_and_generators_stay(source):
    model, loader = Drawing(source), images()
    before = states()
    one = everything(Evaluator(model, loader))
    assert states() == before
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    other = Evaluator(model, loader)
    assert everything(other) == one
    assert everything(other) == one  # asked again, where the accuracy is known already
    assert everything(Evaluator(model, loader, cache_bytes=2**20)) == one


def test_random_starts_are_those_of_the_chip():
    model, loader = Start(), images()
    test = Evaluator(model, loader, loss=rate_cross_entropy)
    one = test.chips(Gaussian(0.1), chips=6)
    more = test.chips(Gaussian(0.1), chips=9)
    assert torch.equal(one.losses, more.losses[:6])
    assert torch.equal(one.losses, test.sweep(Gaussian, [0.0, 0.1], chips=6)[1].losses)


def test_a_loader_that_draws_or_is_read_anew_changes_nothing():
    model, loader = Drawing(by_torch), images()

    class Restless:
        def __iter__(self):
            for batch in loader:
                torch.rand(3)
                yield batch

    kept = Evaluator(model, loader).chips(Gaussian(0.1), chips=3)
    read = Evaluator(model, Restless(), cache_bytes=0).chips(Gaussian(0.1), chips=3)
    assert torch.equal(kept.accuracies, read.accuracies)


def test_chips_with_equal_weights_draw_for_themselves():
    model, loader = Start(), images()
    chips = Evaluator(model, loader, loss=rate_cross_entropy).chips(Ideal(), chips=5)
    assert len(set(chips.losses.tolist())) == 5
    # No variation has its own draws, the same ones at every call.
    test = Evaluator(model, loader, loss=rate_cross_entropy)
    assert test.accuracy == test.accuracy == Evaluator(model, loader).accuracy
    assert torch.equal(test.chips(Ideal(), chips=5).losses, chips.losses)
    quiet = nn.Linear(8, 4)
    calls = []
    quiet.register_forward_hook(lambda *_: calls.append(1))
    report = simulate_chips(quiet, loader, Ideal(), chips=5)
    assert report.std == 0
    assert len(calls) == 2 + 3


def test_what_chips_draw_is_independent_of_their_weights():
    drawn = []

    def watched(shape):
        drawn.append(torch.randn(shape))
        return drawn[-1]

    model = nn.Sequential(nn.Linear(8, 8, bias=False), Drawing(watched))
    device = Gaussian(1.0)
    report = simulate_chips(model, images(8, 8), device, chips=1)
    generator = torch.Generator().manual_seed(report.seeds[0])
    chip = device.program({"w": model[0].weight.detach()}, generator=generator)
    noise = (chip["w"] - model[0].weight.detach()).flatten()
    for numbers in drawn[-3:]:
        together = torch.corrcoef(torch.stack([noise, numbers.flatten()]))[0, 1]
        assert abs(float(together)) < 0.5


@pytest.mark.parametrize("source", SOURCES)
def test_stacked_chips_cannot_draw(source):
    model, loader = Drawing(source), images()
    with pytest.raises(UnsupportedModelError, match="draws random numbers"):
        simulate_chips(model, loader, Gaussian(0.1), stack=True)


def test_corrupted_chips_draw_the_same():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Start()

        def forward(self, x):
            return self.net(x.mean(0))

    model = Steps()
    spikes, labels = (torch.rand(5, 30, 8) < 0.4).float(), torch.randint(0, 4, (30,))
    test = Evaluator(model, [(spikes, labels)])
    one = test.corrupt(Deletion, [0.0, 0.3], chips=3)
    other = test.corrupt(Deletion, [0.3], chips=3)
    assert torch.equal(one[1].accuracies, other[0].accuracies)
    chips = test.chips(Ideal(), chips=3)
    assert torch.equal(one[0].accuracies, chips.accuracies)


@pytest.mark.parametrize("when", [1, 3, 5])
def test_generators_are_as_before_whatever_is_raised(when):
    model, loader, calls = Drawing(by_torch), images(), []

    def fail(*_):
        calls.append(1)
        torch.rand(2), np.random.random(), random.random()  # noqa: NPY002
        if len(calls) == when:
            raise KeyboardInterrupt

    model.register_forward_hook(fail)
    before = states()
    with pytest.raises(KeyboardInterrupt):
        simulate_chips(model, loader, Gaussian(0.1), chips=2)
    assert states() == before


@pytest.mark.parametrize("source", SOURCES)
def test_draws_are_seen(source):
    cpu = [torch.device("cpu")]
    draws = Draws()
    with draws.forked(cpu):
        with draws.of(3, 0, cpu):
            torch.zeros(2)
        assert not draws.seen
        with draws.of(3, 0, cpu):
            one = source(torch.Size([4]))
        assert draws.seen
        with draws.of(3, 1, cpu):
            assert not torch.equal(source(torch.Size([4])), one)
        with draws.of(3, 0, cpu):
            assert torch.equal(source(torch.Size([4])), one)
