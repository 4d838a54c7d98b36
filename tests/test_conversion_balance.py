"""Streams of quantiles, balancing over chips, resuming; accuracy against time."""

from __future__ import annotations

import pytest
import reference_conversion as reference
import torch
from torch import nn

from spikewvat import Gaussian, adapter_for
from spikewvat.conversion import (
    HYBRID,
    STARTS,
    Balancer,
    Balancing,
    Dynamics,
    Poisson,
    balance,
    choose_start,
    convert,
    early_exit,
    sweep_time,
)
from spikewvat.conversion.quantiles import Quantiles
from spikewvat.weights import replaced

STEPS = Balancing("steps", 99.0, per_channel=False)


def small(time_steps=8, **options):
    torch.manual_seed(4)
    ann = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))
    return convert(ann, batches(), time_steps=time_steps, **options)


def batches(count=4):
    generator = torch.Generator().manual_seed(9)
    return [torch.rand(8, 6, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantiles_of_a_stream(percent, per_channel):
    """Values grow from batch to batch, so that the histogram must widen."""
    parts = [torch.randn(3, 4, 2, 5) * scale for scale in (0.1, 1.0, 7.0)]
    quantiles = Quantiles(per_channel=per_channel)
    for part in parts:
        quantiles.add(part)
    found = quantiles.percentile(percent)
    every = torch.cat(parts)
    streams = [every[:, :, c] for c in range(2)] if per_channel else [every]
    expected = [max(0.0, reference.percentile(s.flatten().tolist(), percent)) for s in streams]
    largest = float(every.max())
    assert found.flatten().tolist() == pytest.approx(expected, abs=largest / 1024)
    if percent == 100:
        assert found.flatten().tolist() == expected


def test_threshold_of_least_error():
    """Against a search over the values themselves."""
    values = torch.rand(4000).square()[None, :, None]
    quantiles = Quantiles()
    quantiles.add(values)

    def error(threshold, steps=4):
        told = (values * steps / threshold + 0.5).floor().clamp(0, steps) * threshold / steps
        return float((values - told).square().sum())

    found = float(quantiles.least_error(4, 0.5))
    best = min(error(t / 200) for t in range(20, 201))
    assert error(found) <= 1.02 * best
    assert found < 0.95


def test_quantiles_need_values():
    with pytest.raises(ValueError, match="no values have been added"):
        Quantiles().percentile(99)


@pytest.mark.parametrize("balancing", [Balancing(), STEPS], ids=lambda b: b.statistic)
@pytest.mark.parametrize("variation", [None, Gaussian(0.1)], ids=["clean", "chips"])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumed_balancing_is_the_straight_one(balancing, variation, stop, tmp_path):
    def fresh():
        return small(coding=Poisson(), dynamics=HYBRID)

    def balancer(snn):
        generator = torch.Generator().manual_seed(1)
        return Balancer(snn, balancing, variation=variation, generator=generator)

    straight = balancer(fresh()).run(batches())
    passes = 1 if balancing.statistic == "activations" else 2
    if stop > passes * 4 - 1:
        stop = 2

    class Killed(Exception):
        pass

    kept = []

    def keep(b):
        kept.append(b.state_dict())
        if len(kept) == stop:
            raise Killed

    with pytest.raises(Killed):
        balancer(fresh()).run(batches(), on_batch=keep)
    resumed = Balancer(fresh(), balancing, variation=variation)  # other seeds: those kept count
    resumed.load_state_dict(kept[-1])
    found = resumed.run(batches())
    assert all(torch.equal(found[name], level) for name, level in straight.items())


def test_checkpoint_file(tmp_path):
    file, snn = tmp_path / "balancing.safetensors", small()
    first = balance(snn, batches(), STEPS, checkpoint=file)
    assert file.is_file()
    again = balance(snn, batches(), STEPS, checkpoint=file)
    assert all(torch.equal(again[name], level) for name, level in first.items())


def test_ensemble_is_the_quantile_of_the_chips():
    snn, device = small(), Gaussian(0.1)
    balancing = Balancing(percentile=100.0, per_channel=False, chips=5, quantile=0.75)
    balancer = Balancer(snn, balancing, variation=device)
    seeds = balancer.state_dict()["seeds"][1:]
    found = balancer.run(batches())
    live = adapter_for(snn).synaptic_weights(snn)
    alone = {name: [] for name in found}
    for seed in seeds:
        chip = device.program(
            {name: w.detach() for name, w in live.items()},
            generator=torch.Generator().manual_seed(seed),
        )
        with replaced(live, chip):
            one = balance(snn, batches(), Balancing(percentile=100.0, per_channel=False))
        for name, level in one.items():
            alone[name].append(level)
    for name, level in found.items():
        torch.testing.assert_close(level, torch.stack(alone[name]).quantile(0.75))
    assert len({float(level) for level in alone["1"]}) == 5


def test_higher_percentile_and_scaling():
    snn = small()
    low = balance(snn, batches(), Balancing(percentile=80.0))
    high = balance(snn, batches(), Balancing(percentile=100.0))
    half = balance(snn, batches(), Balancing(percentile=100.0, scaling=0.5))
    for name in low:
        assert (low[name] <= high[name]).all()
        torch.testing.assert_close(half[name], high[name] / 2)
    assert high["1"].shape == (10,)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"percentile": 0.0}, r"percentile must lie in \(0, 100\], got 0.0"),
        ({"percentile": 100.1}, r"percentile must lie in \(0, 100\], got 100.1"),
        ({"statistic": "max"}, "statistic must be 'activations' or 'steps', got 'max'"),
        ({"statistic": "steps"}, "percentile=None fits spike counts to activations"),
        ({"scaling": 0.0}, "scaling must be finite and above 0, got 0.0"),
        ({"chips": 0}, "chips must be at least 1, got 0"),
        ({"quantile": 1.5}, r"quantile must lie in \[0, 1\], got 1.5"),
    ],
)
def test_balancing_out_of_range(arguments, match):
    with pytest.raises(ValueError, match=match):
        Balancing(**arguments)


