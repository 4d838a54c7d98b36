"""The images of a test set: read from a loader once and kept in memory if they fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Inputs and labels."""

CACHE_BYTES = 2**30
_SHARE_OF_GPU = 0.25  # of its free memory, up to which images stay there


class Images:
    """The batches of a loader, available for any number of passes.

    Spikes are 0 or 1, so float images of whole numbers up to 255 are kept as bytes, without loss
    and in a quarter of the memory.

    Args:
        loader: Yields ``(inputs, labels)`` batches with the same images in every pass.
        cache_bytes: Memory for the images; 0 disables caching.
    """

    def __init__(self, loader: Iterable[Any], cache_bytes: int) -> None:
        self._loader = loader
        self._room = cache_bytes
        self._axis = 0
        self._kept: list[tuple[Tensor, torch.dtype, Tensor]] | None = None
        self._begun: tuple[Any, Iterator[Any]] | None = None  # a batch read ahead, and the rest
        self.count = 0
        """Number of images in the first pass; 0 before its end."""
        self.class_counts: set[int] = set()
        """Class counts against which all labels have been checked."""
        self._order: Tensor | None = None
        self.ordered = True
        """Whether every pass so far had the same labels in the same order."""

    def load(self, images: int, device: torch.device) -> None:
        """Read all images into memory, so that subsets of ``images`` can be drawn.

        Raises:
            ValueError: If there are fewer images, they do not fit, or their axis is ambiguous.
        """
        kept = self.read(device, "images_per_chip")
        if not 1 <= images <= self.count:
            raise ValueError(
                f"images_per_chip must be between 1 and {self.count}, the images of the test "
                f"set, got {images!r}."
            )
        self._axis = image_axis([(packed, labels) for packed, _, labels in kept])

    def read(self, device: torch.device, what: str) -> list[tuple[Tensor, torch.dtype, Tensor]]:
        """Read all images into memory and return them as they are kept.

        Args:
            device: Of the network.
            what: Needs them there, for the message.

        Raises:
            ValueError: If they do not fit.
        """
        if self._kept is None:
            for _ in self.batches(device):
                pass
        if self._kept is None:
            raise ValueError(
                f"the {self.count} images do not fit into memory, which {what} needs. "
                "Raise cache_bytes, or leave it out."
            )
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: images that are in memory need no loader."""
        return vars(self) if self._kept is None else {**vars(self), "_loader": (), "_begun": None}

    def first(self, device: torch.device) -> Batch | None:
        """Return the first batch, or None if there is none; the next pass continues from it.

        Args:
            device: Device of the inputs.

        Raises:
            ValueError: If labels are not class indices.
            TypeError: If the batch is not a pair of tensors.
        """
        if self._kept is not None:
            packed, dtype, labels = self._kept[0]
            return packed.to(device).to(dtype, copy=True), labels
        if self._begun is None:
            source = iter(self._loader)
            batch = next(source, None)
            if batch is None:
                return None
            self._begun = batch, source
        inputs, labels = _pair(self._begun[0])
        return inputs.to(device), labels

    def batches(self, device: torch.device) -> Iterator[Batch]:
        """Yield all images.

        Args:
            device: Device of the inputs.

        Raises:
            ValueError: If there are no images, or different ones than before; if inputs are not
                finite.
            TypeError: If a batch is not a pair of tensors.
        """
        if self._kept is not None:
            for packed, dtype, labels in self._kept:
                # A copy: a first layer that works in place must not change the images.
                yield packed.to(device).to(dtype, copy=True), labels
            return
        kept: list[tuple[Tensor, torch.dtype, Tensor]] = []
        seen: list[Tensor] = []
        room, count = self._room, 0
        begun, self._begun = self._begun, None
        source = self._loader if begun is None else itertools.chain([begun[0]], begun[1])
        for batch in source:
            inputs, labels = _pair(batch)
            if self.count == 0:
                _check_finite(inputs, count)
            count += len(labels)
            seen.append(labels.cpu())
            if room > 0:
                packed = _packed(inputs)
                room -= _size(packed) + labels.nbytes
                if room >= 0:
                    kept.append((packed, inputs.dtype, labels.clone()))
                else:
                    kept.clear()
                    room = 0
            yield inputs.to(device), labels
        if count == self.count == 0:
            raise ValueError("the loader yields no images. Check the data set and its split.")
        if self.count not in (0, count):
            raise ValueError(
                f"the loader yielded {self.count} images in the first pass and {count} in a later "
                "one. Pass a DataLoader or a list of batches, or raise cache_bytes."
            )
        # Only a pass that has come to its end has seen all images.
        self.count = count
        order, self._order = self._order, torch.cat(seen)
        self.ordered &= order is None or torch.equal(order, self._order)
        if room > 0:
            self._kept = _near(kept, device)
        else:
            self._room = 0

    def chosen(self, numbers: Tensor, device: torch.device) -> Iterator[Batch]:
        """Yield some of the cached images, in batches about as large as the loader's largest.

        Args:
            numbers: Indices of the images, from 0; call :meth:`load` first.
            device: Device of the inputs.
        """
        kept = self._kept or []
        most = max(len(labels) for _, _, labels in kept)
        parts: list[Batch] = []
        first = 0
        for packed, dtype, labels in kept:
            here = numbers[(numbers >= first) & (numbers < first + len(labels))] - first
            first += len(labels)
            if len(here) == 0:
                continue
            here = here.to(packed.device)
            part = packed.index_select(self._axis, here).to(device).to(dtype)
            if parts and _other_shape(parts[-1][0], part, self._axis):
                yield _joined(parts, self._axis)
                parts = []
            parts.append((part, labels[here.to(labels.device)]))
            if sum(len(own) for _, own in parts) >= most:
                yield _joined(parts, self._axis)
                parts = []
        if parts:
            yield _joined(parts, self._axis)


def _near(
    kept: list[tuple[Tensor, torch.dtype, Tensor]], device: torch.device
) -> list[tuple[Tensor, torch.dtype, Tensor]]:
    """Return the images on the network's GPU if it has room for them."""
    if device.type != "cuda":
        return kept
    free = torch.cuda.mem_get_info(device)[0]
    if sum(_size(packed) for packed, _, _ in kept) > _SHARE_OF_GPU * free:
        return kept
    return [(packed.to(device), dtype, labels.to(device)) for packed, dtype, labels in kept]


