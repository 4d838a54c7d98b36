"""Perturbations that are added piece by piece, so that a piece stays in the processor's cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

PIECE = 2**18
"""Numbers in a piece; a weight's pieces begin at multiples of it."""


def is_dense(weight: Tensor) -> bool:
    """Return whether entries fill one block without gaps, in whatever order (channels last)."""
    if weight.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(weight.stride(), weight.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def in_memory_order(weight: Tensor) -> Tensor:
    """Return a flat view of a dense tensor, entries as they lie in memory."""
    if weight.is_contiguous():
        return weight.view(-1)
    return weight.as_strided((weight.numel(),), (1,))


def laid_out_alike(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are of one shape, dtype, device and layout in memory."""
    return (
        one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
        and one.device == other.device
    )


def slices(count: int) -> Iterator[slice]:
    """Yield the pieces of so many entries."""
    for first in range(0, count, PIECE):
        yield slice(first, min(first + PIECE, count))


class InPieces(ABC):
    """Adds a perturbation to tensors in place, all at once or piece by piece."""

    draws = False
    """Whether it draws random numbers as it adds."""

    @abstractmethod
    def fits(self, name: str, weight: Tensor) -> bool:
        """Return whether it can be added to a tensor piece by piece."""

    @abstractmethod
    def adding(self, name: str, weight: Tensor) -> Iterator[int]:
        """Add to one tensor while being iterated.

        Args:
            name: The weight's name.
            weight: Written to, entry by entry in the order of its memory.

        Yields:
            How many entries are done. No step crosses a multiple of :data:`PIECE`, where it fits.
        """

    def __call__(self, weights: Mapping[str, Tensor]) -> None:
        """Add to all tensors."""
        for name, weight in weights.items():
            for _ in self.adding(name, weight):
                pass


class Together(InPieces):
    """Several perturbations, added to a piece one after the other.

    Args:
        parts: In order; at most one of them draws, so that numbers keep their order.
    """

    def __init__(self, parts: Sequence[InPieces]) -> None:
        self._parts = parts
        self.draws = any(part.draws for part in parts)

    def fits(self, name: str, weight: Tensor) -> bool:
        """Return whether all fit."""
        return all(part.fits(name, weight) for part in self._parts)

    def adding(self, name: str, weight: Tensor) -> Iterator[int]:
        """Add piece by piece where all fit, one after the other otherwise."""
        running = [part.adding(name, weight) for part in self._parts]
        done, count = [0] * len(running), weight.numel()
        whole = [slice(0, count)]
        for piece in slices(count) if self.fits(name, weight) else whole:
            for i, one in enumerate(running):
                while done[i] < piece.stop:
                    done[i] = next(one)
            yield piece.stop


class Changes(InPieces):
    """Adds given changes, each times its factor.

    Args:
        changes: By name; they may be of another dtype or device than the weights.
        factors: By name.
    """

    def __init__(self, changes: Mapping[str, Tensor], factors: Mapping[str, float]) -> None:
        self._changes, self._factors = changes, factors

    def fits(self, name: str, weight: Tensor) -> bool:
        """Return whether the change lies in memory as the weight does."""
        return laid_out_alike(self._changes[name], weight) and is_dense(weight)

    def adding(self, name: str, weight: Tensor) -> Iterator[int]:
        """Add; a factor of zero adds nothing, not even what is not finite."""
        change, factor = self._changes[name], self._factors[name]
        if factor == 0:
            yield weight.numel()
        elif self.fits(name, weight):
            target, source = in_memory_order(weight), in_memory_order(change)
            for piece in slices(weight.numel()):
                target[piece].add_(source[piece], alpha=factor)
                yield piece.stop
        else:
            weight.add_(change.to(device=weight.device, dtype=weight.dtype), alpha=factor)
            yield weight.numel()


def fill(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor], add: InPieces) -> None:
    """Write sources plus a perturbation into targets that are laid out alike, in one pass.

    Args:
        targets: Written to.
        sources: Weights by name.
        add: Fits all targets.
    """
    for name, target in targets.items():
        into, out = in_memory_order(target), in_memory_order(sources[name])
        adding, done = add.adding(name, target), 0
        for piece in slices(target.numel()):
            into[piece].copy_(out[piece])
            while done < piece.stop:
                done = next(adding)
