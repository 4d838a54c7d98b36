"""Networks of many kinds: converted with a small error, or refused by name."""

from __future__ import annotations

import pytest
import torch
from conversion_networks import NETWORKS, made

from spikewvat.conversion import convert
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
        convert(made(name), [IMAGES], time_steps=4)


def test_analog_values_between_layers_are_said():
    snn = convert(made("linear after linear"), [IMAGES], time_steps=4, analog=True)
    assert "analog values from 1 to 2" in repr(snn)
    assert snn.handed_over == {"2": "1"}
    assert convert(made("relu"), [IMAGES], time_steps=4, analog=True).handed_over == {}
