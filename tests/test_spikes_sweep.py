"""Sweeps over severities against a literal loop, and counts of what a network does."""

from __future__ import annotations

import pytest
import reference_spikes as reference
import torch
from model_cases import ADAPTERS, Stepwise
from spike_cases import some_events
from spikingjelly.activation_based import layer, neuron
from torch import nn

from spikewvat.adapters import Tap, adapter_for
from spikewvat.conversion import convert, sweep_time
from spikewvat.devices import Gaussian, Ideal
from spikewvat.errors import UnsupportedModelError
from spikewvat.lab.models.slayer import CNN as SlayerCNN
from spikewvat.lab.models.snntorch import SpikingCNN
from spikewvat.lab.models.tsslbp import ConvNet, Stage
from spikewvat.robustness import Activity, Degradation, Evaluator, corrupt, simulate_chips
from spikewvat.robustness.axis import Axis
from spikewvat.robustness.corruptions import (
    DeadNeurons,
    Deletion,
    DroppedBins,
    HotPixels,
    Jitter,
    LeakMismatch,
    ReadNoise,
    StuckNeurons,
    ThresholdMismatch,
    TransmissionLoss,
)
from spikewvat.robustness.observer import Observer
from spikewvat.serialisation import plain
from spikewvat.spiking.layers import SumPool2d
from spikewvat.weights import replaced

IMAGES, CLASSES = 12, 4
SPIKES = some_events((6, IMAGES, 2, 4, 4))
LABELS = torch.randint(CLASSES, (IMAGES,), generator=torch.Generator().manual_seed(2))


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def a_model():
    torch.manual_seed(1)
    return Stepwise(
        layer.Flatten(),
        layer.Linear(32, 16),
        neuron.LIFNode(v_threshold=0.15),
        layer.Linear(16, CLASSES),
        neuron.LIFNode(v_threshold=0.1),
    )


def a_loader(batch=5):
    starts = range(0, IMAGES, batch)
    return [(SPIKES[:, i : i + batch], LABELS[i : i + batch]) for i in starts]


def sweeping(kind, severities=(0.0, 0.2, 0.6), model=None, loader=None, **keywords):
    options = {name: keywords.pop(name) for name in ("loss", "cache_bytes") if name in keywords}
    test = Evaluator(model or a_model(), loader or a_loader(), **options)
    return test.corrupt(kind, severities, **{"seed": 3, "chips": 4} | keywords)


def everything(severity):
    return (
        Deletion(severity)
        >> HotPixels(0.1 * severity)
        >> DeadNeurons(severity)
        >> ThresholdMismatch(severity)
        >> LeakMismatch(severity)
        >> TransmissionLoss(severity)
    )


@torch.no_grad()
def literal(model, happens, device, seed):
    """Return accuracy and loss of one chip, batch after batch."""
    adapter = adapter_for(model)
    live = adapter.synaptic_weights(model)
    chip = device.program({n: w.detach() for n, w in live.items()}, generator=seeded(seed))
    right, loss = 0, 0.0
    with replaced(live, chip), corrupt(model, happens, seed=seed):
        for spikes, labels in a_loader():
            adapter.reset_state(model)
            output = model(spikes)
            right += int((output.sum(0).argmax(1) == labels).sum())
            loss += float(count_loss(output, labels)) * len(labels)
    adapter.reset_state(model)
    return right / IMAGES, loss / IMAGES


def count_loss(output, labels):
    return output.sum(0).square().mean()


@pytest.mark.parametrize("device", [None, Gaussian(0.1)], ids=repr)
@pytest.mark.parametrize("kind", [Deletion, Jitter, DeadNeurons, TransmissionLoss, everything])
def test_every_chip_is_that_of_the_literal_loop(kind, device):
    model = a_model()
    curve = sweeping(kind, model=model, device=device, loss=count_loss)
    assert curve.sigmas == (0.0, 0.2, 0.6)
    found = set()
    for report in curve:
        expected = [
            literal(model, kind(report.severity), device or Ideal(), seed) for seed in report.seeds
        ]
        pairs = zip(report.accuracies.tolist(), report.losses.tolist(), strict=True)
        assert list(pairs) == expected
        found.update(expected)
    assert len(found) > 8 - 3 * (device is None)
    assert len({report.seeds for report in curve}) == 1


def test_severity_0_is_the_sweep_of_weights_alone():
    curve = sweeping(Deletion, (0.0,), device=Gaussian(0.1))
    plain = simulate_chips(a_model(), a_loader(), Gaussian(0.1), chips=4, seed=3)
    assert torch.equal(curve[0].accuracies, plain.accuracies)
    assert curve[0].seeds == plain.seeds
    ideal = sweeping(Deletion, (0.0,))
    assert ideal[0].accuracies.tolist() == [ideal.clean] * 4
    assert ideal[0].activity == ideal.activity
    assert set(ideal.rate_shifts[0].values()) == {0.0}


