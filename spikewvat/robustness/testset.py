"""A test set that many chips are put through: one pass after the other, from memory if it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from spikewvat.robustness.stacked import Stack
from spikewvat.weights import Weights

_Forward: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""From inputs and labels to scores ``[chips, B, classes]`` and, with a loss, that ``[chips]``."""

_SHARE_OF_GPU = 0.25  # of its free memory, up to which images stay there


class TestSet:
    """A network in evaluation mode and the images that it is tested on.

    Spikes are 0 or 1, so float images that are whole numbers up to 255 are kept as bytes, which
    loses nothing and takes a quarter of the memory.

    Args:
        model: The network; whatever weights it holds at the time are tested.
        loader: Yields ``(inputs, labels)`` batches.
        device: Where the inputs go.
        reset: Forgets all neuron state of the network.
        scores: From an output to the score of every class, ``[B, classes]``.
        loss: From output and labels to the mean loss over the batch, or None.
        cache_bytes: Memory that the images may take; 0 keeps none.
        autocast: Lower precision of the forward passes, None for that of the weights.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        device: torch.device,
        reset: Callable[[nn.Module], None],
        scores: Callable[[Any], Tensor],
        loss: Callable[[Any, Tensor], Tensor] | None,
        cache_bytes: int,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._model = model
        self._loader = loader
        self._device = device
        self._reset = reset
        self._scores = scores
        self._loss = loss
        self._room = cache_bytes
        self._autocast = autocast
        self._labels_checked = False
        self._axis = 0
        self._kept: list[tuple[Tensor, torch.dtype, Tensor]] | None = None
        self.images = 0
        """How many images the first pass has seen."""

    def load(self, images: int) -> None:
        """Read all images into memory, to evaluate on ``images`` of them.

        Raises:
            ValueError: If there are fewer, they do not fit, or their axis is not clear.
        """
        if self._kept is None:
            self.images = sum(len(labels) for _, labels in self._batches())
        if self._kept is None:
            raise ValueError(
                f"the {self.images} images do not fit into memory, which images_per_chip needs. "
                "Raise cache_bytes, or leave it out."
            )
        if not 1 <= images <= self.images:
            raise ValueError(
                f"images_per_chip must be between 1 and {self.images}, the images of the test "
                f"set, got {images!r}."
            )
        self._axis = image_axis([(packed, labels) for packed, _, labels in self._kept])

    def evaluate(self, what: str, chosen: Tensor | None = None) -> tuple[float, float | None]:
        """Classify all images.

        Args:
            what: What is evaluated, for messages.
            chosen: Numbers of some images, after :meth:`load`; by default all.

        Returns:
            Share of right answers, and the mean loss over images if there is a loss.

        Raises:
            ValueError: If there are no images, or other ones than before; if outputs have an
                unexpected shape or are NaN; if labels are out of range.
            TypeError: If a batch is no pair of tensors.
        """

        def forward(inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            self._reset(self._model)
            reduced = self._reduced(self._model(inputs), labels)
            return tuple(part.unsqueeze(0) for part in reduced)

        return self._evaluated(forward, [what], chosen)[0]

    def evaluate_stacked(
        self, stack: Stack, chips: list[Weights], whats: list[str]
    ) -> list[tuple[float, float | None]]:
        """Classify all images on several chips at once.

        Args:
            stack: Of the same network.
            chips: Weights of each chip.
            whats: What each of them is, for messages.

        Returns:
            As :meth:`evaluate`, for each chip.

        Raises:
            NotStackableError: If a layer does not work on stacked weights.
            ValueError: As :meth:`evaluate`.
        """

        def forward(inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            return stack.outputs(inputs, chips, lambda output: self._reduced(output, labels))

        return self._evaluated(forward, whats)

    def _reduced(self, output: Any, labels: Tensor) -> tuple[Tensor, ...]:
        """Return scores, and the loss if there is one."""
        scores = self._scores(output)
        _check_shape(scores, labels)
        if not self._labels_checked:
            _check_labels(labels, scores.shape[1])
        if self._loss is None:
            return (scores,)
        return scores, torch.as_tensor(self._loss(output, labels.to(scores.device)))

    def _evaluated(
        self, forward: _Forward, whats: list[str], chosen: Tensor | None = None
    ) -> list[tuple[float, float | None]]:
        """Return accuracy and loss of each chip; waits for a GPU once, at the end."""
        right: list[Tensor] = []
        lost: list[Tensor] = []
        losses: list[Tensor] = []
        sizes: list[int] = []
        for inputs, labels in self._batches() if chosen is None else self._chosen(chosen):
            with torch.autocast(
                self._device.type, self._autocast, enabled=self._autocast is not None
            ):
                scores, *loss = forward(inputs, labels)
            right.append((scores.argmax(2) == labels.to(scores.device)).sum(1))
            lost.append(scores.isnan().any(2).sum(1))
            losses.extend(loss)
            sizes.append(len(labels))
        images = sum(sizes)
        if images == 0 and self.images == 0:
            raise ValueError("the loader yields no images. Check the data set and its split.")
        if chosen is None and self.images not in (0, images):
            raise ValueError(
                f"the loader yielded {self.images} images at the first pass and {images} at a "
                "later one. Pass a DataLoader or a list of batches, or raise cache_bytes."
            )
        for what, count in zip(whats, torch.stack(lost).sum(0).tolist(), strict=True):
            if count:
                raise ValueError(
                    f"scores are NaN for {count} of {images} images on {what}. "
                    "Check the inputs, and normalisation layers for divisions by zero."
                )
        if chosen is None:
            self.images, self._labels_checked = images, True
        accuracies = [count / images for count in torch.stack(right).sum(0).tolist()]
        if self._loss is None:
            return [(accuracy, None) for accuracy in accuracies]
        by_batch = torch.stack(losses).cpu().double()
        means = torch.tensor(sizes, dtype=torch.float64) @ by_batch / images
        return list(zip(accuracies, means.tolist(), strict=True))

    def gradient(self, weights: Weights) -> Weights:
        """Return the gradient of the mean loss over all images.

        Args:
            weights: Live parameters of the network by name.

        Raises:
            ValueError: If a parameter is frozen, or the loss does not depend on any of them.
        """
        frozen = [name for name, weight in weights.items() if not weight.requires_grad]
        if frozen:
            raise ValueError(
                f"weights {', '.join(map(repr, frozen))} are frozen, expected to take gradients. "
                "Call requires_grad_() on them, or do without the ascent."
            )
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        images = 0
        with torch.enable_grad():
            for inputs, labels in self._batches():
                self._reset(self._model)
                output = self._model(inputs)
                labels = labels.to(self._scores(output).device)
                loss = self._loss(output, labels) * len(labels) if self._loss else None
                if loss is None or not loss.requires_grad:
                    raise ValueError(
                        "the loss has no gradient, expected one through the network. "
                        "Use surrogate gradients, or do without the ascent."
                    )
                parts = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                for name, part in zip(weights, parts, strict=True):
                    if part is not None:
                        total[name] += part
                images += len(labels)
        self._reset(self._model)
        return {name: gradient.detach() / images for name, gradient in total.items()}

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._kept is not None:
            for packed, dtype, labels in self._kept:
                # A copy: a first layer that works in place must not change the images.
                yield packed.to(self._device).to(dtype, copy=True), labels
            return
        kept: list[tuple[Tensor, torch.dtype, Tensor]] = []
        room = self._room
        for batch in self._loader:
            inputs, labels = _pair(batch)
            if room > 0:
                packed = _packed(inputs)
                room -= _size(packed) + labels.nbytes
                if room >= 0:
                    kept.append((packed, inputs.dtype, labels.clone()))
                else:
                    kept.clear()
                    room = 0
            yield inputs.to(self._device), labels
        # Only a pass that has come to its end has seen all images.
        if room > 0:
            self._kept = self._near(kept)
        else:
            self._room = 0

    def _chosen(self, chosen: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield some of the kept images, in batches about as large as the largest of the loader."""
        kept = self._kept or []
        most = max(len(labels) for _, _, labels in kept)
        parts: list[tuple[Tensor, Tensor]] = []
        first = 0
        for packed, dtype, labels in kept:
            here = chosen[(chosen >= first) & (chosen < first + len(labels))] - first
            first += len(labels)
            if len(here) == 0:
                continue
            here = here.to(packed.device)
            part = packed.index_select(self._axis, here).to(self._device).to(dtype)
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
        self, kept: list[tuple[Tensor, torch.dtype, Tensor]]
    ) -> list[tuple[Tensor, torch.dtype, Tensor]]:
        """Return the images on the network's GPU where that has room for them."""
        if self._device.type != "cuda":
            return kept
        free = torch.cuda.mem_get_info(self._device)[0]
        if sum(_size(packed) for packed, _, _ in kept) > _SHARE_OF_GPU * free:
            return kept
        return [
            (packed.to(self._device), dtype, labels.to(self._device))
            for packed, dtype, labels in kept
        ]


