"""Noise of reading: weights differ a little at every use."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from spikewvat.devices.base import DeviceModel, Ideal, Pipeline, check_at_least_zero, nested
from spikewvat.devices.gaussian import Gaussian
from spikewvat.devices.ranges import RangeRule, SixSigma, check_range
from spikewvat.weights import Weights


@dataclass(frozen=True)
class ReadNoise(DeviceModel):
    r"""Weights are read with normal noise, drawn anew in every time step.

    .. math:: w' = w + \sigma R\, \epsilon, \qquad \epsilon \sim N(0, 1)

    where R is the size of the layer's range, computed from the chip's weights. In training and
    alone, it is one reading. On the chips of an :class:`~spikewvat.Evaluator` every layer of
    synapses is read in every step, whatever the device it is composed with.

    Args:
        sigma: :math:`\sigma`, a fraction of the range, at least 0.
        range: Rule for R.

    Raises:
        ValueError: If ``sigma`` is negative or not finite, or ``range`` is no range rule.
    """

    sigma: float
    range: RangeRule = SixSigma()  # noqa: RUF009 -- frozen

    def __post_init__(self) -> None:
        check_at_least_zero("sigma", self.sigma)
        check_range(self.range)

    def read(self, weight: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the weights with fresh noise; gradients flow through."""
        noise = Gaussian(self.sigma, self.range)
        return weight + noise.errors({"w": weight}, generator=generator)["w"]

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Return one reading (see :meth:`DeviceModel.program`)."""
        return {
            name: self.read(weight.detach(), generator=generator)
            for name, weight in weights.items()
        }


def apart(device: DeviceModel) -> tuple[DeviceModel, tuple[ReadNoise, ...]]:
    """Return what a device does once to a chip, and the noise of its readings.

    Raises:
        ValueError: If reading noise stands in front of another stage, or inside of another device.
    """
    stages = device.stages if isinstance(device, Pipeline) else (device,)
    once = tuple(stage for stage in stages if not isinstance(stage, ReadNoise))
    reads = tuple(stage for stage in stages if isinstance(stage, ReadNoise))
    inside = (part for stage in once for part in nested(stage))
    if any(isinstance(part, ReadNoise) for part in inside) or stages[: len(once)] != once:
        raise ValueError(
            f"{device!r} reads before something else is done to the weights. Put ReadNoise last: "
            "Gaussian(0.05) >> ReadNoise(0.01)."
        )
    if not once:
        return Ideal(), reads
    return (once[0] if len(once) == 1 else Pipeline(once)), reads
