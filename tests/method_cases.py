"""Rows of the shared contract suite of training methods: a new method adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, nn
from torch.optim import Optimizer

from spikewvat.devices import BinaryCells, Gaussian, Lognormal, RightCensored
from spikewvat.perturbations import (
    ASAM,
    AWP,
    GAV,
    HSV,
    SAM,
    SAMSON,
    Momentum,
    Past,
    Perturbation,
    RandomLayers,
    RandomLength,
    VariableNoise,
    Warmup,
    variation,
)
from spikewvat.training import WVAT, GradientMethod, PerturbedGradient, Plain
from spikewvat.training.methods import (
    QAT,
    Distillation,
    NegativeFeedback,
    NoiseInjection,
    ParameterAdversary,
    RandomPerturbation,
    Statistical,
    StraightThrough,
    Vortex,
)

GAUSSIAN = Gaussian(0.1)
CENSORED = RightCensored(0.1, standardised=False)


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


def perturbation(make: Callable[[Optimizer], Perturbation]):
    """Build a method of a perturbation alone."""
    return lambda model, optimizer, **options: PerturbedGradient(model, make(optimizer), **options)


def method(kind, *args, **settings):
    """Build a method that needs no optimizer."""
    return lambda model, optimizer, **options: kind(model, *args, **settings, **options)


METHODS: list[MethodCase] = [
    MethodCase("plain", lambda model, optimizer, **options: Plain(model), random=False),
    MethodCase("hsv", perturbation(lambda _: HSV(GAUSSIAN))),
    MethodCase("gav", perturbation(lambda _: GAV(GAUSSIAN)), backwards=2, random=False),
    MethodCase("sam", perturbation(lambda _: SAM()), backwards=2, random=False),
    MethodCase("asam", perturbation(lambda _: ASAM()), backwards=2, random=False),
    MethodCase("samson", perturbation(lambda _: SAMSON()), backwards=2, random=False),
    MethodCase("awp", perturbation(lambda _: AWP()), backwards=2, random=False),
    MethodCase("wvat", method(WVAT, GAUSSIAN), backwards=1.5),
    MethodCase(
        "wvat-momentum",
        lambda model, optimizer, **options: WVAT(
            model, GAUSSIAN, worst=Momentum(optimizer), **options
        ),
    ),
    MethodCase(
        "momentum-back",
        perturbation(lambda optimizer: GAV(GAUSSIAN, source=Momentum(optimizer, "back"))),
        random=False,
    ),
    MethodCase("past", perturbation(lambda _: GAV(GAUSSIAN, source=Past(decay=0.5))), random=False),
    MethodCase(
        "wvat-past-both",
        perturbation(
            lambda _: Warmup(
                RandomLength(variation(GAUSSIAN, worst=Past(), mix="both"), spread=0.5), steps=3
            )
        ),
    ),
    MethodCase(
        "momentum-sam", perturbation(lambda optimizer: SAM(0.3, Momentum(optimizer))), random=False
    ),
    MethodCase("variable-noise", perturbation(lambda _: VariableNoise(GAUSSIAN))),
    MethodCase("noise-injection", method(NoiseInjection), clips=True),
    MethodCase("random-perturbation", method(RandomPerturbation, GAUSSIAN), backwards=2),
    MethodCase("parameter-adversary", method(ParameterAdversary, attack_steps=2), backwards=4),
    MethodCase("trice", perturbation(lambda _: HSV(CENSORED))),
    MethodCase("a-trice", perturbation(lambda _: variation(CENSORED)), backwards=1.5),
    MethodCase("binary-cells", perturbation(lambda _: HSV(BinaryCells(6, 0.1)))),
    MethodCase("random-layers", perturbation(lambda _: RandomLayers(HSV(GAUSSIAN)))),
    MethodCase("negative-feedback", method(NegativeFeedback, GAUSSIAN, wider=(1.5, 1.2))),
    MethodCase("distillation", method(Distillation, GAUSSIAN)),
    MethodCase("straight-through", method(StraightThrough, GAUSSIAN)),
    MethodCase("vortex", method(Vortex, Lognormal(0.3)), random=False),
    MethodCase("statistical", method(Statistical, GAUSSIAN), random=False),
    MethodCase("statistical-sampled", method(Statistical, Lognormal(0.2), form="sampled")),
    MethodCase("qat", method(QAT, bits=4), random=False),
    MethodCase("qat+wvat", method(QAT, bits=4, perturbation=variation(GAUSSIAN)), backwards=1.5),
]

OPTIMIZERS: list[Callable[..., Optimizer]] = [
    lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
]
