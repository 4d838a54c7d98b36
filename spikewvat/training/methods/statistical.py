"""Statistical training: weights are random variables, and the loss sees their spread."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from spikewvat.devices.base import (
    DeviceModel,
    check_at_least_zero,
    draw_dtype,
    generator_device,
)
from spikewvat.errors import UnsupportedModelError
from spikewvat.training import Backward, Closure, GradientMethod
from spikewvat.training.checks import differentiate
from spikewvat.training.methods.moments import chain_of, moderated, through
from spikewvat.training.methods.synapses import (
    hooked,
    moments_of,
    root,
    spread_of,
    synaptic_layers,
    weighed,
)

Form: TypeAlias = Literal["auto", "analytic", "sampled"]


class Statistical(GradientMethod):
    r"""Trains on mean and variance of the activations over chips.

    *Analytic*, for sequential networks of linear, convolutional, ReLU, average-pooling, flatten
    and dropout layers: mean and variance of every activation are propagated,

    .. math:: E z = E w' \, E h, \quad \mathrm{Var} z = \textstyle\sum \mathrm{Var} w' (E h)^2
              + (E w')^2 \mathrm{Var} h + \mathrm{Var} w' \mathrm{Var} h,

    and while :meth:`backward` runs, the model returns the moderated scores
    :math:`E z / \sqrt{1 + \pi \mathrm{Var} z / 8}`, to which the closure applies its own loss.
    One gradient of a network about three times as wide.

    *Sampled*, for all others, spiking networks among them, whose activations have no such form:
    every layer of synapses adds noise of the variance that its weights' errors make,

    .. math:: z = E w' \, h + \sqrt{\textstyle\sum \mathrm{Var} w' \, h^2} \; \epsilon.

    One :math:`\epsilon` for each neuron and sample lasts over all time steps, as a chip's errors
    do; where a network folds time into the batch, each step has its own. One gradient.

    The weights are never perturbed; ``weights`` have to lie in linear or convolutional layers.
    Running statistics of batch norm change as in plain training.

    Args:
        model: The model that the closure calls.
        device: The device model: noise of known variance.
        form: ``"analytic"``, ``"sampled"``, or ``"auto"`` for the first where it is possible.
        variance_penalty: Added to the loss times the mean variance of the last layer's output.
        **options: ``p``, ``weights``, ``generator`` and others of :class:`GradientMethod`.

    Raises:
        ValueError: If ``form`` is unknown, ``variance_penalty`` negative, or the device has no
            known variance.
        UnsupportedModelError: If synapses are in other layers, or an analytic form was asked for
            and there is none.

    References:
        Statistical training for neuromorphic computing using memristor-based crossbars
        considering process variations and noise (Zhu et al., 2020). Written from secondary
        knowledge: correlated variation is left out, and moderated scores are our choice among
        the losses. The sampled form (the local reparametrisation of Kingma et al., 2015) is ours.
    """

    def __init__(
        self,
        model: nn.Module,
        device: DeviceModel,
        *,
        form: Form = "auto",
        variance_penalty: float = 0.0,
        **options: Any,
    ) -> None:
        check_at_least_zero("variance_penalty", variance_penalty)
        if form not in get_args(Form):
            raise ValueError(f"form must be 'auto', 'analytic' or 'sampled', got {form!r}.")
        super().__init__(model, **options)
        self.device, self.variance_penalty, self._asked = device, variance_penalty, form
        self._variance: Tensor | None = None
        self._on_change()

    def _on_change(self) -> None:
        model = self.model
        self._layers = synaptic_layers(model, self.weights)
        moments_of(self.device, self.weights)
        wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
        self._inner: nn.Module = model.get_submodule("module") if wrapped else model
        self._chain = None if self._asked == "sampled" else chain_of(self._inner)
        if self._asked == "analytic" and self._chain is None:
            raise UnsupportedModelError(
                f"{type(model).__name__} is no sequence of linear, convolutional, ReLU, "
                "average-pooling, flatten and dropout layers, through which moments are known. "
                "Pass form='sampled'."
            )
        if self._chain == [self._inner]:  # whose forward this method stands in for
            layer = copy.copy(self._inner)
            self._chain = [layer]
            self._layers = dict(zip([layer], self._layers.values(), strict=True))

    @property
    def form(self) -> str:
        """``"analytic"`` or ``"sampled"``, what this model is trained by."""
        return "sampled" if self._chain is None else "analytic"

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        self._variance = None
        try:
            with self._sampled() if self._chain is None else self._analytic(self._chain):
                loss, _ = self._run(closure)
            if self._variance is None:
                raise UnsupportedModelError(
                    "the closure never called the model. Call the one that Statistical was made "
                    "from, uncompiled."
                )
            if self.variance_penalty:
                loss = loss + self.variance_penalty * self._variance.mean()
        finally:
            self._variance = None
        differentiate(loss, backward)
        return loss.detach()

    @contextmanager
    def _analytic(self, chain: list[nn.Module]) -> Iterator[None]:
        """Let the model return moderated scores."""

        def forward(inputs: Tensor) -> Tensor:
            moments = moments_of(self.device, self.weights)
            mean, self._variance = through(chain, inputs, moments, self._layers)
            return moderated(mean, self._variance)

        self._inner.__dict__["forward"] = forward  # the class's own is found again afterwards
        try:
            yield
        finally:
            del self._inner.__dict__["forward"]

    @contextmanager
    def _sampled(self) -> Iterator[None]:
        """Let every layer of synapses add the noise of its weights."""
        moments = moments_of(self.device, self.weights)
        draws: dict[nn.Module, Tensor] = {}

        def disturb(layer: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
            name = self._layers[layer]
            mean, variance = moments[name]
            if mean is not self.weights[name]:
                output = weighed(layer, mean, inputs, bias=True)
            self._variance = spread_of(layer, variance, inputs)
            shape = output.shape[1:] if _has_time(layer, output) else output.shape
            if layer not in draws or draws[layer].shape != shape:
                draws[layer] = self._draw(shape, output)
            return output + root(self._variance) * draws[layer]

        with hooked(self._layers, disturb):
            yield

    def _draw(self, shape: torch.Size, like: Tensor) -> Tensor:
        device = generator_device(self._noise)
        noise = torch.randn(shape, dtype=draw_dtype(like), device=device, generator=self._noise)
        return noise.to(like.device, like.dtype)


def _has_time(layer: nn.Module, output: Tensor) -> bool:
    """Return whether an output is [T, B, ...], all time steps in one call."""
    own = 2 + len(layer.kernel_size) if isinstance(layer, _ConvNd) else 2
    return output.dim() > own
