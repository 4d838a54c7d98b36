"""Perturbations that are added piece by piece, so that a piece stays in the processor's cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
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


def slices(count: int, size: int = PIECE) -> Iterator[slice]:
    """Yield the pieces of so many entries, each of a size but the last."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


class InPieces(ABC):
    """Adds a perturbation to tensors, all at once or piece by piece."""

    draws = False
    """Whether it draws random numbers as it adds."""

    @abstractmethod
    def fits(self, name: str, weight: Tensor) -> bool:
        """Return whether it can be added to a tensor piece by piece."""

    @abstractmethod
    def writing(self, name: str, weight: Tensor, target: Tensor) -> Iterator[int]:
        """Write the perturbed weight to a tensor while being iterated.

        Args:
            name: The weight's name.
            weight: Read only, unless it is the target.
            target: Laid out alike; written entry by entry in the order of memory. The weight
                itself, where the perturbation does not fit.

        Yields:
            How many entries are done. No step crosses a multiple of :data:`PIECE`, where it fits.
        """

    @abstractmethod
    def times(self, factor: float) -> InPieces:
        """Return the same perturbation, so many times as long."""

    def __call__(self, weights: Mapping[str, Tensor]) -> None:
        """Add to all tensors in place."""
        for name, weight in weights.items():
            self.write(name, weight, weight)

    def write(self, name: str, weight: Tensor, target: Tensor) -> None:
        """Write one perturbed weight to a tensor (see :meth:`writing`)."""
        for _ in self.writing(name, weight, target):
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

    def writing(self, name: str, weight: Tensor, target: Tensor) -> Iterator[int]:
        """Write piece by piece."""
        first, *others = self._parts
        running = [first.writing(name, weight, target)]
        running += [part.writing(name, target, target) for part in others]
        done = [0] * len(running)
        for piece in slices(weight.numel()):
            for i, one in enumerate(running):
                while done[i] < piece.stop:
                    done[i] = next(one)
            yield piece.stop

    def times(self, factor: float) -> Together:
        """Return all of them, so many times as long."""
        return Together([part.times(factor) for part in self._parts])


class Changes(InPieces):
    """Adds given changes, each times its factor.

    Args:
        changes: By name; they may be of another dtype or device than the weights.
        factors: By name.
        own: Whether nobody reads changes again that nobody else holds. Perturbed weights may take
            their memory then: each entry is read once, just before it is written.
    """

    def __init__(
        self, changes: Mapping[str, Tensor], factors: Mapping[str, float], *, own: bool = False
    ) -> None:
        self.changes, self._factors, self.own = changes, factors, own

    def fits(self, name: str, weight: Tensor) -> bool:
        """Return whether the change lies in memory as the weight does."""
        alike = self._factors[name] == 0 or laid_out_alike(self.changes[name], weight)
        return alike and is_dense(weight)

    def writing(self, name: str, weight: Tensor, target: Tensor) -> Iterator[int]:
        """Write; a factor of zero adds nothing, not even what is not finite."""
        change, factor = self.changes[name], self._factors[name]
        if factor != 0 and self.fits(name, weight):
            into, out, what = map(in_memory_order, (target, weight, change))
            for piece in slices(weight.numel()):
                torch.add(out[piece], what[piece], alpha=factor, out=into[piece])
                yield piece.stop
            return
        if target is not weight:
            target.copy_(weight)
        if factor != 0:
            target.add_(change.to(device=weight.device, dtype=weight.dtype), alpha=factor)
        yield weight.numel()

    def times(self, factor: float) -> Changes:
        """Return the changes with longer factors."""
        factors = {name: factor * own for name, own in self._factors.items()}
        return Changes(self.changes, factors, own=self.own)