@pytest.mark.parametrize("kind", [Deletion, DroppedBins, DeadNeurons, StuckNeurons, HotPixels])
def test_chips_do_not_depend_on_batches(kind):
    whole, parts = (sweeping(kind, loader=a_loader(batch)) for batch in (IMAGES, 5))
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.accuracies, other.accuracies)
        assert one.activity.spikes == pytest.approx(other.activity.spikes)
    kept, read_again = (sweeping(kind, cache_bytes=n) for n in (2**20, 0))
    assert torch.equal(kept[2].accuracies, read_again[2].accuracies)


def test_equal_chips_are_evaluated_once():
    model, passes = a_model(), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    sweeping(Deletion, (0.0, 0.0, 0.5), model=model, loader=a_loader(IMAGES))
    # Two to see that no state survives, clean, twice four chips like it, then four that differ by
    # the noise of their events.
    assert len(passes) == 2 + 1 + 4
    # Evaluated anew after those.
    passes.clear()
    sweeping(Deletion, (0.5, 0.0), model=model, loader=a_loader(IMAGES))
    assert len(passes) == 2 + 1 + 4 + 1


def test_model_is_as_before_whatever_is_raised():
    model = a_model().train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    for severities, error in (((0.0, 0.5), None), ((0.5,), RuntimeError)):

        def loss(output, labels, error=error):
            if error:
                raise error("broken")
            return output.float().mean()

        if error is None:
            assert sweeping(everything, severities, model=model, loss=loss)[0].losses is not None
        else:
            with pytest.raises(RuntimeError, match="broken"):
                sweeping(everything, severities, model=model, loss=loss, device=Gaussian(0.1))
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
        assert model.training
        assert all("forward" not in vars(module) for module in model.modules())
        assert not model._forward_pre_hooks


def test_results_and_their_files(through_a_file):
    curve = sweeping(DeadNeurons, target=0.5)
    report = curve[2]
    assert (report.corruption, report.severity) == ("dead neurons", 0.6)
    assert report.unit == DeadNeurons.UNIT
    assert report.device == "Ideal()"
    assert report.sigma is None
    assert curve.axis == Axis("dead neurons", DeadNeurons.UNIT)
    assert curve.at(0.2) is curve[1]
    with pytest.raises(KeyError, match=r"dead neurons 0\.3 was not swept \(swept: 0, 0\.2, 0\.6"):
        curve.at(0.3)
    assert str(curve).splitlines()[2].startswith("dead neurons 0.2: ")
    assert all(shift < 0 for shift in curve.rate_shifts[2].values())
    again = through_a_file(curve)
    assert again.activity == curve.activity
    assert again[2].activity == report.activity
    assert again.axis == curve.axis
    assert again.rate_shifts == curve.rate_shifts
    assert plain(again) == plain(curve)
    other = sweeping(DeadNeurons, target=0.5, seed=8)
    both = Degradation.pooled([curve, other])
    assert both[2].chips == 8
    expected = (report.activity.spikes + other[2].activity.spikes) / 2
    assert both[2].activity.spikes == pytest.approx(expected)
    with pytest.raises(ValueError, match="curves of the same sigmas, got.*dead neurons.*deletion"):
        Degradation.pooled([curve, sweeping(Deletion)])
    uncounted = Degradation(0.5, curve.reports)
    assert uncounted.rate_shifts == ({}, {}, {})


def test_progress_and_early_stop():
    calls = []
    sweeping(
        Deletion,
        (0.0, 0.4),
        progress=lambda *call: calls.append(call[:2]),
        interval_width=2.0,
        min_chips=2,
        chips=3,
    )
    assert calls == [(1, 6), (2, 6), (4, 6), (5, 6)]


def test_misuse_is_explained():
    with pytest.raises(ValueError, match="no severities to sweep"):
        sweeping(Deletion, ())
    with pytest.raises(ValueError, match=r"severity must be a finite number of at least 0.*-0\.1"):
        sweeping(Deletion, (-0.1,))
    with pytest.raises(ValueError, match=r"got 1\.5"):
        sweeping(Deletion, (1.5,))
    with pytest.raises(TypeError, match=r"corruption_at\(0\.1\) is .*Gaussian.*, expected a corr"):
        sweeping(Gaussian, (0.1,))
    with pytest.raises(ValueError, match="chips must be a whole number of at least 1"):
        sweeping(Deletion, chips=0)
    with pytest.raises(TypeError, match="device must be a device model"):
        sweeping(Deletion, device=0.1)
    ann = nn.Sequential(nn.Flatten(2), nn.Linear(32, CLASSES))
    found = sweeping(Deletion, model=ann)
    assert found.activity is None
    assert found[1].activity is None
    with pytest.raises(UnsupportedModelError, match="no spiking neurons"):
        sweeping(DeadNeurons, model=ann)


