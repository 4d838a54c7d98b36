"""Corrupt a network within a block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from spikewvat.adapters import Adapter, KnowsNeurons, NeuronLayer, Tap, adapter_for
from spikewvat.adapters.currents import synapse_layers
from spikewvat.adapters.neurons import overridden
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.corruptions.base import (
    Corruption,
    EventCorruption,
    NeuronCorruption,
    SynapseCorruption,
)
from spikewvat.robustness.corruptions.synapses import flat_dims, steps_of
from spikewvat.robustness.draws import derived
from spikewvat.weights import Weights, call_with, refuse_computed


@contextmanager
def corrupt(
    model: nn.Module,
    corruption: Corruption,
    *,
    seed: int = 0,
    adapter: Adapter | None = None,
    weights: Weights | None = None,
    image_axis: int | None = None,
) -> Iterator[None]:
    """Corrupt the events, neurons and synapses of a network within a block.

    Within the block, ``model(spikes)`` receives corrupted events, and its neurons and synapses are
    those of one chip. Afterwards everything is restored bit for bit, whatever was raised. Reset
    neuron state before every pass, as always. Blocks nest within each other and within
    :func:`~spikewvat.weights.perturbed` and :func:`~spikewvat.weights.replaced`.

    Draws depend on the seed alone, not on the device of the network. Event noise is drawn per
    image, counted from the start of the block, so it does not depend on the batch size.

    Args:
        model: Network, called with its input first.
        corruption: The corruption to apply.
        seed: Seed of the chip; a report lists its own in ``seeds``.
        adapter: Defaults to the adapter for the model's framework.
        weights: Live synaptic weights; by default those that the adapter finds.
        image_axis: Axis of the images in the network's input, 0 or 1; by default 1 in spikes [T, B,
            N] and
            [T, B, C, H, W], and 0 in all other inputs.

    Raises:
        UnsupportedModelError: If the corruption applies to none of the network's neurons or
            synapses, or cannot be told apart from step to step.
        ValueError: If the corruption does not apply to the input of a pass.
        TypeError: If ``corruption`` is not a corruption.

    Example:
        >>> from spikewvat.robustness.corruptions import Deletion
        >>> net, spikes = nn.Flatten(2), torch.ones(1, 2, 1, 2, 2)
        >>> with corrupt(net, Deletion(1.0)):
        ...     net(spikes).sum().item()
        0.0
    """
    if not isinstance(corruption, Corruption):
        raise TypeError(
            f"corruption must be one such as Deletion(0.1), got {corruption!r}. "
            "They are in spikewvat.robustness.corruptions."
        )
    adapter = adapter or adapter_for(model)
    with ExitStack() as stack:
        chip = _Chip(seed, image_axis)
        # In front of the corruptions of events: these must find the count of images.
        stack.callback(model.register_forward_pre_hook(chip.begin).remove)
        for index, stage in enumerate(corruption.stages):
            drawn = chip.of(f"{index}/{stage.name}")
            if isinstance(stage, EventCorruption):
                change = functools.partial(_change_events, stage, drawn, image_axis)
                stack.callback(model.register_forward_pre_hook(change).remove)
            elif isinstance(stage, NeuronCorruption):
                for layer in tappable(model, adapter, stage):
                    stack.enter_context(layer.tapped(_tap(stage, drawn.of(layer.name))))
            elif isinstance(stage, SynapseCorruption):
                live = adapter.synaptic_weights(model) if weights is None else weights
                refuse_computed(live, f"read with {stage!r}")
                for name, module, owned in synapse_layers(model, live):
                    read = functools.partial(_read, stage, drawn.of(name), module, owned)
                    stack.enter_context(overridden(module, "forward", read))
            else:
                raise TypeError(
                    f"{stage!r} is not an EventCorruption, NeuronCorruption or SynapseCorruption. "
                    "Derive it from one of these."
                )
        yield


def tappable(model: nn.Module, adapter: Adapter, stage: NeuronCorruption) -> list[NeuronLayer]:
    """Return the layers of neurons that a corruption acts on.

    Raises:
        UnsupportedModelError: If there are none, or the corruption does not apply to one of them.
    """
    layers = known_neurons(model, adapter)
    for name, layer in layers.items():
        if stage.PART not in layer.parts:
            kind = f"{type(layer.module).__module__}.{type(layer.module).__qualname__}"
            raise UnsupportedModelError(
                f"{stage!r} changes {stage.PART} of each neuron, which layer {name!r} ({kind}) "
                f"does not have or shares; it offers {', '.join(sorted(layer.parts))}. "
                "Leave this corruption out."
            )
    return list(layers.values())


def known_neurons(model: nn.Module, adapter: Adapter) -> dict[str, NeuronLayer]:
    """Return the layers of spiking neurons by name.

    Raises:
        UnsupportedModelError: If there are none, or the adapter does not know any.
    """
    if not isinstance(adapter, KnowsNeurons):
        raise UnsupportedModelError(
            f"adapter {type(adapter).__name__} has no method neuron_layers(model), which finds "
            "layers of spiking neurons. Add it, or pass no adapter."
        )
    return adapter.neuron_layers(model)


@dataclass
class _Chip:
    """The draws of a chip: a seed for each purpose, and the position in the test set."""

    seed: int
    image_axis: int | None = None
    batch: int = 0
    late: bool = False  # time comes behind the images in this pass
    images: int = 0
    passes: int = 0
    _children: list[_Chip] = field(default_factory=list)
    _running: Generator | None = None

    def of(self, purpose: str) -> _Chip:
        """Return a chip's draws for a purpose."""
        child = _Chip(derived(self.seed, purpose))
        self._children.append(child)
        return child

    def begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Begin a pass: called with the network's input."""
        x = args[0] if args else None
        if isinstance(x, Tensor) and x.dim():
            self._start(x.shape[batch_axis(x, self.image_axis)], is_late(x, self.image_axis))
        else:
            self._start(0, False)

    def _start(self, batch: int, late: bool) -> None:
        self.images += self.batch
        self.batch, self.passes, self._running = batch, self.passes + 1, None
        self.late = late
        for child in self._children:
            child._start(batch, late)

    def static(self) -> Generator:
        """Return the source of what is drawn once: the same numbers at every call."""
        return Generator().manual_seed(self.seed)

    def of_image(self, index: int) -> Generator:
        """Return the source of an image of this pass."""
        return Generator().manual_seed(derived(self.seed, f"image {self.images + index}"))

    def running(self) -> Generator:
        """Return the source of this pass, which goes on from step to step."""
        if self._running is None:
            self._running = Generator().manual_seed(derived(self.seed, f"pass {self.passes}"))
        return self._running