def image_axis(batches: list[tuple[Tensor, Tensor]]) -> int:
    """Return the axis of the inputs that holds the images: 1 after time, or 0.

    Args:
        batches: Inputs and labels.

    Raises:
        ValueError: If neither axis fits, or both do.
    """
    fits = [
        axis
        for axis in (0, 1)
        if all(x.dim() > axis + 1 and x.shape[axis] == len(labels) for x, labels in batches)
    ]
    if len(fits) != 1:
        shapes = sorted({tuple(x.shape) for x, _ in batches})
        raise ValueError(
            f"inputs of shapes {shapes} do not show which axis holds the images. "
            "Pass batches of another size."
        )
    return fits[0]


def _other_shape(one: Tensor, other: Tensor, axis: int) -> bool:
    """Return whether two batches cannot be joined along an axis."""
    shapes = [(*x.shape[:axis], *x.shape[axis + 1 :]) for x in (one, other)]
    return shapes[0] != shapes[1] or one.dtype != other.dtype


def _joined(parts: list[tuple[Tensor, Tensor]], axis: int) -> tuple[Tensor, Tensor]:
    """Join several batches."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([x for x, _ in parts], axis), torch.cat([labels for _, labels in parts])


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of a batch."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], Tensor):
        raise TypeError(
            f"a batch of the loader is {described(batch)}, expected a pair (inputs, labels) of "
            "tensors. Wrap the loader."
        )
    inputs, labels = batch[0], torch.as_tensor(batch[1])
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}, expected class indices "
            "(int64) of shape [B]."
        )
    return inputs, labels


def _check_finite(inputs: Tensor, before: int) -> None:
    """Raise if inputs hold NaN or infinity, of which spiking neurons may make silence."""
    values = inputs.coalesce().values() if inputs.is_sparse else inputs
    if not values.is_floating_point() or bool(values.sum().isfinite()):
        return  # a sum of finite numbers may overflow, never the other way round
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"inputs of the batch behind image {before} hold NaN or infinity. Check the data "
            "and its normalisation for divisions by zero."
        )


def _packed(inputs: Tensor) -> Tensor:
    """Return a copy, as bytes if that loses nothing."""
    if inputs.is_sparse:
        return inputs.detach().clone()
    if inputs.is_floating_point():
        as_bytes = inputs.clamp(0, 255).to(torch.uint8)
        if torch.equal(as_bytes.to(inputs.dtype), inputs):
            return as_bytes
    return inputs.detach().clone()


def _size(inputs: Tensor) -> int:
    """Return the size of a tensor in bytes."""
    if inputs.is_sparse:
        inputs = inputs.coalesce()
        return inputs.indices().nbytes + inputs.values().nbytes
    return inputs.nbytes


def described(value: object) -> str:
    """Describe a value, for messages."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        kinds = ", ".join(type(part).__name__ for part in value[:3])
        return f"a {type(value).__name__} of {len(value)} ({kinds}{', ...' * (len(value) > 3)})"
    return f"a {type(value).__name__}"