# --- activity -------------------------------------------------------------------------------------


def counted(model, x):
    adapter = adapter_for(model)
    observer = Observer(model, adapter, adapter.synaptic_weights(model))
    with torch.no_grad(), observer.watching():
        adapter.reset_state(model)
        model(x)
    adapter.reset_state(model)
    return observer.found()


@torch.no_grad()
def trains_of(model, x):
    """Return the spikes [T, B, ...] that leave each layer of neurons."""
    adapter, found, taps = adapter_for(model), {}, []
    for name, one in adapter.neuron_layers(model).items():
        found[name] = []

        def note(spikes, name=name):
            found[name].append(spikes.clone())
            return spikes

        taps.append(one.tapped(Tap(spikes=note)))
        taps[-1].__enter__()
    adapter.reset_state(model)
    model(x)
    for tap in reversed(taps):
        tap.__exit__(None, None, None)
    adapter.reset_state(model)
    return {name: torch.cat(steps) for name, steps in found.items()}


def reached_by(conv, shape):
    """Return how many synapses each pixel of a padded convolution has, one kernel at a time."""
    channels, height, width = shape
    kernel, padding = conv.kernel_size[0], conv.padding[0]
    counts = torch.zeros(channels, height, width)
    for top in range(-padding, height + padding - kernel + 1):
        for left in range(-padding, width + padding - kernel + 1):
            for y in range(top, top + kernel):
                for x in range(left, left + kernel):
                    if 0 <= y < height and 0 <= x < width:
                        counts[:, y, x] += conv.out_channels
    return counts.flatten().tolist()


@pytest.mark.parametrize("name", ["snntorch-nested", "spikingjelly-multi-step", "slayer-fc"])
def test_activity_of_dense_networks_is_the_literal_count(name):
    case = next(case for case in ADAPTERS if case.name == name)
    model, x = case.make().eval(), case.input()
    trains = trains_of(model, x)
    first, second = trains.values()
    spikes, rates, operations = reference.activity(trains, [(x, [6] * 3), (first, [4] * 6)])
    found = counted(model, x)
    assert found == Activity(spikes, operations, pytest.approx(rates))
    assert second.sum() > 0


@pytest.mark.parametrize("name", ["snntorch-cnn", "spikingjelly-cnn-m", "spikingjelly-cnn-s"])
def test_activity_of_convolutional_networks_is_the_literal_count(name):
    case = next(case for case in ADAPTERS if case.name == name)
    model, x = case.make().eval(), case.input()
    trains = {key: train.flatten(2) for key, train in trains_of(model, x).items()}
    if trains[next(iter(trains))].shape[0] * 2 == x.shape[0]:
        raise AssertionError("steps are missing")
    first, second, _ = trains.values()
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    synapses = [
        (x.flatten(2), reached_by(convs[0], (2, 8, 8))),
        (first, reached_by(convs[1], (3, 4, 4))),
        (second, [4] * 16),
    ]
    spikes, rates, operations = reference.activity(trains, synapses)
    assert counted(model, x) == Activity(spikes, operations, pytest.approx(rates))


def test_filtered_spikes_are_counted_as_spikes():
    """SLAYER and TSSL-BP synapses see currents; what counts is the spikes that they are of."""
    x = some_events((15, 2, 2, 8, 8))
    slayer_cnn = SlayerCNN(input_shape=(2, 8, 8), channels=(2, 3), kernel_sizes=(3, 3), classes=4)
    trains = {key: t.flatten(2) for key, t in trains_of(slayer_cnn, x).items()}
    _, pooled, second, _ = trains.values()
    convs = [module for module in slayer_cnn.modules() if isinstance(module, nn.Conv2d)]
    synapses = [
        (x.flatten(2), reached_by(convs[0], (2, 8, 8))),
        (pooled, reached_by(convs[1], (2, 4, 4))),
        (second, [4] * 48),
    ]
    assert pooled.sum() > 0
    spikes, rates, operations = reference.activity(trains, synapses)
    assert counted(slayer_cnn, x) == Activity(spikes, operations, pytest.approx(rates))

    tssl = ConvNet(input_shape=(2, 8, 8), stages=(Stage(3, 3, padding=1, pool=2),), classes=4)
    trains = trains_of(tssl, x)
    first, _ = trains.values()
    pooled = SumPool2d(2)(first).flatten(2).ne(0).float()
    conv = next(module for module in tssl.modules() if isinstance(module, nn.Conv2d))
    synapses = [(x.flatten(2), reached_by(conv, (2, 8, 8))), (pooled, [4] * 48)]
    spikes, rates, operations = reference.activity(
        {key: t.flatten(2) for key, t in trains.items()}, synapses
    )
    assert first.sum() > 0
    assert counted(tssl, x) == Activity(spikes, operations, pytest.approx(rates))


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_converted_networks_are_counted_as_the_sweep_over_time_does(chunk):
    images = torch.rand(6, 2, 8, 8, generator=seeded())
    ann = nn.Sequential(
        *(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, CLASSES)),
    )
    snn = convert(ann, [images], time_steps=6)
    snn.chunk = chunk
    labels = torch.zeros(6, dtype=torch.long)
    expected = sweep_time(snn, [(images, labels)], [6])
    found = counted(snn, images)
    assert found.spikes == pytest.approx(expected.spikes[0])
    assert found.operations == pytest.approx(expected.operations[0])
    assert expected.operations[0] > 0
    assert not snn.every_step
    plain = snn(images)
    snn.every_step = True
    assert torch.allclose(snn(images), plain, atol=1e-6)


