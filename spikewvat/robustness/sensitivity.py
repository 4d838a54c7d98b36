"""How much the loss changes with each weight: the diagonal of the Fisher information."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from spikewvat.adapters.currents import SynapseLayer
from spikewvat.adapters.neurons import overridden
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.calibration import Bench
from spikewvat.weights import Weights, taken

_MEANS = 256  # samples that mean inputs are taken from, at most


def squares(
    bench: Bench, samples: int, loss: Callable[[Any, Tensor], Tensor], *, trimmed: bool = False
) -> Weights:
    r"""Return the mean square of the gradient of single samples, float64.

    .. math:: F_{ij} = \mathrm{E} \left( \frac{\partial L}{\partial w_{ij}}
              - \bar x_{ij} \frac{\partial L}{\partial b_i} \right)^2

    The second term is there for chips that are trimmed: the offset :math:`b_i` of an output channel
    takes away what an error does to the mean current, and with it the mean input
    :math:`\bar x_{ij}` of the weight.

    Args:
        bench: The network, with its own weights, and its samples.
        samples: Number of samples.
        loss: From output and labels.
        trimmed: Whether offsets are trimmed afterwards.

    Raises:
        ValueError: If a weight is frozen, or the loss has no gradient.
        UnsupportedModelError: If it is not known which weights make a channel's current.
    """
    live = bench.live
    frozen = [name for name, weight in live.items() if not weight.requires_grad]
    if frozen:
        raise ValueError(
            f"weights {', '.join(map(repr, frozen))} are frozen, so that the loss has no gradient "
            "there. Call requires_grad_() on them."
        )
    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in live.items()}
    with torch.enable_grad(), taken(live), bench.undrawn(), ExitStack() as stack:
        terms = _mean_inputs(bench, samples) if trimmed else []
        offsets = {
            layer: torch.zeros(len(mean), device=mean.device, requires_grad=True)
            for layer, _, mean in terms
        }
        for layer, offset in offsets.items():
            stack.enter_context(layer.changed(functools.partial(_plus, layer, offset)))
        for index, (inputs, labels) in enumerate(bench.singles(samples)):
            value = loss(bench.output(inputs, index), labels)
            if not value.requires_grad:
                raise ValueError(
                    "the loss has no gradient with respect to the weights. Use neurons with "
                    "surrogate gradients, or another ranking."
                )
            wanted = [*live.values(), *offsets.values()]
            parts = list(torch.autograd.grad(value, wanted, allow_unused=True))
            found = dict(zip(live, parts, strict=False))
            by_offset = dict(zip(offsets, parts[len(live) :], strict=True))
            for layer, name, mean in terms:
                whole, own = found[name], by_offset[layer]
                if whole is not None and own is not None:
                    found[name] = whole - mean * own.view(-1, *(1,) * (whole.dim() - 1))
            for name, part in found.items():
                if part is not None:
                    total[name] += part.double().square() / samples
    bench.adapter.reset_state(bench.model)
    return {name: score.cpu() for name, score in total.items()}


def _plus(layer: SynapseLayer, offset: Tensor, y: Tensor) -> Tensor:
    return y + layer.shaped(offset).to(y)


def _mean_inputs(bench: Bench, samples: int) -> list[tuple[SynapseLayer, str, Tensor]]:
    """Return layer, name and mean input of each weight; a tied weight has several layers.

    A current is linear in the layer's own weights: the gradient of its mean is the mean input.
    """
    names = {id(weight): name for name, weight in bench.live.items()}
    sums: dict[tuple[SynapseLayer, str], Tensor] = {}
    counts: dict[SynapseLayer, int] = {}

    def see(layer: SynapseLayer, inner: Callable[..., Tensor], *args: Any, **kw: Any) -> Tensor:
        found = (layer.module._parameters[key] for key in layer.parameters)
        own = [weight for weight in found if weight is not None]
        with torch.enable_grad():
            apart = [arg.detach() if isinstance(arg, Tensor) else arg for arg in args]
            y = inner(*apart, **kw)
            parts = torch.autograd.grad(y.sum(), own)
        channels = y.shape[layer.axis]
        counts[layer] = counts.get(layer, 0) + y.numel() // channels
        for weight, part in zip(own, parts, strict=True):
            name = names.get(id(weight))
            if name is None:
                continue
            if len(part) != channels:
                raise UnsupportedModelError(
                    f"layer {layer.name!r} ({type(layer.module).__name__}) does not have its "
                    "output channels first in its weight, so that it is not known what an offset "
                    "mends. Pass trimmed=False."
                )
            sums[layer, name] = sums.get((layer, name), torch.zeros_like(part)) + part
        return y.detach()

    with ExitStack() as stack:
        for layer in bench.layers:
            call = functools.partial(see, layer)
            stack.enter_context(overridden(layer.module, "forward", call))
        for _ in bench.outputs(min(samples, _MEANS)):
            pass
    return [(layer, name, total / counts[layer]) for (layer, name), total in sums.items()]
