"""Quantised weights against the worked example and the literal equations."""

from __future__ import annotations

import pytest
import torch
from reference_devices import quantise

from spikewvat.devices import Gaussian, Quantized

W = [0.5, -0.3, 0.1, 0.9, -0.7, 0.2]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def test_worked_int8():
    device, w = Quantized(bits=8), f64(W)
    assert float(device.scale(w)) == pytest.approx(0.007086614, abs=5e-10)
    chip = device.program({"w": w})["w"]
    assert (chip / device.scale(w)).round().tolist() == [71, -42, 14, 127, -99, 28]
    expected = [0.503150, -0.297638, 0.099213, 0.9, -0.701575, 0.198425]
    torch.testing.assert_close(chip, f64(expected), atol=5e-7, rtol=0)


def test_worked_int4():
    device, w = Quantized(bits=4), f64(W)
    chip = device.program({"w": w})["w"]
    assert (chip / device.scale(w)).round().tolist() == [4, -2, 1, 7, -5, 2]


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("per_channel", [False, True])
def test_is_the_literal_quantiser(bits, per_channel):
    w = torch.randn(4, 30, dtype=torch.float64)
    chip = Quantized(bits, per_channel).program({"w": w})["w"]
    channels = list(w) if per_channel else [w.flatten()]
    expected = [v for channel in channels for v in quantise(channel.tolist(), bits)[2]]
    torch.testing.assert_close(chip.flatten(), f64(expected), rtol=1e-14, atol=1e-15)


def test_halves_go_to_the_even_step():
    w = f64([7.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5])  # at 4 bits the scale is 1
    assert Quantized(bits=4).program({"w": w})["w"].tolist() == [7, 0, 2, 2, 0, -2, -2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_quantising_twice_is_quantising_once(dtype):
    w = {"w": torch.randn(20, 30).to(dtype), "zero": torch.zeros(3, 2, dtype=dtype)}
    device = Quantized(bits=4)
    once = device.program(w)
    twice = device.program(once)
    assert torch.equal(once["w"], twice["w"])
    assert torch.equal(once["zero"], w["zero"])
    assert len(once["w"].unique()) <= 15


def test_a_channel_of_zeros_stays_zero():
    w = torch.tensor([[0.0, 0.0], [1.0, -0.4]])
    chip = Quantized(bits=8, per_channel=True).program({"w": w})["w"]
    assert not chip[0].any()
    assert chip[1, 0] == 1


def test_noise_after_it_takes_its_range_from_the_quantised_weights():
    w = {"w": torch.randn(30, 30)}
    device = Gaussian(0.1)
    quantised = Quantized(bits=2).program(w)
    chip = (Quantized(bits=2) >> device).program(w, generator=torch.Generator().manual_seed(1))
    alone = device.program(quantised, generator=torch.Generator().manual_seed(1))
    assert torch.equal(chip["w"], alone["w"])


@pytest.mark.parametrize("bits", [1, 0, -4, 17, 4.0, "8", True])
def test_bits_must_be_a_whole_number_from_2_to_16(bits):
    with pytest.raises(ValueError, match=f"bits must be a whole number from 2 to 16, got {bits!r}"):
        Quantized(bits=bits)
