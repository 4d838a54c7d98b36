"""Quantised activations: levels, ranges, gradients, and what a block leaves behind."""

from __future__ import annotations

import pytest
import reference_methods as literal
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import Stepwise
from torch import nn

from spikewvat.devices import Gaussian
from spikewvat.perturbations import variation
from spikewvat.training.methods import QAT, quantized_activations
from spikewvat.training.methods.activations import on_levels, range_of

numbers = st.floats(-4, 4).map(lambda x: round(x, 3))


@settings(max_examples=100, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8), numbers, numbers, st.sampled_from([2, 4, 8]))
def test_levels_are_the_literal_ones(values, one, other, bits):
    low, high = min(0.0, one, other), max(0.0, one, other)
    if high - low < 0.01:
        return
    step = (high - low) / (2**bits - 1)
    for value in values:
        if abs((value / step) % 1 - 0.5) < 1e-6 or abs((-low / step) % 1 - 0.5) < 1e-6:
            continue  # a tie may fall to either side
        bounds = (torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64))
        found = float(on_levels(torch.tensor(value, dtype=torch.float64), bounds, bits))
        assert found == pytest.approx(literal.affine(value, low, high, bits), abs=1e-9)


def test_gradients_pass_inside_the_range_alone():
    x = torch.tensor([-1.0, 0.1, 0.9, 2.0], requires_grad=True)
    on_levels(x, (torch.tensor(0.0), torch.tensor(1.0)), 4).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_spikes_are_levels_and_nothing_stays_nothing():
    spikes = (torch.rand(5, 4) < 0.5).float()
    assert torch.equal(on_levels(spikes, range_of(spikes), 8), spikes)
    zeros = torch.zeros(5, 4)
    assert torch.equal(on_levels(zeros, range_of(zeros), 8), zeros)
    sparse = spikes.to_sparse()
    assert on_levels(sparse, range_of(sparse), 8) is sparse
    empty = torch.zeros(3, 4).to_sparse()
    assert [float(bound) for bound in range_of(empty)] == [0.0, 0.0]


def test_inputs_of_every_layer_are_quantised_while_the_block_lasts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).train()
    batches = [(torch.randn(4, 3), None), (3 * torch.randn(4, 3), None)]
    x = torch.randn(6, 3)
    plain = model(x)
    with quantized_activations(model, batches, bits=3) as ranges:
        assert model.training
        together = torch.cat([batch[0] for batch in batches])
        assert list(ranges) == ["0.weight", "2.weight"]
        assert ranges["0.weight"] == range_of(together)
        hidden = model[0](x).relu()  # its input is quantised by the layer's own hook
        expected = model[2](hidden)
        assert torch.equal(model(x), expected)
        assert not torch.allclose(expected, plain)
        levels = on_levels(hidden, ranges["2.weight"], 3)
        assert len(levels.unique()) <= 8
    assert torch.equal(model(x), plain)


def test_finer_levels_come_closer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    x = torch.rand(8, 1, 6, 6)
    plain, errors = model(x), []
    for bits in (2, 4, 8, 16):
        with quantized_activations(model, [x], bits=bits):
            errors.append(float((model(x) - plain).detach().abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_calibration_starts_from_fresh_neurons_and_leaves_them_fresh():
    net = Stepwise(nn.Linear(3, 4), snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True))
    x = torch.rand(5, 2, 3)
    with quantized_activations(net, [x, x[:, :1]]):
        assert net.layers[1].mem.numel() == 0
        net(x)


def test_a_block_that_raises_leaves_no_hooks():
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(KeyError), quantized_activations(model, [torch.rand(2, 3)]):
        raise KeyError
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(
    "make", [QAT, lambda m, **o: QAT(m, perturbation=variation(Gaussian(0.1)), **o)]
)
def test_qat_with_activations(make):
    """The gradient of the first layer is that of a net whose inputs were quantised by hand."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(6, 3)
    method = make(model, bits=4, activation_bits=2)
    if make is QAT:
        method.backward(lambda: model(x).square().sum())
        weight = method.quantizer.program({"w": model[0].weight})["w"].requires_grad_()
        levels = on_levels(x, range_of(x), 2)
        nn.functional.linear(levels, weight, model[0].bias).square().sum().backward()
        torch.testing.assert_close(model[0].weight.grad, weight.grad)
    else:
        method.backward(lambda: model(x).square().sum())
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize("bits", [1, 17, 8.0])
def test_impossible_bits(bits):
    model = nn.Linear(3, 2)
    for use in (
        lambda: quantized_activations(model, [], bits=bits).__enter__(),
        lambda: QAT(model, activation_bits=bits),
    ):
        with pytest.raises(
            ValueError, match=f"bits must be a whole number from 2 to 16, got {bits}"
        ):
            use()


def test_nothing_to_calibrate_on():
    with (
        pytest.raises(ValueError, match="batches has none, expected inputs to calibrate on"),
        quantized_activations(nn.Linear(3, 2), []),
    ):
        pass
