"""Perturbations of others by the names that they were published under."""

from __future__ import annotations

from torch.optim import Optimizer

from spikewvat.devices.cells import BinaryCells
from spikewvat.devices.censored import RightCensored
from spikewvat.perturbations.base import Perturbation
from spikewvat.perturbations.mixture import variation
from spikewvat.perturbations.noise import HSV
from spikewvat.perturbations.sources import Momentum, Sign
from spikewvat.perturbations.worst import SAM


def momentum_sam(optimizer: Optimizer, rho: float = 0.3, sign: Sign = "ahead") -> SAM:
    """Return Momentum-SAM: one global step of length rho along the optimizer's momentum.

    The original takes the norm over all parameters; pass ``weights=`` with all of them for that.

    Args:
        optimizer: Whose momentum to follow.
        rho: Radius (L2, absolute), at least 0.
        sign: ``"ahead"``, the published sign, or ``"back"`` (see :class:`Momentum`).

    Raises:
        ValueError: If a parameter is out of its range.

    References:
        Momentum-SAM (Becker et al., 2024), https://arxiv.org/abs/2401.12033
    """
    return SAM(rho, Momentum(optimizer, sign))


def trice(
    sigma: float = 0.1, *, censor: float = 1.0, standardised: bool = False, gamma: float = 1.0
) -> HSV:
    """Return the perturbation of TRICE: a fresh draw of right-censored noise in every step.

    Args:
        sigma: Standard deviation of the uncensored noise as a fraction of the range.
        censor: Bound of the noise, in standard deviations of the uncensored noise.
        standardised: Move and scale the noise to mean 0 and standard deviation ``sigma``.
        gamma: Scale of the perturbation (dimensionless), at least 0.

    Raises:
        ValueError: If a parameter is out of its range.

    References:
        Yan et al., 2023 (see :class:`spikewvat.devices.RightCensored` for what is uncertain).

    Example:
        >>> trice(0.05, censor=0.5).device.censor
        0.5
    """
    return HSV(RightCensored(sigma, censor=censor, standardised=standardised), gamma)


def a_trice(
    sigma: float = 0.1,
    *,
    censor: float = 1.0,
    standardised: bool = False,
    gamma: float = 1.0,
    alpha: float = 0.1,
    w_th: float = 0.5,
) -> Perturbation:
    """Return the perturbation of A-TRICE: censored noise, or an adversarial step.

    How the published method mixes the two is not known to us. Here a step takes one of them, as
    in WVAT: the adversarial one goes up the gradient, as far as a draw of the censored noise
    times ``alpha``.

    Args:
        sigma: Standard deviation of the uncensored noise as a fraction of the range.
        censor: Bound of the noise, in standard deviations of the uncensored noise.
        standardised: Move and scale the noise to mean 0 and standard deviation ``sigma``.
        gamma: Scale of the perturbation (dimensionless), at least 0.
        alpha: Length of the adversarial step as a share of a noise draw's length.
        w_th: Share of steps that are adversarial.

    Raises:
        ValueError: If a parameter is out of its range.

    References:
        Yan et al., 2023, and its extension by adversarial training.
    """
    noise = RightCensored(sigma, censor=censor, standardised=standardised)
    return variation(noise, w_th=w_th, gamma=gamma, alpha=alpha)


def binary_cells(bits: int = 8, sigma: float = 0.1, off_sigma: float = 0.0) -> HSV:
    """Return the perturbation of training on binary cells (see :class:`BinaryCells`).

    Args:
        bits: Bits of a weight.
        sigma: Standard deviation of a cell that is on, as a share of its value.
        off_sigma: Standard deviation of a cell that is off, as a share of one that is on.
    """
    return HSV(BinaryCells(bits, sigma, off_sigma))
