"""The converted network: a graph of synapses and neurons that runs over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from spikewvat.conversion.coding import Coding
from spikewvat.conversion.correction import Correction, OffsetSpikes, SilentResiduals
from spikewvat.conversion.graph import INPUT, Graph, Node
from spikewvat.conversion.layers import Dropout, Neurons, Timed, fold

Observer: TypeAlias = Callable[[Node, tuple[Tensor, ...], Tensor | None], None]
"""Called with every node, its inputs [T or 1, B, ...] and its output."""

_AT_ONCE, _AT_ONCE_CPU = 4096, 256  # images times steps


class SpikingNetwork(nn.Module):
    """A converted ANN: maps images to the mean output potential per step.

    Neurons send spikes forward within the step in which they fire, and there is no feedback, so
    each layer runs over many steps before the next one does: synapses fold time into the batch, and
    neurons loop over steps. The output accumulates its input without leak or threshold. No state is
    kept between passes.

    Work that is the same in every step is done once: layers with constant input, and the layers
    after the last neurons, which are linear and receive the mean over time.

    Args:
        graph: The computation of the network.
        coding: How images drive the network.
        time_steps: Number of steps T in a pass.
        chunk: Number of steps that a layer runs at once; ``None`` chooses it such that large
            batches stay in the cache and small ones keep the processor busy.
        correction: Corrects each image's spikes; ``None`` leaves them.

    Raises:
        ValueError: If an argument is out of range.

    Attributes:
        layers: The modules under their names in the ANN; synaptic weights are those of the ANN with
            batch norm folded in.
        handed_over: Synaptic layers that receive analog values instead of spikes, each with the
            layer whose currents these are.
        merged: Synaptic layers that have taken in another one, without an activation between the
            two, each with that.
        time_steps: T; may be changed at any time.
        fitted_steps: The T that thresholds were fitted to, or None if to none.
        every_step: Whether the layers after the last neurons also run in every step, as on a chip;
            needed for counting and read noise. Scores are the same up to rounding.
    """

    def __init__(
        self,
        graph: Graph,
        coding: Coding,
        time_steps: int,
        *,
        chunk: int | None = None,
        correction: Correction | None = None,
    ) -> None:
        super().__init__()
        check_time_steps(time_steps)
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1 step, got {chunk!r}.")
        self.layers = nn.Module()
        for path, module in graph.modules.items():
            _place(self.layers, path, module)
        self.nodes, self.output = tuple(graph.nodes), graph.output
        self.handed_over, self.merged = dict(graph.handed_over), dict(graph.merged)
        self.coding, self.time_steps, self.chunk = coding, time_steps, chunk
        self.correction = correction
        self.fitted_steps: int | None = None
        self.every_step = False
        self._tail = self._linear_tail()

    def forward(self, images: Tensor) -> Tensor:
        """Return scores U/T [B, classes] of images [B, ...]: the mean output potential per step.

        They converge to the ANN's scores as T grows. Accumulated potentials are T times as large.
        """
        state = self._begun(lambda steps: self._coded(images, steps))
        return self._mean(self._coded(images), state)

    def encode(self, images: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the input over time, for :meth:`run`.

        Call it outside a closure that runs twice, so that both passes see the same spikes.

        Args:
            images: ``[B, ...]``.
            generator: Source of randomness; ``None`` uses the coding's own.

        Returns:
            ``[T, B, ...]``, or ``[1, B, ...]`` if all steps are equal.
        """
        own = self.coding.generator() if generator is None else generator
        return self.coding(images, self.time_steps, generator=own)

    def run(self, inputs: Tensor) -> Tensor:
        """Return scores U/T [B, classes] for an input over time [T, B, ...] or [1, B, ...]."""
        state = self._begun(lambda steps: self._given(inputs, steps))
        return self._mean(self._given(inputs), state)

    def outputs(
        self, images: Tensor, *, time_steps: int | None = None, observe: Observer | None = None
    ) -> Iterator[Tensor]:
        """Yield the output currents of each step, a few steps [t, B, classes] at a time.

        Args:
            images: ``[B, ...]``.
            time_steps: Total number of steps; ``None`` uses the network's.
            observe: Called with the inputs and output of every module.

        Yields:
            Output currents of the next steps; their sum is the potential. What a correction runs
            before them is observed, but not in the output.
        """
        state = self._begun(lambda first: self._coded(images, first), observe)
        for x, steps, constant in self._coded(images, time_steps):
            output = self._advance(x, steps, constant, state, observe=observe, every_step=True)
            yield output.expand(steps, *output.shape[1:])

    def observe(
        self, images: Tensor, observe: Observer, *, until: str, time_steps: int | None = None
    ) -> None:
        """Run up to the inputs of a node, and observe the inputs and output of every module.

        Args:
            images: ``[B, ...]``.
            observe: Called for each chunk of steps; for the last node without its output.
            until: Name of the node to stop at.
            time_steps: Total number of steps; ``None`` uses the network's.
        """
        state: dict[str, Any] = {}
        for x, steps, constant in self._coded(images, time_steps):
            self._advance(x, steps, constant, state, observe=observe, every_step=True, until=until)

    def analog(self, images: Tensor, observe: Observer | None = None) -> Tensor:
        """Return the scores [B, classes] of the ANN with these weights.

        Args:
            images: ``[B, ...]``.
            observe: Called with the inputs and output of every module, with a time axis of length
                1.

        Returns:
            The ANN's output; dropout is active in training mode.
        """
        values = {INPUT: images}
        for node in self.nodes:
            module = self.layers.get_submodule(node.path)
            inputs = tuple(values[name] for name in node.inputs)
            found = module.analog(*inputs) if isinstance(module, Timed) else module(*inputs)
            values[node.name] = found
            if observe is not None:
                observe(node, tuple(i[None] for i in inputs), found[None])
        return values[self.output]

    def neurons(self) -> dict[str, Neurons]:
        """Return the layers of neurons by node name, from the input onwards."""
        found = {}
        for node in self.nodes:
            module = self.layers.get_submodule(node.path)
            if isinstance(module, Neurons):
                found[node.name] = module
        return found

    def thresholds(self) -> dict[str, Tensor]:
        """Return copies of the thresholds by layer of neurons."""
        return {name: n.threshold.detach().clone() for name, n in self.neurons().items()}

    def set_thresholds(self, thresholds: dict[str, Tensor]) -> None:
        """Set the thresholds by layer of neurons, 0-dim or one for each channel.

        Raises:
            ValueError: If a layer is missing or unknown, or a threshold is not above 0.
        """
        neurons = self.neurons()
        if thresholds.keys() != neurons.keys():
            raise ValueError(
                f"thresholds are for {sorted(thresholds)}, expected {sorted(neurons)}. "
                "Use those from balance(...) or thresholds() of the same network."
            )
        for name, threshold in thresholds.items():
            if not bool((torch.isfinite(threshold) & (threshold > 0)).all()):
                raise ValueError(
                    f"the threshold of {name!r} is {threshold.tolist()}, expected above 0."
                )
            neurons[name].set_threshold(threshold)

    def learn(self, *, thresholds: bool = False, leak: bool = False) -> None:
        """Make constants of neurons learnable, or fixed again; spike amplitudes stay fixed.

        They are not synaptic weights, so devices do not vary them.

        Args:
            thresholds: Whether thresholds are learnable.
            leak: Whether leaks are learnable.
        """
        for neurons in self.neurons().values():
            neurons.threshold.requires_grad_(thresholds)
            neurons.leak.requires_grad_(leak)

    def extra_repr(self) -> str:
        """Return the arguments, what is no spike between synapses, and merged layers."""
        shown = [f"time_steps={self.time_steps}, coding={self.coding}, chunk={self.chunk}"]
        for what, pairs in (
            ("analog values from {}", [f"{b} to {path}" for path, b in self.handed_over.items()]),
            ("merged {}", [f"{b} into {path}" for path, b in self.merged.items()]),
        ):
            shown += [what.format(", ".join(pairs))] if pairs else []
        return ", ".join(shown)

    @property
    def correction(self) -> Correction | None:
        """What corrects each image's spikes; may be changed at any time.

        Raises:
            ValueError: If neurons leak, or do not decide and reset as corrections suppose.
        """
        return self._correction

    @correction.setter
    def correction(self, correction: Correction | None) -> None:
        for name, neurons in self.neurons().items() if correction is not None else ():
            dynamics = neurons.dynamics
            other = dynamics.delayed or dynamics.hard_reset or dynamics.several
            if other or bool(neurons.leak.detach() != 1):
                raise ValueError(
                    f"{type(correction).__name__} needs neurons without leak that send 0 or 1 "
                    f"spikes and reset by subtraction, but those of {name!r} do not: {neurons}. "
                    "Use plain Dynamics(), and leak=1."
                )
        self._correction = correction

    @property
    def steps_before(self) -> int:
        """Number of steps that a correction runs before the T steps of a pass."""
        return self.correction.steps if isinstance(self.correction, SilentResiduals) else 0

    def _begun(
        self,
        chunks: Callable[[int], Iterator[tuple[Tensor, int, bool]]],
        observe: Observer | None = None,
    ) -> dict[str, Any]:
        """Return the state at the first step, after what a correction runs before it."""
        correction = self.correction
        if not isinstance(correction, SilentResiduals):
            return {}
        state: dict[str, Any] = {}
        with torch.no_grad():
            for x, steps, constant in chunks(correction.steps):
                self._advance(x, steps, constant, state, observe=observe, every_step=True)
            speaking = {
                name: correction.speaks(neurons, state[name])
                for name, neurons in self.neurons().items()
                if name in state
            }
        return {"speaking": speaking}

    def _mean(self, chunks: Iterator[tuple[Tensor, int, bool]], state: dict[str, Any]) -> Tensor:
        total: Tensor | None = None
        done = 0
        for x, steps, constant in chunks:
            mean = self._advance(x, steps, constant, state).mean(0)
            total = mean * steps if total is None else total + mean * steps
            done += steps
        assert total is not None  # there is at least one step
        return total / done

    def _coded(
        self, images: Tensor, time_steps: int | None = None
    ) -> Iterator[tuple[Tensor, int, bool]]:
        """Yield the input of the next steps, their number, and whether it is constant."""
        left = self.time_steps if time_steps is None else time_steps
        check_time_steps(left)
        generator = self.coding.generator()
        while left > 0:
            steps = min(left, self._chunk(images, left))
            x = self.coding(images, steps, generator=generator)
            yield x, steps, self.coding.constant
            left -= steps

    def _given(
        self, inputs: Tensor, time_steps: int | None = None
    ) -> Iterator[tuple[Tensor, int, bool]]:
        constant = len(inputs) == 1 and self.coding.constant
        total = self.time_steps if constant else len(inputs)
        if time_steps is not None:
            total = time_steps if constant else min(time_steps, total)
        chunk = self._chunk(inputs[0], total)
        for start in range(0, total, chunk):
            steps = min(chunk, total - start)
            yield inputs if constant else inputs[start : start + steps], steps, constant

    def _chunk(self, images: Tensor, left: int) -> int:
        """Return the number of steps to run at once, of so many."""
        if isinstance(self.correction, OffsetSpikes):
            return left  # it needs a layer's input in all steps
        at_once = _AT_ONCE_CPU if images.device.type == "cpu" else _AT_ONCE
        return self.chunk or max(1, at_once // max(1, len(images)))

    def _advance(
        self,
        x: Tensor,
        steps: int,
        constant: bool,
        state: dict[str, Any],
        *,
        observe: Observer | None = None,
        every_step: bool = False,
        until: str | None = None,
    ) -> Tensor:
        """Run the next steps through all layers and return the output [steps or 1, B, ...]."""
        kept: dict[str, Tensor] = state.setdefault("constant", {})
        speaking: dict[str, Tensor] = state.get("speaking", {})
        values = {INPUT: x}
        same = {INPUT} if constant else set()
        last = self._last_use
        for index, node in enumerate(self.nodes):
            if node.name in kept:
                values[node.name] = kept[node.name]
                same.add(node.name)
                if observe is None:
                    continue
            inputs = tuple(values[name] for name in node.inputs)
            if node.name in self._tail and not (every_step or self.every_step):
                inputs = tuple(i if len(i) == 1 else i.mean(0, keepdim=True) for i in inputs)
            if node.name == until:
                assert observe is not None
                observe(node, inputs, None)
                return inputs[0]
            if node.name not in kept:
                module = self.layers.get_submodule(node.path)
                if isinstance(module, Timed):
                    before = state.get(node.name)
                    if isinstance(module, Neurons) and isinstance(self.correction, OffsetSpikes):
                        before = self.correction.state(module, inputs[0], steps)
                    found, state[node.name] = module.steps(inputs[0], steps, before)
                    if node.name in speaking:
                        found = found * speaking[node.name]
                else:
                    found = fold(module, *inputs)
                values[node.name] = found
                remembers = isinstance(module, Timed) and not isinstance(module, Dropout)
                if same.issuperset(node.inputs) and not remembers:
                    kept[node.name] = found
                    same.add(node.name)
            if observe is not None:
                observe(node, inputs, values[node.name])
            for name in node.inputs:
                if last[name] == index and name != self.output:
                    values.pop(name, None)
        return values[self.output]

    def _linear_tail(self) -> frozenset[str]:
        """Return the nodes without neurons after them: they may receive the mean over time."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                users.setdefault(name, []).append(node)
        tail: set[str] = set()
        for node in reversed(self.nodes):
            module = self.layers.get_submodule(node.path)
            linear = not isinstance(module, Timed) or isinstance(module, Dropout)
            if linear and all(user.name in tail for user in users.get(node.name, [])):
                tail.add(node.name)
        self._last_use = {
            name: index for index, node in enumerate(self.nodes) for name in node.inputs
        }
        return frozenset(tail)


def check_time_steps(time_steps: int) -> None:
    """Raise a ValueError unless the number of steps is at least 1."""
    if not isinstance(time_steps, int) or time_steps < 1:
        raise ValueError(f"time_steps must be a whole number of at least 1, got {time_steps!r}.")


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Place a module at a dotted path, creating empty parent modules."""
    *parents, leaf = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(leaf, module)
