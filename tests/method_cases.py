"""Rows of the shared contract suite of training methods: a new method adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, nn
from torch.optim import Optimizer

from spikewvat.devices import BinaryCells, Gaussian, Lognormal
from spikewvat.perturbations import (
    ASAM,
    AWP,
    GAV,
    HSV,
    SAM,
    Direction,
    MomentumSAM,
    MomentumVariation,
    PastVariation,
    VariableNoise,
)
from spikewvat.training import WVAT, GradientMethod, PerturbedGradient
from spikewvat.training.methods import (
    QAT,
    NoiseInjection,
    ParameterAdversary,
    RandomPerturbation,
    Statistical,
    Vortex,
    a_trice,
    qat_wvat,
    trice,
)

GAUSSIAN = Gaussian(0.1)


@dataclass(frozen=True)
class MethodCase:
    """A method and what it promises.

    ``backwards`` is how many times a step differentiates; ``random`` that seeds differ;
    ``clips`` that weights may move in ``after_step``.
    """

    name: str
    build: Callable[..., GradientMethod]
    backwards: float = 1.0
    random: bool = True
    clips: bool = False

    def make(self, model: nn.Module, optimizer: Optimizer, seed: int = 0, **options):
        """Return the method for a model; noise comes from the seed."""
        generator = Generator().manual_seed(seed)
        return self.build(model, optimizer, generator=generator, **options)


def direction(make: Callable[[Optimizer], Direction]):
    """Build a method of a direction alone."""
    return lambda model, optimizer, **options: PerturbedGradient(model, make(optimizer), **options)


def method(kind, *args, **settings):
    """Build a method that needs no optimizer."""
    return lambda model, optimizer, **options: kind(model, *args, **settings, **options)


METHODS: list[MethodCase] = [
    MethodCase("hsv", direction(lambda _: HSV(GAUSSIAN))),
    MethodCase("gav", direction(lambda _: GAV(GAUSSIAN)), backwards=2, random=False),
    MethodCase("sam", direction(lambda _: SAM()), backwards=2, random=False),
    MethodCase("asam", direction(lambda _: ASAM()), backwards=2, random=False),
    MethodCase("awp", direction(lambda _: AWP()), backwards=2, random=False),
    MethodCase("wvat", method(WVAT, GAUSSIAN), backwards=1.5),
    MethodCase(
        "wvat-momentum",
        lambda model, optimizer, **options: WVAT(
            model, GAUSSIAN, ascent="momentum", optimizer=optimizer, **options
        ),
    ),
    MethodCase(
        "momentum-back",
        direction(lambda optimizer: MomentumVariation(GAUSSIAN, optimizer, sign="back")),
        random=False,
    ),
    MethodCase("past", direction(lambda _: PastVariation(GAUSSIAN, decay=0.5)), random=False),
    MethodCase(
        "wvat-past-both", method(WVAT, GAUSSIAN, ascent="past", mix="both", ramp=3, spread=0.5)
    ),
    MethodCase("momentum-sam", direction(MomentumSAM), random=False),
    MethodCase("variable-noise", direction(lambda _: VariableNoise(GAUSSIAN))),
    MethodCase("noise-injection", method(NoiseInjection), clips=True),
    MethodCase("random-perturbation", method(RandomPerturbation, GAUSSIAN), backwards=2),
    MethodCase("parameter-adversary", method(ParameterAdversary, attack_steps=2), backwards=4),
    MethodCase("trice", direction(lambda _: trice())),
    MethodCase("a-trice", direction(lambda _: a_trice()), backwards=1.5),
    MethodCase("binary-cells", direction(lambda _: HSV(BinaryCells(6, 0.1)))),
    MethodCase("vortex", method(Vortex, Lognormal(0.3)), random=False),
    MethodCase("statistical", method(Statistical, GAUSSIAN), random=False),
    MethodCase("statistical-sampled", method(Statistical, Lognormal(0.2), form="sampled")),
    MethodCase("qat", method(QAT, bits=4), random=False),
    MethodCase("qat+wvat", method(qat_wvat, GAUSSIAN, bits=4), backwards=1.5),
]

OPTIMIZERS: list[Callable[..., Optimizer]] = [
    lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
]
