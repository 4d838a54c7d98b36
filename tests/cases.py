"""Rows of the shared contract suites: a new device adds one."""

from __future__ import annotations

from dataclasses import dataclass

from spikewvat.devices import (
    AbsMax,
    AtRandomAge,
    BinaryCells,
    Compensated,
    DeviceModel,
    DifferentialPair,
    Drift,
    Empirical,
    Fixed,
    Gaussian,
    HalfWidth,
    Ideal,
    Lognormal,
    MinMax,
    MixtureNoise,
    Quantized,
    ReadNoise,
    RightCensored,
    SixSigma,
    SkewNormal,
    StuckAt,
    Uniform,
    Weibull,
    cmo_reram,
    hermes,
    milo_reram,
    pcm,
    sonos,
    wan_reram,
)
from spikewvat.devices.levels import MeasuredLevel


@dataclass(frozen=True)
class DeviceCase:
    """A device and what it promises.

    ``std`` is the standard deviation of its error over the range's size, where it states one;
    ``mean_zero`` says that its error averages to 0; ``relative`` that scaling the weights scales
    the error; ``random`` that chips differ; ``closed_form`` that norms are known without a draw.
    """

    device: DeviceModel
    std: float | None = None
    mean_zero: bool = False
    relative: bool = True
    random: bool = True
    closed_form: bool = True

    def __str__(self) -> str:
        return repr(self.device)


def noise(device) -> DeviceCase:
    return DeviceCase(device, std=device.sigma, mean_zero=True)


MEASURED = (
    MeasuredLevel(level=0, position=0.1, count=3, errors=(-0.02, 0.0, 0.03)),
    MeasuredLevel(level=1, position=0.6, count=4, errors=(-0.06, -0.01, 0.0, 0.02)),
    MeasuredLevel(level=2, position=0.9, count=2, errors=(-0.01, 0.02)),
)

DEVICES: list[DeviceCase] = [
    DeviceCase(Ideal(), random=False, closed_form=False),
    noise(Gaussian(0.1)),
    noise(Gaussian(0.1, HalfWidth())),
    noise(Gaussian(0.05, AbsMax(per_channel=True))),
    noise(Gaussian(0.05, SixSigma(per_channel=True))),
    noise(Uniform(0.1)),
    noise(Uniform(0.1, MinMax(per_channel=True))),
    noise(Weibull(0.1)),
    noise(Weibull(0.1, HalfWidth(per_channel=True), k=2.0)),
    noise(SkewNormal(0.0383)),
    noise(SkewNormal(0.1, MinMax(), a=-2.0)),
    noise(MixtureNoise(0.13)),
    noise(RightCensored(0.1)),
    noise(RightCensored(0.1, HalfWidth(per_channel=True), censor=0.3)),
    DeviceCase(RightCensored(0.1, censor=0.5, standardised=False)),
    DeviceCase(BinaryCells(bits=4, sigma=0.1)),
    DeviceCase(BinaryCells(bits=8, sigma=0.05, off_sigma=0.02)),
    DeviceCase(Gaussian(0.1, Fixed(-1.0, 1.0)), std=0.1, mean_zero=True, relative=False),
    DeviceCase(Lognormal(0.3)),
    DeviceCase(Lognormal(0.3, keep_mean=True), mean_zero=True),
    DeviceCase(Quantized(bits=4), random=False, closed_form=False),
    DeviceCase(Quantized(bits=8, per_channel=True), random=False, closed_form=False),
    DeviceCase(StuckAt(low=0.1, high=0.05)),
    DeviceCase(StuckAt(high=0.2, range=AbsMax(per_channel=True))),
    DeviceCase(ReadNoise(0.1), mean_zero=True, std=0.1, closed_form=False),
    DeviceCase(Drift(nu=0.05, time=1e4, nu_std=0.02)),
    DeviceCase(
        DifferentialPair(Gaussian(0.05), g_min=1e-6, g_max=128e-6),
        mean_zero=True,
        closed_form=False,
    ),
    DeviceCase(
        DifferentialPair(Drift(0.05, 100.0, 0.1) >> StuckAt(0.01, 0.01), 0.0, 1.0),
        closed_form=False,
    ),
    DeviceCase(
        DifferentialPair(Gaussian(0.05), 0.0, 1.0, factors=(1.0, 4.0)),
        mean_zero=True,
        closed_form=False,
    ),
    DeviceCase(pcm(), closed_form=False),
    DeviceCase(pcm(time=86400.0, g_min=0.1), closed_form=False),
    DeviceCase(hermes(time=3600.0, factors=(1.0, 3.0)), closed_form=False),
    DeviceCase(wan_reram(time=3600.0), closed_form=False),
    DeviceCase(cmo_reram(time=10.0, acceptance=2.0), closed_form=False),
    DeviceCase(milo_reram(), closed_form=False),
    DeviceCase(sonos(time=1.5 * 86400.0), closed_form=False),
    DeviceCase(AtRandomAge(pcm(), 1.0, 86400.0), closed_form=False),
    DeviceCase(Compensated(pcm(time=86400.0)), closed_form=False),
    DeviceCase(Empirical(MEASURED)),
    DeviceCase(Empirical(MEASURED, MinMax(per_channel=True), smooth=True)),
    DeviceCase(Quantized(bits=4) >> Gaussian(0.05) >> StuckAt(low=0.01), closed_form=False),
]
