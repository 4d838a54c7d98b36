"""Noise injection with weight clipping."""

from __future__ import annotations

from typing import Any

from torch import nn

from spikewvat.devices import AbsMax, DeviceModel, Gaussian
from spikewvat.devices.base import check_above_zero
from spikewvat.perturbations import HSV
from spikewvat.training import PerturbedGradient
from spikewvat.weights import clip_to_std_


class NoiseInjection(PerturbedGradient):
    r"""Noise in proportion to the largest weight, and weights clipped after every step.

    .. math:: w_v \sim N(0, (\eta \max|w_l|)^2), \qquad
              w_l \leftarrow \mathrm{clip}(w_l, -c \, \sigma_l, c \, \sigma_l)

    The gradient is taken at :math:`w + w_v` and applied to :math:`w`; :meth:`after_step` clips,
    with the standard deviation :math:`\sigma_l` of the layer as it is then. It also clips where
    the learning rate is 0. The published recipe starts from a trained network.

    Args:
        model: The model that the closure calls.
        sigma: Standard deviation :math:`\eta` as a fraction of a layer's largest magnitude, 0.038
            by default.
        clip_sigmas: Standard deviations c that stay on each side of 0, above 0: 2 was used for
            CIFAR-10, 2.5 for ImageNet (as far as we know).
        device: Other noise instead, its own range and width included.
        **options: ``p``, ``weights``, ``generator`` and others of
            :class:`spikewvat.training.GradientMethod`.

    Raises:
        ValueError: If ``sigma`` is negative or given beside ``device``, or ``clip_sigmas`` not
            above 0.
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    References:
        Accurate deep neural network inference using computational phase-change memory (Joshi et
        al., 2020), https://doi.org/10.1038/s41467-020-16108-9
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float | None = None,
        clip_sigmas: float = 2.0,
        device: DeviceModel | None = None,
        **options: Any,
    ) -> None:
        check_above_zero("clip_sigmas", clip_sigmas)
        if device is None:
            device = Gaussian(0.038 if sigma is None else sigma, AbsMax())
        elif sigma is not None:
            raise ValueError(f"got sigma={sigma!r} and a device, which has its own. Leave one out.")
        super().__init__(model, HSV(device), **options)
        self.clip_sigmas = clip_sigmas

    def after_step(self) -> None:
        """Clip the weights; call it after ``optimizer.step()``."""
        clip_to_std_(self.weights, self.clip_sigmas)