def image_axis(batches: list[tuple[Tensor, Tensor]]) -> int:
    """Return which axis of the inputs holds the images: 1 after time, or 0.

    Args:
        batches: Inputs and labels.

    Raises:
        ValueError: If it is none of them, or could be both.
    """
    fits = [
        axis
        for axis in (0, 1)
        if all(x.dim() > axis + 1 and x.shape[axis] == len(labels) for x, labels in batches)
    ]
    if len(fits) != 1:
        shapes = sorted({tuple(x.shape) for x, _ in batches})
        raise ValueError(
            f"inputs of shapes {shapes} do not tell which axis holds the images. "
            "Pass batches of another size."
        )
    return fits[0]


def _other_shape(one: Tensor, other: Tensor, axis: int) -> bool:
    """Return whether two batches cannot be joined along an axis."""
    shapes = [(*x.shape[:axis], *x.shape[axis + 1 :]) for x in (one, other)]
    return shapes[0] != shapes[1] or one.dtype != other.dtype


def _joined(parts: list[tuple[Tensor, Tensor]], axis: int) -> tuple[Tensor, Tensor]:
    """Return several batches as one."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([x for x, _ in parts], axis), torch.cat([labels for _, labels in parts])


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of a batch."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], Tensor):
        raise TypeError(
            f"a batch of the loader is {_describe(batch)}, expected a pair (inputs, labels) of "
            "tensors. Wrap the loader."
        )
    inputs, labels = batch[0], torch.as_tensor(batch[1])
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}, expected class indices "
            "(int64) of shape [B]."
        )
    return inputs, labels


def _packed(inputs: Tensor) -> Tensor:
    """Return a copy, as bytes where that loses nothing."""
    if inputs.is_sparse:
        return inputs.detach().clone()
    if inputs.is_floating_point():
        as_bytes = inputs.clamp(0, 255).to(torch.uint8)
        if torch.equal(as_bytes.to(inputs.dtype), inputs):
            return as_bytes
    return inputs.detach().clone()


def _size(inputs: Tensor) -> int:
    """Return how many bytes a tensor takes."""
    if inputs.is_sparse:
        inputs = inputs.coalesce()
        return inputs.indices().nbytes + inputs.values().nbytes
    return inputs.nbytes


def _check_shape(scores: Any, labels: Tensor) -> None:
    """Raise unless there is a row of scores for every image."""
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != len(labels):
        raise ValueError(
            f"class scores are {_describe(scores)}, expected [{len(labels)}, classes] for "
            f"{len(labels)} labels. Return [B, classes] or [T, B, classes], or pass scores=..."
        )


def _check_labels(labels: Tensor, classes: int) -> None:
    """Raise unless every label is a class."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels range from {int(labels.min())} to {int(labels.max())}, but the network has "
            f"{classes} classes, expected 0 .. {classes - 1}."
        )


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
