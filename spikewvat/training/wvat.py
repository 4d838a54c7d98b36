"""Weight-variation-aware training."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from torch import nn
from torch.optim import Optimizer

from spikewvat.devices.base import DeviceModel, check_at_least_zero, check_probability
from spikewvat.perturbations import (
    GAV,
    HSV,
    Direction,
    Drawn,
    Mixture,
    MomentumVariation,
    PastVariation,
    Ramped,
    Sum,
)
from spikewvat.perturbations.momentum import Sign
from spikewvat.training.perturbed import PerturbedGradient

Ascent: TypeAlias = Literal["gradient", "momentum", "past"]
Mix: TypeAlias = Literal["either", "both"]


class WVAT(PerturbedGradient):
    r"""Weight-variation-aware training: minimise the loss at weights as a chip would hold them.

    .. math:: \min_w L(w + w_v)

    In each step :math:`w_v` is either a draw of the device's variation (HSV, with probability
    ``1 - w_th``) or the worst direction (GAV, ``w_th``), and the gradient taken there is applied
    to the undisplaced weights. Averaging (:class:`spikewvat.SWA`) runs on top.

    Args:
        model: The model that the closure calls.
        device: What the chip does to weights.
        w_th: Share of steps that use the worst direction; 0 is noise only.
        gamma: Scale of the displacement: 1 trains at the width that is tested, 0.5 at half.
        alpha: Length of the worst direction as a share of a noise draw's length.
        per_tensor: Normalise the worst direction per tensor instead of globally.
        draw_length: Take the length of an actual draw instead of the closed form.
        ascent: Where the worst direction comes from: ``"gradient"`` is that of the minibatch,
            with a second pass in the steps that use it; ``"momentum"`` is the optimizer's
            (see :class:`spikewvat.perturbations.MomentumVariation`), without; ``"past"`` an average
            of earlier steps' gradients (:class:`spikewvat.perturbations.PastVariation`), without.
        sign: Of momentum and past: ``"ahead"`` along the last steps, ``"back"`` against them.
        optimizer: Whose momentum to follow where ``ascent="momentum"``.
        decay: Share of the average of past gradients that a step leaves; 0 takes the last one.
        mix: ``"either"`` takes noise or the worst direction in a step, ``"both"`` adds them in
            every step, whatever ``w_th`` says.
        ramp: Steps over which ``gamma`` grows from 0; 0 starts with all of it.
        spread: Draw ``gamma`` anew in every step, evenly from ``gamma (1 - spread)`` to
            ``gamma (1 + spread)``.
        **options: ``p``, ``weights``, ``adapter``, ``reset_state``, ``ignore``, ``generator``,
            ``same_noise_on_all_ranks`` and ``warn_after`` of :class:`GradientMethod`.

    Raises:
        ValueError: If a parameter is out of its range.
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    References:
        Weight-variation-aware training (WVAT), sections 3.1-3.3. Where text and equation of the
        paper differ (``w_th``, ``alpha``), the text and its experiments are followed.

    Example:
        >>> import torch
        >>> from spikewvat.devices import Gaussian
        >>> model = nn.Linear(3, 2)
        >>> wvat = WVAT(model, Gaussian(sigma=0.1))
        >>> before = model.weight.clone()
        >>> _ = wvat.backward(lambda: model(torch.ones(4, 3)).square().mean())
        >>> torch.equal(model.weight, before)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        device: DeviceModel,
        *,
        w_th: float = 0.5,
        gamma: float = 0.5,
        alpha: float = 0.1,
        per_tensor: bool = True,
        draw_length: bool = False,
        ascent: Ascent = "gradient",
        sign: Sign = "ahead",
        optimizer: Optimizer | None = None,
        decay: float = 0.0,
        mix: Mix = "either",
        ramp: int = 0,
        spread: float = 0.0,
        **options: Any,
    ) -> None:
        direction = mixed_direction(
            device,
            w_th=w_th,
            gamma=gamma,
            alpha=alpha,
            per_tensor=per_tensor,
            draw_length=draw_length,
            ascent=ascent,
            sign=sign,
            optimizer=optimizer,
            decay=decay,
            mix=mix,
            ramp=ramp,
            spread=spread,
        )
        super().__init__(model, direction, **options)


def mixed_direction(
    device: DeviceModel,
    *,
    w_th: float = 0.5,
    gamma: float = 0.5,
    alpha: float = 0.1,
    per_tensor: bool = True,
    draw_length: bool = False,
    ascent: Ascent = "gradient",
    sign: Sign = "ahead",
    optimizer: Optimizer | None = None,
    decay: float = 0.0,
    mix: Mix = "either",
    ramp: int = 0,
    spread: float = 0.0,
) -> Direction:
    """Return WVAT's direction: noise or the worst direction, or both.

    Args:
        device: What the chip does to weights; this and what follows as in :class:`WVAT`.
        w_th: Share of steps that use the worst direction.
        gamma: Scale of the displacement.
        alpha: Length of the worst direction as a share of a noise draw's length.
        per_tensor: Normalise the worst direction per tensor instead of globally.
        draw_length: Take the length of an actual draw instead of the closed form.
        ascent: ``"gradient"``, ``"momentum"`` or ``"past"``.
        sign: Of momentum and past.
        optimizer: Whose momentum to follow.
        decay: Of the average of past gradients.
        mix: ``"either"`` or ``"both"``.
        ramp: Steps over which ``gamma`` grows.
        spread: Of ``gamma``, relative.

    Raises:
        ValueError: If a parameter is out of its range, or the optimizer is missing.
    """
    # Checked first, so that the message names the argument that was passed here.
    check_probability("w_th", w_th)
    check_at_least_zero("gamma", gamma)
    check_at_least_zero("alpha", alpha)
    if ascent not in get_args(Ascent):
        raise ValueError(f"ascent must be 'gradient', 'momentum' or 'past', got {ascent!r}.")
    if mix not in get_args(Mix):
        raise ValueError(f"mix must be 'either' or 'both', got {mix!r}.")
    if type(ramp) is not int or ramp < 0:
        raise ValueError(f"ramp must be a whole number of at least 0, got {ramp!r}.")
    lengths: dict[str, Any] = {
        "gamma": gamma,
        "alpha": alpha,
        "per_tensor": per_tensor,
        "draw_length": draw_length,
    }
    worst: Direction
    if ascent == "gradient":
        worst = GAV(device, **lengths)
    elif ascent == "past":
        worst = PastVariation(device, decay=decay, sign=sign, **lengths)
    elif optimizer is None:
        raise ValueError("ascent='momentum' needs the optimizer, got None. Pass optimizer=...")
    else:
        worst = MomentumVariation(device, optimizer, sign=sign, **lengths)
    noise = HSV(device, gamma)
    direction: Direction = Mixture(noise, worst, w_th) if mix == "either" else Sum(noise, worst)
    if spread:
        direction = Drawn(direction, spread)
    return Ramped(direction, ramp) if ramp else direction
