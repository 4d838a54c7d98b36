"""Training under mismatch of neurons, whose thresholds and time constants differ by chip."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Generator, Tensor

from spikewvat.adapters import KnowsNeurons, NeuronLayer, Tap
from spikewvat.adapters.neurons import Part
from spikewvat.devices.base import check_at_least_zero, check_probability
from spikewvat.errors import UnsupportedModelError
from spikewvat.training.base import Backward, Closure, GradientMethod

_Key = tuple[str, Part]


class NeuronVariation:
    r"""Takes a method's gradients while thresholds or time constants of neurons are off.

    .. math:: \theta_i = \theta \, e^{x_i}, \qquad \tau_i = \tau \, e^{y_i}

    In a step with noise, x and y are normal with the given standard deviations, as on a simulated
    chip. In a step with the worst direction they are along the gradient of the loss, and for each
    layer as long as noise is on average: :math:`x = \alpha \, \sigma \sqrt n \, g / |g|`. That
    takes a pass more. What the method does to the weights goes on inside.

    Args:
        method: Any method, such as ``WVAT(model, device)`` or ``Plain(model)``.
        thresholds: Standard deviation of the logarithm of thresholds.
        time_constants: The same of membrane time constants.
        w_th: Probability of a step with the worst direction; 0 is noise alone, as for weights.
        alpha: Length of the worst direction, as a share of that of noise.
        generator: Source of randomness; by default one of seed 0.

    Raises:
        ValueError: If a number is out of range, or nothing is varied.
        UnsupportedModelError: If no adapter knows the neurons, or a layer has no such constant of
            its own.

    References:
        Büchel et al., 2021, https://doi.org/10.1038/s41598-021-02779-x: the worst direction of
        neuron parameters (there for all of them, by several steps, in JAX).

    Example:
        >>> from spikewvat.spiking.lif import LIF, Neurons
        >>> from spikewvat.training import Plain
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), Neurons(LIF(v_threshold=0.1)))
        >>> varied = NeuronVariation(Plain(net), thresholds=0.1)
        >>> loss = varied.backward(lambda: net(torch.ones(4, 1, 3)).sum())
    """

    def __init__(
        self,
        method: GradientMethod,
        *,
        thresholds: float = 0.0,
        time_constants: float = 0.0,
        w_th: float = 0.0,
        alpha: float = 1.0,
        generator: Generator | None = None,
    ) -> None:
        check_at_least_zero("thresholds", thresholds)
        check_at_least_zero("time_constants", time_constants)
        check_at_least_zero("alpha", alpha)
        check_probability("w_th", w_th)
        sizes: dict[Part, float] = {"v_threshold": thresholds, "tau_mem": time_constants}
        self._sizes = {part: size for part, size in sizes.items() if size}
        if not self._sizes:
            raise ValueError(
                "thresholds and time_constants are 0, so nothing is varied. Pass thresholds=0.1, "
                "for example, or use the method alone."
            )
        self.method, self.w_th, self.alpha = method, w_th, alpha
        self._generator = Generator().manual_seed(0) if generator is None else generator
        self._layers()  # refuse what does not fit before training

    def backward(self, closure: Closure, *, backward: Backward = torch.Tensor.backward) -> Tensor:
        """Leave the method's gradients in ``.grad`` (see :meth:`GradientMethod.backward`)."""
        worst = float(torch.rand((), generator=self._generator)) < self.w_th
        logs: dict[_Key, Tensor] = {}
        if worst:
            logs = self._worst(closure)
        with self._varied(logs):
            return self.method.backward(closure, backward=backward)

    @contextmanager
    def varied(self) -> Iterator[None]:
        """Let all neurons be off by one draw of noise within a block."""
        with self._varied({}):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Return the generator and the state of the method."""
        return {"generator": self._generator.get_state(), "method": self.method.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        self._generator.set_state(state["generator"].cpu())
        self.method.load_state_dict(state["method"])

    def _layers(self) -> dict[str, NeuronLayer]:
        adapter = self.method.adapter
        if not isinstance(adapter, KnowsNeurons):
            raise UnsupportedModelError(
                f"adapter {type(adapter).__name__} has no method neuron_layers(model), which finds "
                "layers of spiking neurons. Add it, or pass no adapter."
            )
        layers = adapter.neuron_layers(self.method.model)
        for name, layer in layers.items():
            for part in self._sizes:
                if part not in layer.parts:
                    raise UnsupportedModelError(
                        f"neurons {name!r} have no {part} of their own; they offer "
                        f"{', '.join(sorted(layer.parts))}. Leave that variation out."
                    )
        return layers

    def _worst(self, closure: Closure) -> dict[_Key, Tensor]:
        """Return the worst logarithms of the factors; the parameters' gradients stay."""
        leaves: dict[_Key, Tensor] = {}
        model = self.method.model
        self.method.adapter.reset_state(model)
        with torch.enable_grad(), self._varied(leaves, leaf=True):
            found = closure()
            loss = found if isinstance(found, Tensor) else found[0]
            grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        self.method.adapter.reset_state(model)
        logs = {}
        for (key, leaf), grad in zip(leaves.items(), grads, strict=True):
            length = self.alpha * self._sizes[key[1]] * math.sqrt(leaf.numel())
            norm = 0.0 if grad is None else float(grad.norm())
            logs[key] = (
                torch.zeros_like(leaf) if grad is None or norm == 0 else grad * (length / norm)
            ).detach()
        return logs

    @contextmanager
    def _varied(self, logs: dict[_Key, Tensor], *, leaf: bool = False) -> Iterator[None]:
        """Vary all layers; logarithms that are missing are drawn, or zeros that want gradients."""

        def factors(key: _Key, shape: torch.Size) -> Tensor:
            if key not in logs:
                logs[key] = (
                    torch.zeros(shape, requires_grad=True)
                    if leaf
                    else torch.randn(shape, generator=self._generator) * self._sizes[key[1]]
                )
            return logs[key].exp()

        with ExitStack() as stack:
            for name, layer in self._layers().items():
                taps = {
                    part: (lambda shape, key=(name, part): factors(key, shape))
                    for part in self._sizes
                }
                stack.enter_context(layer.tapped(Tap(**taps)))
            yield
