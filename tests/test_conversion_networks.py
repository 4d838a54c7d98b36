"""Networks of many kinds: converted with a small error, or refused by name."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conversion_networks import NETWORKS, Written, made
from torch import nn

from spikewvat.conversion import convert
from spikewvat.conversion.merging import merged
from spikewvat.errors import UnsupportedModelError

CONVERTED = [name for name, case in NETWORKS.items() if case.refused is None]
REFUSED = [name for name, case in NETWORKS.items() if case.refused is not None]
IMAGES = torch.rand(32, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_networks_compute_what_the_ann_does(name):
    """At 256 steps within 2 % of the scores' spread, and exactly in analog values."""
    ann = made(name)
    snn = convert(ann, [IMAGES], time_steps=256, **dict(NETWORKS[name].options))
    with torch.no_grad():
        expected = ann(IMAGES)
        torch.testing.assert_close(snn.analog(IMAGES), expected, atol=1e-4, rtol=1e-4)
        error = (snn(IMAGES) - expected).square().mean().sqrt()
    assert float(error) < 0.02 * float(expected.std(0).mean() + expected.abs().mean())


@pytest.mark.parametrize("name", REFUSED)
def test_refused_networks_are_named(name):
    with pytest.raises(UnsupportedModelError, match=NETWORKS[name].refused):
        convert(made(name), [IMAGES], time_steps=4, **dict(NETWORKS[name].options))


def test_analog_values_between_layers_are_said():
    snn = convert(made("linear after linear, analog"), [IMAGES], time_steps=4, analog=True)
    assert "analog values from 1 to 2" in repr(snn)
    assert snn.handed_over == {"2": "1"}
    assert convert(made("relu"), [IMAGES], time_steps=4, analog=True).handed_over == {}
    with pytest.warns(UserWarning, match=r"analog values from '2.conv.6' to '3.conv.0'"):
        convert(made("linear bottleneck"), [IMAGES], time_steps=4)


def test_merged_layers_are_said():
    snn = convert(made("linear after linear"), [IMAGES], time_steps=4, analog=False)
    assert "merged 1 into 2" in repr(snn)
    assert (snn.merged, snn.handed_over) == ({"2": "1"}, {})
    assert snn.layers.get_submodule("2").weight.shape == (12, 128)


FLAT, CONV = partial(torch.rand, 3, 4), partial(torch.rand, 2, 4, 9, 9)


@pytest.mark.parametrize(
    ("first", "second", "inputs"),
    [
        (nn.Linear(4, 5), nn.Linear(5, 6), FLAT),
        (nn.Linear(4, 5, bias=False), nn.Linear(5, 6, bias=False), FLAT),
        (nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.Conv2d(6, 5, 1, 2), CONV),
        (nn.Conv2d(4, 6, 3, padding=2, dilation=2), nn.Conv2d(6, 5, 1), CONV),
        (nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, (3, 2), 2), CONV),
        (nn.Conv2d(4, 6, 1, bias=False), nn.Conv2d(6, 5, 3, padding="same"), CONV),
        (nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, 3, padding=1, padding_mode="reflect"), CONV),
    ],
)
def test_a_merged_layer_computes_both(first, second, inputs):
    x = inputs()
    with torch.no_grad():
        torch.testing.assert_close(merged(first, second)(x), second(first(x)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, 3, padding=1)),  # the bias ends at the border
        (nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 3)),
        (nn.Conv2d(4, 6, 1, 2), nn.Conv2d(6, 5, 3)),
        (nn.Conv2d(4, 6, 3), nn.Conv2d(6, 6, 1, groups=2)),
        (nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 1, padding=1)),
        (nn.ConvTranspose2d(4, 6, 2), nn.Conv2d(6, 5, 1)),
    ],
)
def test_layers_that_do_not_merge(first, second):
    assert merged(first, second) is None


def test_a_layer_that_is_used_elsewhere_is_not_merged():
    ann = Written(lambda s, x: s.head(s.relu(s.more(s.a(x)) + s.a(x))), more=nn.Conv2d(4, 4, 1))
    with pytest.raises(UnsupportedModelError, match="'more' takes the output of 'a' without"):
        convert(ann.eval(), [IMAGES], time_steps=4, analog=False)