def test_thresholds_of_another_network():
    snn = small()
    with pytest.raises(ValueError, match="thresholds are for .'x'., expected .'1', '3'."):
        snn.set_thresholds({"x": torch.ones(())})
    with pytest.raises(ValueError, match="the threshold of '1' is 0.0, expected above 0"):
        snn.set_thresholds({"1": torch.zeros(()), "3": torch.ones(())})


def test_sweep_reads_one_pass():
    """Each accuracy is that of a network that runs so long; costs by a literal count."""
    snn = small()
    data = [(x, snn.analog(x).argmax(1)) for x in batches()]
    steps = (1, 3, 8, 20)
    sweep = sweep_time(snn, data, steps, margins=[0.0, 0.5, 1e9])
    for step, accuracy in zip(steps, sweep.accuracies, strict=True):
        snn.time_steps = step
        with torch.no_grad():
            right = sum(int((snn(x).argmax(1) == y).sum()) for x, y in data)
        assert accuracy == pytest.approx(right / 32)
    fired = torch.zeros(2)
    snn.time_steps = 20

    def count(node, inputs, output):
        if node.path in ("1", "3"):
            fired[int(node.path == "3")] += output.count_nonzero()

    for x, _ in data:
        list(snn.outputs(x, observe=count))
    assert sweep.spikes[-1] == pytest.approx(float(fired.sum()) / 32)
    assert sweep.operations[-1] == pytest.approx(float(fired[0] * 8 + fired[1] * 3) / 32)
    assert sweep.input_operations == 60
    never, soon, always = sweep.early[2], sweep.early[1], sweep.early[0]
    assert always.mean_steps == 1
    assert never.mean_steps == 20
    assert never.accuracy == pytest.approx(sweep.accuracies[-1])
    assert 1 < soon.mean_steps < 20
    assert "T =    20" in str(sweep)


def test_operations_of_convolutions_stop_at_borders():
    ann = nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(36, 2),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in ann.parameters():
            parameter.fill_(1.0)
    x = torch.ones(1, 1, 3, 3)
    snn = convert(ann, [x], time_steps=2, balancing=Balancing(percentile=100.0))
    sweep = sweep_time(snn, [(x, torch.zeros(1, dtype=torch.long))], [1, 2])
    inner = 4 * (4 * 4 + 4 * 6 + 9)  # synapses of corners, edges and centre
    fired = int((torch.cat(_fired(snn, x, "3")) != 0)[0].sum())
    assert sweep.operations[0] == inner + 2 * fired
    assert sweep.input_operations == 9


def _fired(snn, x, path):
    found = []
    list(snn.outputs(x, observe=lambda n, i, o: found.append(o) if n.path == path else None))
    return found


def test_early_exit_stops_when_sure():
    snn, x = small(40), batches()[0]
    sweep = sweep_time(snn, [(x, snn.analog(x).argmax(1))], [40], margins=[2.0])
    steps, right = [], 0
    for image in x:
        answer, done = early_exit(snn, image[None], 2.0)
        steps.append(done)
        right += int(answer == snn.analog(image[None]).argmax(1))
    assert sum(steps) / 8 == pytest.approx(sweep.early[0].mean_steps)
    assert right / 8 == pytest.approx(sweep.early[0].accuracy)
    together, done = early_exit(snn, x, 2.0)
    assert done == max(steps)
    assert together.shape == (8,)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda s: sweep_time(s, [], [4]), "the loader yields no images"),
        (lambda s: sweep_time(s, [], []), "steps is empty"),
        (lambda s: sweep_time(s, [], [0]), "at least 1, got 0"),
        (lambda s: sweep_time(s, [], [4], margins=[-1]), "margins must be at least 0, got -1"),
        (lambda s: early_exit(s, batches()[0], -1.0), "margin must be at least 0, got -1.0"),
    ],
)
def test_wrong_arguments_of_sweeps(call, match):
    with pytest.raises(ValueError, match=match):
        call(small())


