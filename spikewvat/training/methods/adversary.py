"""Adversarial regularisation of the parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikewvat.devices.base import check_at_least_zero, draw_dtype, generator_device
from spikewvat.spiking.losses import class_scores
from spikewvat.training import Backward, Closure, GradientMethod
from spikewvat.weights import Weights, perturbed


class ParameterAdversary(GradientMethod):
    r"""The loss, and how far an attack on the weights can move the outputs.

    .. math:: L(w) + \beta \, \mathrm{KL}\left(f(w) \,\Vert\, f(w^*)\right)

    :math:`f` is the softmax of the class scores. The attack starts at a small random distance
    and climbs the divergence in a few steps, never farther from any weight than a share
    :math:`\zeta` of it:

    .. math:: w^* \leftarrow \mathrm{clip}\left(w^* + \tfrac{\zeta}{K} |w| \, \mathrm{sign}
              \nabla_{w^*} \mathrm{KL}, \; w \pm \zeta |w|\right)

    K + 2 gradients and a forward pass a step. The closure has to return ``(loss, output)``.
    Gradients flow through both outputs; the perturbation :math:`w^* - w` is a constant, as
    everywhere here. Running statistics of batch norm change in the unperturbed pass.

    Args:
        model: The model that the closure calls.
        beta: Weight of the divergence, at least 0.
        zeta: Largest relative change of a weight by the attack, at least 0.
        attack_steps: Steps K of the attack, at least 1.
        start: Standard deviation of the random start, as a share of each weight.
        **options: ``p``, ``weights``, ``generator`` and others of :class:`GradientMethod`.

    Raises:
        ValueError: If a parameter is out of its range, or the closure returns the loss alone.
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    References:
        Network insensitivity to parameter noise via parameter attack during training (Büchel et
        al., 2022), https://arxiv.org/abs/2106.05009. Written from memory of the paper: there the
        perturbation scales with the weights when it is differentiated, and the defaults may
        differ.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        beta: float = 0.25,
        zeta: float = 0.1,
        attack_steps: int = 3,
        start: float = 0.01,
        **options: Any,
    ) -> None:
        for name, value in (("beta", beta), ("zeta", zeta), ("start", start)):
            check_at_least_zero(name, value)
        if type(attack_steps) is not int or attack_steps < 1:
            raise ValueError(f"attack_steps must be at least 1, got {attack_steps!r}.")
        super().__init__(model, **options)
        self.beta, self.zeta, self.attack_steps, self.start = beta, zeta, attack_steps, start

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        with self._on_the_side(), torch.no_grad():
            clean = class_scores(self._run_with_output(closure)[1])
        change = self._limited({name: self._draw(w) for name, w in self.weights.items()})
        for _ in range(self.attack_steps):
            with self._on_the_side():
                self._attacked(closure, backward, clean, change, factor=1.0)
                grads = self._weight_gradients()
            change = self._climbed(change, grads)
        with self._on_the_side() as parameters:
            attacked = self._attacked(closure, backward, clean, change, factor=self.beta)
            kept = self._kept(parameters)
        # Each output moves while the other is held: together that is the whole gradient, and no
        # graph outlives the weights that it was made with.
        loss, output = self._run_with_output(closure)
        total = loss + self.beta * divergence(class_scores(output), attacked)
        backward(total)
        self._add(parameters, kept)
        return total.detach()

    def _attacked(
        self, closure: Closure, backward: Backward, clean: Tensor, change: Weights, *, factor: float
    ) -> Tensor:
        """Differentiate the divergence at attacked weights; return the scores there."""
        with perturbed(self.weights, change, buffers=self._buffers):
            scores = class_scores(self._run_with_output(closure)[1])
            backward(factor * divergence(clean, scores))
        return scores.detach()

    def _draw(self, weight: Tensor) -> Tensor:
        device = generator_device(self._noise)
        noise = torch.randn(
            weight.shape, dtype=draw_dtype(weight), device=device, generator=self._noise
        )
        return noise.to(weight).mul_(self.start * weight.detach())

    def _climbed(self, change: Weights, grads: Weights) -> Weights:
        """Go one step up the divergence; a gradient that is not finite moves nothing."""
        share = self.zeta / self.attack_steps
        steps = {
            name: grads[name].sign().nan_to_num_(0).mul_(share * weight.detach().abs())
            for name, weight in self.weights.items()
        }
        return self._limited({name: change[name] + step for name, step in steps.items()})

    def _limited(self, change: Weights) -> Weights:
        bounds = {name: self.zeta * w.detach().abs() for name, w in self.weights.items()}
        return {name: d.clamp(-bounds[name], bounds[name]) for name, d in change.items()}


def divergence(scores: Tensor, others: Tensor) -> Tensor:
    """Return KL(softmax(scores) || softmax(others)), the mean over the batch.

    Args:
        scores: Class scores ``[B, classes]``.
        others: Class scores of the same shape.

    Example:
        >>> divergence(torch.zeros(1, 2), torch.zeros(1, 2)).item()
        0.0
    """
    logs = functional.log_softmax(scores, 1)
    return functional.kl_div(
        functional.log_softmax(others, 1), logs, log_target=True, reduction="batchmean"
    )