def test_sparse_events_are_counted():
    case = next(case for case in ADAPTERS if case.name == "slayer-fc")
    model, x = case.make().eval(), case.input()
    assert counted(model, x.to_sparse()) == counted(model, x)


def test_analog_input_is_no_spike():
    model = SpikingCNN(input_shape=(2, 8, 8), channels=(3,), kernel_size=3, classes=4)
    analog = torch.rand(4, 2, 2, 8, 8, generator=seeded())
    trains = trains_of(model, analog)
    first = trains["neurons.0"].flatten(2)
    _, _, operations = reference.activity(trains_flat(trains), [(first, [4] * 48)])
    assert counted(model, analog).operations == operations


def trains_flat(trains):
    return {key: train.flatten(2) for key, train in trains.items()}


def test_nothing_watched_is_an_error():
    model = a_model()
    adapter = adapter_for(model)
    observer = Observer(model, adapter, adapter.synaptic_weights(model))
    with pytest.raises(ValueError, match="no image was watched"):
        observer.found()


def test_axis():
    assert Axis().heading(0.05) == "σ = 5 %"
    assert Axis("deletion", "share").heading(0.1) == "deletion 0.1"
    assert Axis().note("the 6-sigma width") == "σ relative to the 6-sigma width"
    assert Axis("deletion", "share of events lost").note("") == (
        "severity of deletion: share of events lost"
    )


class ImagesFirst(nn.Module):
    """The same network for recordings [B, T, ...]."""

    def __init__(self):
        super().__init__()
        self.network = a_model()

    def forward(self, x):
        return self.network(x.transpose(0, 1))


@pytest.mark.parametrize("kind", [Jitter, DroppedBins, HotPixels, Deletion])
@pytest.mark.parametrize("sparse", [False, True])
def test_time_may_come_behind_the_images(kind, sparse):
    """Bins are dropped and events moved along time, not from image to image."""
    x = some_events((6, 4, 2, 4, 4))
    first = x.transpose(0, 1).to_sparse() if sparse else x.transpose(0, 1)
    seen = []
    net = nn.Identity()
    net.register_forward_hook(lambda module, args, output: seen.append(output.to_dense()))
    with corrupt(net, kind(0.4), seed=3, image_axis=1):
        net(x)
    with corrupt(net, kind(0.4), seed=3, image_axis=0):
        net(first)
    assert torch.equal(seen[0], seen[1].transpose(0, 1))
    assert not torch.equal(seen[0], x)


def cost(found):
    return found.activity.spikes, found.activity.operations


def test_sweeps_over_recordings_with_their_images_first():
    loader = [(x.transpose(0, 1), labels) for x, labels in a_loader()]
    for kind, severities in ((Jitter, [0, 1.5]), (DroppedBins, [0, 0.4])):
        usual = Evaluator(a_model(), a_loader()).corrupt(kind, severities, chips=3)
        found = Evaluator(ImagesFirst(), loader).corrupt(kind, severities, chips=3)
        assert [r.accuracies.tolist() for r in found] == [r.accuracies.tolist() for r in usual]
        assert [cost(r) for r in (found, *found)] == [cost(r) for r in (usual, *usual)]


def test_read_noise_has_to_know_the_steps_apart():
    loader = [(x.transpose(0, 1).flatten(2), labels) for x, labels in a_loader()]
    folded = nn.Sequential(nn.Linear(32, CLASSES), Axis1Sum())
    with pytest.raises(UnsupportedModelError, match=r"several steps at once, \(5, 6, 32\)"):
        Evaluator(folded, loader).corrupt(ReadNoise, [0, 0.1], chips=2)
    stepwise = nn.Sequential(Axis1Sum(), nn.Linear(32, CLASSES))  # one product an image
    Evaluator(stepwise, loader).corrupt(ReadNoise, [0, 0.1], chips=2)


class Axis1Sum(nn.Module):
    def forward(self, x):
        return x.sum(1)