def is_late(x: Tensor, image_axis: int | None) -> bool:
    """Return whether an input has its images first and time behind them."""
    return image_axis == 0 and x.dim() in (3, 5)


def batch_axis(x: Tensor, known: int | None = None) -> int:
    """Return where an input has its images: second in spikes [T, B, N] and [T, B, C, H, W]."""
    return known if known is not None else int(x.dim() in (3, 5))


def _change_events(
    stage: EventCorruption,
    chip: _Chip,
    image_axis: int | None,
    module: nn.Module,
    args: tuple[Any, ...],
) -> tuple[Any, ...]:
    """Return a network's arguments with changed events."""
    if not args or not isinstance(args[0], Tensor):
        raise TypeError(
            f"{stage!r} found no tensor of spikes as the network's first argument. "
            "Call model(spikes)."
        )
    spikes = args[0]
    sparse = spikes.is_sparse
    if is_late(spikes, image_axis):
        timed = spikes.transpose(0, 1)
        timed, *rest = _change_events(stage, chip, 1, module, (timed, *args[1:]))
        return timed.transpose(0, 1), *rest
    if stage.STATIC and not sparse:
        return stage(spikes, generator=chip.static()), *args[1:]
    images = []
    # Image by image: the noise of one depends on nothing but its number, and a sparse recording
    # need not be laid out for the whole batch.
    for index in range(spikes.shape[1] if spikes.dim() > 1 else 1):
        at = torch.tensor([index], device=spikes.device)
        image = spikes.index_select(1, at) if spikes.dim() > 1 else spikes
        image = image.to_dense() if sparse else image
        generator = chip.static() if stage.STATIC else chip.of_image(index)
        changed = stage(image, generator=generator)
        images.append(changed.to_sparse() if sparse else changed)
    joined = torch.cat(images, 1)
    return (joined.coalesce() if sparse else joined), *args[1:]


def _tap(stage: NeuronCorruption, chip: _Chip) -> Tap:
    """Return the effect of a corruption on a layer of neurons."""
    if stage.PART == "spikes":
        draw = chip.static if stage.STATIC else chip.running
        return Tap(spikes=lambda spikes: stage(spikes, generator=draw()))
    factors: Callable[[torch.Size], Tensor] = functools.lru_cache(
        lambda shape: stage.factors(shape, generator=chip.static())
    )
    return Tap(v_threshold=factors) if stage.PART == "v_threshold" else Tap(tau_mem=factors)


def _read(
    stage: SynapseCorruption,
    chip: _Chip,
    module: nn.Module,
    owned: dict[str, nn.Parameter],
    inner: Callable[..., Any],
    *args: Any,
    **kw: Any,
) -> Any:
    """Run a layer of synapses, step by step where it sees several, with weights read anew."""

    def once(*given: Any) -> Any:
        read = {
            name: stage.read(weight, generator=chip.running()) for name, weight in owned.items()
        }
        return call_with(module, inner, read, *given, **kw)

    x = args[0] if args else None
    if not isinstance(x, Tensor):
        return once(*args)
    flat = flat_dims(module)
    if chip.late and flat is not None and x.shape[: x.dim() - flat + 1].numel() != chip.batch:
        raise UnsupportedModelError(
            f"{stage!r} reads the weights anew in every time step, and a layer "
            f"({type(module).__name__}) that gets several steps at once, {tuple(x.shape)}, does "
            "not show which rows are one step where inputs have images first. Let the loader "
            "yield [T, B, ...], and the network take it."
        )
    steps, rows = steps_of(module, x, chip.batch)
    if steps == 1:
        return once(*args)
    if x.is_sparse:
        every = torch.split(torch.arange(len(x), device=x.device), rows)
        return torch.cat([once(x.index_select(0, at), *args[1:]) for at in every])
    return torch.cat([once(part, *args[1:]) for part in torch.split(x, rows)])
