"""Weight-variation-aware training."""

from __future__ import annotations

from typing import Any

from torch import nn

from spikewvat.devices.base import DeviceModel
from spikewvat.perturbations import Source, variation
from spikewvat.perturbations.mixture import Mix
from spikewvat.perturbations.sources import GRADIENT
from spikewvat.training.perturbed import PerturbedGradient

_NONE: Any = None  # refused with a message that says what a device is


class WVAT(PerturbedGradient):
    r"""Weight-variation-aware training: minimise the loss at weights as a chip would hold them.

    .. math:: \min_w L(w + w_v)

    In each step :math:`w_v` is either a draw of the device's variation (HSV, with probability
    ``1 - w_th``) or the worst perturbation (GAV, ``w_th``), and the gradient taken there is applied
    to the unperturbed weights. Averaging (:class:`spikewvat.SWA`) runs on top. Start with
    ``worst=Momentum(optimizer), mix="both"``, which takes one gradient a step.

    For other lengths and schedules, hand a perturbation to :class:`PerturbedGradient`, such as
    ``Warmup(variation(device, gamma=1.0), steps)``.

    Args:
        model: The model that the closure calls.
        device: The device model.
        w_th: Share of steps that use the worst perturbation, 0.5 by default; 0 is noise only.
        gamma: Scale of the perturbation: 1 trains at the width that is tested, 0.5 at half. By
            default 1, with ``mix="both"`` 0.5.
        alpha: Length of the worst perturbation as a share of a noise draw's length. By default
            0.03, with ``mix="both"`` 0.1.
        worst: Source of the worst perturbation: ``Gradient()`` is that of the minibatch, with
            a second pass in the steps that use it; ``Momentum(optimizer)`` is the optimizer's,
            ``Past()`` that of earlier steps, both without.
        mix: ``"either"`` takes noise or the worst perturbation in a step; ``"both"`` adds them in
            every step, where ``w_th`` has no meaning.
        **options: ``trim`` of :class:`PerturbedGradient`; ``p``, ``weights``, ``adapter``,
            ``reset_state``, ``ignore``, ``generator``, ``same_noise_on_all_ranks`` and
            ``warn_after`` of :class:`GradientMethod`.

    Raises:
        TypeError: If there is no model or no device model, or an option is unknown.
        ValueError: If a parameter is out of range or of the wrong kind.
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    References:
        A weight variation-aware training method for hardware neuromorphic chips (anonymous
        authors, under review), sections 3.1-3.3. Where text and equation of the paper differ
        (``w_th``, ``alpha``), the text and its experiments are followed.

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
        device: DeviceModel = _NONE,
        *,
        w_th: float | None = None,
        gamma: float | None = None,
        alpha: float | None = None,
        worst: Source = GRADIENT,
        mix: Mix = "either",
        **options: Any,
    ) -> None:
        perturbation = variation(device, w_th=w_th, gamma=gamma, alpha=alpha, worst=worst, mix=mix)
        super().__init__(model, perturbation, **options)