@pytest.mark.parametrize("burst", [1, 3])
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_least_error_is_that_of_a_search_over_all_bins(burst, steps):
    """Suffix sums against every bin and candidate, starts differing between channels."""
    values = torch.randn(2, 30, 3, 5) * torch.tensor([0.2, 1.0, 30.0])[:, None]
    quantiles = Quantiles(per_channel=True)
    quantiles.add(values)
    starts = torch.tensor([0.0, 0.5, 0.75])
    found = quantiles.least_error(steps, starts, burst=burst)
    state = quantiles.state_dict()
    x = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    shares = torch.linspace(1 / 128, 1, 128, dtype=torch.float64)
    for channel, start in enumerate(starts.tolist()):
        at = x * state["limit"][channel].double()
        errors = []
        for level in shares * state["maximum"][channel].double():
            told = (at * steps / level + start).floor().clamp(0, burst * steps) * level / steps
            errors.append(((at - told) ** 2 * state["counts"][channel]).sum())
        best = shares[int(torch.stack(errors).argmin())] * state["maximum"][channel]
        assert float(found[channel]) == pytest.approx(float(best), rel=1e-6)


def test_each_number_of_steps_has_thresholds_of_its_own():
    snn = small(20)
    data = [(x, snn.analog(x).argmax(1)) for x in batches()]
    before = snn.thresholds()
    steps = (1, 3, 20)
    sweep = sweep_time(
        snn, data, steps, fit=lambda net: balance(net, batches()), margins=[0.0, 1e9]
    )
    for step, accuracy, spikes in zip(steps, sweep.accuracies, sweep.spikes, strict=True):
        own = small(step)
        alone = sweep_time(own, data, [step])
        assert (accuracy, spikes) == (alone.accuracies[0], alone.spikes[0])
    assert [(e.margin, e.within) for e in sweep.early] == [
        (margin, step) for step in steps for margin in (0.0, 1e9)
    ]
    assert [e.mean_steps for e in sweep.early] == [1, 1, 1, 3, 1, 20]
    assert all(torch.equal(level, before[name]) for name, level in snn.thresholds().items())
    assert snn.time_steps == 20


def test_a_sweep_says_when_thresholds_belong_to_another_time():
    snn = small(8)
    data = [(x, snn.analog(x).argmax(1)) for x in batches()]
    assert "fitted to another number of steps" in str(sweep_time(snn, data, [4, 8]))
    assert sweep_time(snn, data, [8]).fitted
    balance(snn, batches(), Balancing(percentile=100.0))
    assert sweep_time(snn, data, [4, 8]).fitted  # to none in particular


def test_the_start_is_half_a_threshold_unless_held_out_images_say_otherwise():
    """At one step, starting at 0 tells nothing; as the first of two it yields to the half."""
    snn, many = small(1), batches(64)
    assert {float(n.start) for n in snn.neurons().values()} == {0.5}
    draw = torch.Generator().manual_seed(2)
    assert choose_start(snn, many, (0.5, 0.0), generator=draw) == 0.5
    assert choose_start(snn, many, (0.0, 0.5), generator=draw) == 0.5
    assert choose_start(snn, many, (0.0,), generator=draw) == 0.0
    assert {float(n.start) for n in snn.neurons().values()} == {0.0}
    assert choose_start(snn, many, (0.0, 0.5), variation=Gaussian(0.03), generator=draw) == 0.5


@pytest.mark.parametrize(
    ("options", "checked"),
    [
        ({}, False),
        ({"variation": Gaussian(0.1)}, True),
        ({"variation": Gaussian(0.1), "dynamics": Dynamics()}, False),
        ({"dynamics": Dynamics(), "starts": STARTS}, True),
    ],
    ids=["clean", "chips", "chips, given", "clean, asked"],
)
def test_when_the_start_is_checked(options, checked, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "spikewvat.conversion.pipeline.choose_start",
        lambda snn, images, starts, **_: asked.append(starts),
    )
    small(**options)
    assert asked == ([STARTS] if checked else [])


def test_held_out_images_are_not_balanced_with(monkeypatch):
    seen = []

    def spy(snn, loader, *args, **options):
        seen.append(torch.cat(list(loader)))
        return balance(snn, loader, *args, **options)

    monkeypatch.setattr("spikewvat.conversion.start.balance", spy)
    snn = small()
    choose_start(snn, batches(), generator=torch.Generator().manual_seed(0))
    every = torch.cat(batches())
    assert len(seen) == 2
    assert all(torch.equal(part, every[torch.arange(32) % 8 != 0]) for part in seen)


@pytest.mark.parametrize(
    ("starts", "images", "match"),
    [
        ((), 4, "starts is empty"),
        ((1.0,), 4, r"initial must lie in \[0, 1\), got 1.0"),
        ((0.5, 0.0), 1, "only 1 calibration images are left"),
        ((0.5, 0.0), 0, "the loader yields no batch"),
    ],
)
def test_starts_that_cannot_be_checked(starts, images, match):
    with pytest.raises(ValueError, match=match):
        choose_start(small(), batches(images), starts)


def test_starts_are_kept_with_the_weights():
    snn = small()
    choose_start(snn, batches(), (0.25,))
    again = small()
    again.load_state_dict(snn.state_dict())
    assert {float(n.start) for n in again.neurons().values()} == {0.25}
    assert torch.equal(again(batches()[0]), snn(batches()[0]))
