"""A chip is weights, neurons and faults: one seed, maps of faults, readings, training for it."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from model_cases import ADAPTERS
from test_calibration import Conv, loader, net, seeded
from torch import nn

from spikewvat import Chip, Verified, programming_plan
from spikewvat.adapters import adapter_for
from spikewvat.devices import (
    DifferentialPair,
    Drift,
    FaultMap,
    Fixed,
    Gaussian,
    Ideal,
    ReadNoise,
    StuckAt,
)
from spikewvat.errors import DataError, UnsupportedModelError
from spikewvat.lab.recipes.devices import build_device
from spikewvat.perturbations import HSV
from spikewvat.robustness import Evaluator
from spikewvat.robustness.corruptions import (
    DeadNeurons,
    LeakMismatch,
    ThresholdMismatch,
    corrupt,
)
from spikewvat.robustness.corruptions import ReadNoise as ReadCorruption
from spikewvat.spiking.losses import rate_cross_entropy
from spikewvat.training import WVAT, PerturbedGradient, Plain
from spikewvat.training.methods import StochasticThresholds
from spikewvat.training.neurons import NeuronVariation
from spikewvat.weights import replaced


def a_test():
    return Evaluator(net(), loader(samples=60, seed=7))


def test_a_chip_is_its_parts_from_one_seed():
    """The same accuracies as the weights of the seed under the corruptions of the seed."""
    chip = Chip(
        Gaussian(0.05) >> ReadNoise(0.1),
        thresholds=0.2,
        time_constants=0.3,
        faults=[DeadNeurons(0.1), StuckAt(low=0.05)],
    )
    report = a_test().chips(chip, chips=4)
    assert report.corruption is None
    assert report.device == repr(chip)
    model, data = net(), loader(samples=60, seed=7)
    live = adapter_for(model).synaptic_weights(model)
    parts = DeadNeurons(0.1) >> ThresholdMismatch(0.2) >> LeakMismatch(0.3) >> ReadCorruption(0.1)
    for seed, accuracy in zip(report.seeds, report.accuracies.tolist(), strict=True):
        weights = (Gaussian(0.05) >> StuckAt(low=0.05)).program(live, generator=seeded(seed))
        with replaced(live, weights), corrupt(model, parts, seed=seed), torch.no_grad():
            right = sum(int((model(x).sum(0).argmax(1) == y).sum()) for x, y in data)
        assert accuracy == right / 60


def test_mismatch_acts_on_samples_of_the_images_and_after_calibration_too():
    chip = Chip(Ideal(), thresholds=1.5)
    assert a_test().chips(chip, chips=3).std > 0
    assert a_test().chips(chip, chips=3, images_per_chip=59).std > 0
    plainly = a_test().chips(Chip(Gaussian(0.05)), chips=3)
    assert torch.equal(plainly.accuracies, a_test().chips(Gaussian(0.05), chips=3).accuracies)


def test_neurons_are_varied_on_verified_chips_and_never_left_out():
    chip = Chip(Gaussian(0.05) >> ReadNoise(0.05), thresholds=0.5)
    plan = programming_plan(net(), loader(), Gaussian(0.05), 0.0, by="size")
    verified = a_test().chips(Verified(chip, plan), chips=3)
    assert torch.equal(verified.accuracies, a_test().chips(chip, chips=3).accuracies)
    with pytest.raises(ValueError, match="whose neurons would not be varied"):
        a_test().chips(chip >> Drift(0.1, 10.0), chips=1)


def test_reading_is_a_stage_at_the_end_and_drawn_in_every_step():
    device = Gaussian(0.05) >> ReadNoise(0.1)
    found = a_test().chips(device, chips=3)
    swept = a_test().corrupt(ReadCorruption, [0.1], device=Gaussian(0.05), chips=3)
    assert torch.equal(found.accuracies, swept[0].accuracies)
    for wrong in (
        ReadNoise(0.1) >> Gaussian(0.05),
        DifferentialPair(ReadNoise(0.1), 0.0, 1.0),
        Gaussian(0.1) >> ReadNoise(0.1) >> Drift(0.1, 10.0),
    ):
        with pytest.raises(ValueError, match="Put ReadNoise last"):
            a_test().chips(wrong, chips=1)
    weights = {"w": torch.ones(3, requires_grad=True)}
    ReadNoise(0.1, Fixed(0.0, 1.0)).read(weights["w"]).sum().backward()
    assert weights["w"].grad.tolist() == [1.0] * 3


def test_a_map_of_faults_is_the_same_on_every_chip(tmp_path):
    (tmp_path / "map.csv").write_text("weight,index,value\nfc,1,low\nfc,2,HIGH\nfc,5,0.125\n")
    found = FaultMap.from_csv(tmp_path / "map.csv")
    assert found == FaultMap((("fc", 1, "low"), ("fc", 2, "high"), ("fc", 5, 0.125)))
    weights = {"fc": torch.randn(2, 3, generator=seeded(1)).T}  # not contiguous
    chip = FaultMap(found.faults, Fixed(-1.0, 1.0)).program(weights)["fc"]
    expected = weights["fc"].clone()
    for (row, column), value in {(0, 1): -1.0, (1, 0): 1.0, (2, 1): 0.125}.items():
        expected[row, column] = value
    assert torch.equal(chip, expected)
    pair = DifferentialPair(FaultMap((("fc/1", 0, "high"),)), 0.0, 1.0)
    assert pair.program({"fc": torch.tensor([1.0, 0.5])})["fc"].tolist() == [0.0, 0.5]
    assert build_device(f"fault-map:table='{tmp_path / 'map.csv'}'", "device") == found
    for text, message in (
        ("weight,index\nfc,1\n", "KeyError"),
        ("weight,index,value\nfc,1,broken\n", "broken"),
        ("weight,index,value\nfc,-1,low\n", "a place from 0"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            FaultMap.from_csv(tmp_path / "bad.csv")
    for fault in (("fc", 6, 0.0), ("other", 0, 0.0)):
        with pytest.raises(ValueError, match=rf"entry {fault[1]} of {fault[0]!r}, which does not"):
            FaultMap((fault,)).program(weights)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Chip(0.1), TypeError, "device must be a device model"),
        (lambda: Chip(thresholds=-0.1), ValueError, "thresholds must be a finite number"),
        (lambda: Chip(faults=[0.1]), TypeError, "faults must be devices such as FaultMap"),
        (lambda: NeuronVariation(Plain(net())), ValueError, "nothing is varied"),
        (
            lambda: NeuronVariation(Plain(net(Conv)), thresholds=0.1),
            UnsupportedModelError,
            "no spiking neurons",
        ),
    ],
)
def test_impossible_chips(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


SPIKING = [
    case
    for case in ADAPTERS
    if case.name in ("lif-fc", "snntorch-nested", "spikingjelly-multi-step", "tsslbp-cnn")
]


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_noise_of_neurons_is_that_of_simulated_chips():
    """The gradient at drawn factors, by hand for neurons that scale with their thresholds."""
    model, (inputs, labels) = net(), loader()[0]
    varied = NeuronVariation(Plain(model), thresholds=0.2, generator=seeded(5))
    loss = varied.backward(lambda: rate_cross_entropy(model(inputs), labels))
    generator = seeded(5)
    torch.rand((), generator=generator)
    factors = [(0.2 * torch.randn(n, generator=generator)).exp() for n in (7, 6)]
    other = net()
    x = inputs
    for layer, spikes, factor in zip(
        (other.first, other.second), other.spikes, factors, strict=True
    ):
        x = spikes(layer(x) / factor)
    by_hand = rate_cross_entropy(other.readout(x), labels)
    by_hand.backward()
    torch.testing.assert_close(loss, by_hand.detach())
    expected = gradients(other)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", [None, Gaussian(0.1)])
def test_stochastic_thresholds(device):
    """The gradient of a method on such neurons; a resumed run draws the same."""
    (inputs, labels), model, other = loader()[0], net(), net()
    method = StochasticThresholds(model, thresholds=0.2, device=device, generator=seeded(5))
    state = method.state_dict()
    loss = method.backward(lambda: rate_cross_entropy(model(inputs), labels))
    inner = PerturbedGradient(other, HSV(device or Ideal()))
    varied = NeuronVariation(inner, thresholds=0.2)
    varied._generator = inner._noise = seeded(0)
    inner._noise.set_state(state["noise"])
    with varied.varied():
        assert inner.backward(lambda: rate_cross_entropy(other(inputs), labels)) == loss
    for name, grad in gradients(model).items():
        assert torch.equal(grad, gradients(other)[name])
    method.load_state_dict(state)
    assert method.backward(lambda: rate_cross_entropy(model(inputs), labels)) == loss
    assert method.backward(lambda: rate_cross_entropy(model(inputs), labels)) != loss
    with pytest.raises(UnsupportedModelError, match="no spiking neurons"):
        StochasticThresholds(net(Conv))


def test_the_worst_thresholds_are_along_their_gradient():
    model, (inputs, labels) = net(), loader()[0]
    varied = NeuronVariation(Plain(model), thresholds=0.1, w_th=1.0, alpha=0.5)
    logs = varied._worst(lambda: rate_cross_entropy(model(inputs), labels))
    assert gradients(model) == {}
    leaves = [torch.zeros(n, requires_grad=True) for n in (7, 6)]
    x = inputs
    for layer, spikes, leaf in zip((model.first, model.second), model.spikes, leaves, strict=True):
        x = spikes(layer(x) / leaf.exp())
    found = torch.autograd.grad(rate_cross_entropy(model.readout(x), labels), leaves)
    for log, grad in zip(logs.values(), found, strict=True):
        expected = grad / grad.norm() * 0.5 * 0.1 * math.sqrt(len(grad))
        torch.testing.assert_close(log, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("case", SPIKING, ids=lambda case: case.name)
@pytest.mark.parametrize("w_th", [0.0, 1.0])
def test_neurons_of_every_framework_are_varied_and_left_as_they_were(case, w_th):
    model, x = case.make(), case.input()
    with torch.no_grad():  # neither silent nor firing in every step
        for weight in adapter_for(model).synaptic_weights(model).values():
            weight.mul_(torch.rand(weight.shape, generator=seeded(2)) - 0.3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tau = 0.3 * all("tau_mem" in n.parts for n in adapter_for(model).neuron_layers(model).values())
    varied = NeuronVariation(
        WVAT(model, Gaussian(0.05)), thresholds=2.0, time_constants=tau, w_th=w_th, alpha=2.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = [float(varied.backward(lambda: model(x).square().mean())) for _ in range(4)]
    adapter_for(model).reset_state(model)
    base = float(model(x).detach().square().mean())
    assert any(abs(loss - base) > 1e-6 for loss in losses)
    if w_th == 1.0:
        assert max(losses) > base
    adapter_for(model).reset_state(model)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert not any({"forward", "steps"} & vars(module).keys() for module in model.modules())
    state = varied.state_dict()
    one = float(varied.backward(lambda: model(x).square().mean()))
    varied.load_state_dict(state)
    assert float(varied.backward(lambda: model(x).square().mean())) == one
    assert isinstance(model, nn.Module)
