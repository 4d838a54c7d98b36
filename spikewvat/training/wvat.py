"""Weight-variation-aware training."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from torch import nn
from torch.optim import Optimizer

from spikewvat.devices.base import DeviceModel, check_at_least_zero, check_probability
from spikewvat.directions import GAV, HSV, Direction, Mixture, MomentumVariation
from spikewvat.directions.momentum import Sign
from spikewvat.training.perturbed import PerturbedGradient

Ascent: TypeAlias = Literal["gradient", "momentum"]


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
            (see :class:`spikewvat.directions.MomentumVariation`), without.
        sign: Of the momentum: ``"ahead"`` along the last steps, ``"back"`` against them.
        optimizer: Whose momentum to follow where ``ascent="momentum"``.
        **options: ``p``, ``weights``, ``adapter``, ``reset_state``, ``generator``,
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
) -> Mixture:
    """Return WVAT's choice between noise and the worst direction.

    Args:
        device: What the chip does to weights; this and what follows as in :class:`WVAT`.
        w_th: Share of steps that use the worst direction.
        gamma: Scale of the displacement.
        alpha: Length of the worst direction as a share of a noise draw's length.
        per_tensor: Normalise the worst direction per tensor instead of globally.
        draw_length: Take the length of an actual draw instead of the closed form.
        ascent: ``"gradient"`` or ``"momentum"``.
        sign: Of the momentum.
        optimizer: Whose momentum to follow.

    Raises:
        ValueError: If a parameter is out of its range, or the optimizer is missing.
    """
    # Checked first, so that the message names the argument that was passed here.
    check_probability("w_th", w_th)
    check_at_least_zero("gamma", gamma)
    check_at_least_zero("alpha", alpha)
    if ascent not in get_args(Ascent):
        raise ValueError(f"ascent must be 'gradient' or 'momentum', got {ascent!r}.")
    worst: Direction
    if ascent == "gradient":
        worst = GAV(device, gamma, alpha, per_tensor=per_tensor, draw_length=draw_length)
    elif optimizer is None:
        raise ValueError("ascent='momentum' needs the optimizer, got None. Pass optimizer=...")
    else:
        worst = MomentumVariation(
            device,
            optimizer,
            gamma,
            alpha,
            sign,
            per_tensor=per_tensor,
            draw_length=draw_length,
        )
    return Mixture(HSV(device, gamma), worst, w_th)
