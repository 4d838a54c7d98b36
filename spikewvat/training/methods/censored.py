"""Training with right-censored Gaussian noise."""

from __future__ import annotations

from spikewvat.devices import RangeRule, RightCensored, SixSigma
from spikewvat.perturbations import GAV, HSV, Mixture

_SIX_SIGMA = SixSigma()


def trice(
    sigma: float = 0.1,
    *,
    censor: float = 1.0,
    range: RangeRule = _SIX_SIGMA,
    standardised: bool = False,
    gamma: float = 1.0,
) -> HSV:
    """Return the direction of TRICE: a fresh draw of right-censored noise in every step.

    Args:
        sigma: Standard deviation of the uncensored noise as a fraction of the range.
        censor: Bound of the noise, in standard deviations of the uncensored noise.
        range: Size of each layer's range.
        standardised: Move and scale the noise to mean 0 and standard deviation ``sigma``.
        gamma: Scale of the displacement (dimensionless), at least 0.

    Raises:
        ValueError: If a parameter is out of its range.

    References:
        Yan et al., 2023 (see :class:`spikewvat.devices.RightCensored` for what is uncertain).

    Example:
        >>> trice(0.05, censor=0.5).device.censor
        0.5
    """
    return HSV(RightCensored(sigma, range, censor=censor, standardised=standardised), gamma)


def a_trice(
    sigma: float = 0.1,
    *,
    censor: float = 1.0,
    range: RangeRule = _SIX_SIGMA,
    standardised: bool = False,
    gamma: float = 1.0,
    alpha: float = 0.1,
    w_th: float = 0.5,
) -> Mixture:
    """Return the direction of A-TRICE: censored noise, or an adversarial displacement.

    How the published method mixes the two is not known to us. Here a step takes one of them, as
    in WVAT: the adversarial one goes up the gradient, as far as a draw of the censored noise
    times ``alpha``.

    Args:
        sigma: Standard deviation of the uncensored noise as a fraction of the range.
        censor: Bound of the noise, in standard deviations of the uncensored noise.
        range: Size of each layer's range.
        standardised: Move and scale the noise to mean 0 and standard deviation ``sigma``.
        gamma: Scale of the displacement (dimensionless), at least 0.
        alpha: Length of the adversarial displacement as a share of a noise draw's length.
        w_th: Share of steps that are adversarial.

    Raises:
        ValueError: If a parameter is out of its range.

    References:
        Yan et al., 2023, and its extension by adversarial training.
    """
    noise = RightCensored(sigma, range, censor=censor, standardised=standardised)
    return Mixture(HSV(noise, gamma), GAV(noise, gamma, alpha), w_th)
