from __future__ import annotations

import pytest
import torch
from torch import nn

from spikewvat.spiking.layers import Conv2d, Dropout, SumPool2d


def test_convolution_runs_over_every_step():
    torch.manual_seed(0)
    layer = Conv2d(2, 3, 3, stride=2, padding=1)
    spikes = (torch.rand(4, 5, 2, 9, 7) < 0.2).float()
    expected = torch.stack([nn.functional.conv2d(s, layer.weight, None, 2, 1) for s in spikes])
    torch.testing.assert_close(layer(spikes), expected)
    assert layer.bias is None


def test_pooling_sums_squares():
    spikes = torch.arange(2 * 1 * 1 * 3 * 5).view(2, 1, 1, 3, 5).double()
    pooled = SumPool2d(2, gain=1.1)(spikes)
    assert pooled.shape == (2, 1, 1, 1, 2)
    assert pooled[0, 0, 0, 0, 0].item() == pytest.approx(1.1 * (0 + 1 + 5 + 6))
    padded = SumPool2d(2, gain=1.0, pad=True)(spikes)
    assert padded.shape == (2, 1, 1, 2, 3)
    assert padded.sum().item() == pytest.approx(spikes.sum().item())
    assert padded[0, 0, 0, 1, 2].item() == pytest.approx(14.0)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("size", "height", "width"), [(1, 3, 4), (2, 6, 4), (3, 7, 11), (4, 4, 9)])
def test_pooling_is_that_of_torch(size, height, width, channels_last):
    """Sums, their gradients, and gradients of those."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    folded = torch.randn(6, 4, height, width, dtype=torch.float64).to(memory_format=layout)
    spikes = folded.view(2, 3, 4, height, width).requires_grad_()

    def expected(x):
        pooled = nn.functional.avg_pool2d(x.flatten(0, 1), size) * size**2 * 1.1
        return pooled.unflatten(0, (2, 3))

    torch.testing.assert_close(SumPool2d(size)(spikes), expected(spikes))
    found = []
    for run in (SumPool2d(size), expected):
        grad = torch.autograd.grad(run(spikes).square().sum(), spikes, create_graph=True)[0]
        found.append((grad, torch.autograd.grad(grad.square().sum(), spikes)[0]))
    torch.testing.assert_close(*found)


def test_dropout_keeps_one_mask_for_all_steps():
    torch.manual_seed(0)
    layer = Dropout(0.5)
    out = layer(torch.ones(6, 4, 50))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert (out == out[0]).all()
    assert (out[0, 0] != out[0, 1]).any()
    layer.eval()
    spikes = torch.rand(6, 4, 50)
    assert layer(spikes) is spikes


@pytest.mark.parametrize("layer", [Conv2d(2, 3, 3), SumPool2d(2)])
def test_time_must_come_first(layer):
    with pytest.raises(ValueError, match=r"shape \(5, 2, 9, 7\), expected \[T, B, ., H, W\]"):
        layer(torch.zeros(5, 2, 9, 7))


def test_impossible_pool():
    with pytest.raises(ValueError, match="kernel_size must be at least 1, got 0"):
        SumPool2d(0)
    with pytest.raises(ValueError, match=r"holds no square of 3 x 3. Pool less, or pass pad=True"):
        SumPool2d(3)(torch.zeros(1, 1, 1, 2, 5))
