"""A bias trim in the loop: training for chips whose currents are matched after programming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from spikewvat.adapters.currents import SynapseLayer, layers_of, noting_order, watching
from spikewvat.weights import Weights

Run = Callable[[], object]
"""Runs the network over the batch."""


class Trims:
    r"""Offsets that give a chip's currents the means that they have in the ideal network.

    .. math:: y' = y + b, \qquad b = \bar y_{ideal} - \bar y_{chip}

    Means are over the batch, its time steps and places; layers in front are trimmed already. It is
    what :class:`~spikewvat.robustness.calibration.BiasTrim` does to a chip. No gradient flows
    through the offsets: on a chip they are numbers.

    Args:
        model: The network.
        weights: Its synaptic weights.

    Raises:
        UnsupportedModelError: If it is not known where a layer's output channels are.
    """

    def __init__(self, model: nn.Module, weights: Weights) -> None:
        self._layers = layers_of(model, weights)
        self._wanted: dict[str, Tensor] = {}
        self._calls: Counter[str] = Counter()

    def look(self, run: Run) -> None:
        """Note the mean currents of the network as it is."""
        noted: list[str] = []
        with torch.no_grad(), noting_order(self._layers, noted), watching(self._layers) as seen:
            run()
            self._wanted = {name: moments.mean for name, moments in seen().items()}
        self._calls = Counter(noted)

    @contextmanager
    def applied(self, run: Run) -> Iterator[None]:
        """Trim the network, which has other weights now, within a block.

        A layer that is called once knows its mean as soon as it is called; where it is called step
        by step, the network runs once more for each such layer.
        """
        by_name = {layer.name: layer for layer in self._layers}
        with ExitStack() as stack:
            for name, count in self._calls.items():
                layer = by_name[name]
                change = self._at_once(layer) if count == 1 else self._before(layer, run)
                stack.enter_context(layer.changed(change))
            yield

    def _at_once(self, layer: SynapseLayer) -> Callable[[Tensor], Tensor]:
        def change(y: Tensor) -> Tensor:
            mean = y.detach().movedim(layer.axis, 0).flatten(1).double().mean(1)
            return y + layer.shaped(self._wanted[layer.name] - mean).to(y)

        return change

    def _before(self, layer: SynapseLayer, run: Run) -> Callable[[Tensor], Tensor]:
        with torch.no_grad(), watching([layer]) as seen:
            run()
            offset = self._wanted[layer.name] - seen()[layer.name].mean

        def change(y: Tensor) -> Tensor:
            return y + layer.shaped(offset).to(y)

        return change
