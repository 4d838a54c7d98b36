"""Classify the images of a test set with the weights of one chip or several chips."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from spikewvat.robustness.draws import Draws
from spikewvat.robustness.images import Batch, Images, described
from spikewvat.robustness.stacked import Stack
from spikewvat.spiking.losses import class_scores
from spikewvat.weights import Weights, taken

Scores: TypeAlias = Callable[[Any], Tensor]
"""Function from a network's output to class scores ``[B, classes]``."""

ChipLoss: TypeAlias = Callable[[Any, Tensor], Tensor]
"""Function from a network's output and labels to the mean loss of the batch, a 0-dim tensor."""

_Forward: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""Function from inputs and labels to scores ``[chips, B, classes]`` and any losses ``[chips]``."""

_MANY, _ENOUGH = 10, 50  # outputs for each label, and images, that are no accident


class Answers(NamedTuple):
    """How a chip did on the images.

    Args:
        accuracy: Share of correct answers.
        loss: Mean loss over images, NaN without a loss.
        right: Whether each image was classified correctly ``[images]``, on the CPU.
    """

    accuracy: float
    loss: float
    right: Tensor


@dataclass(frozen=True)
class TestSet:
    """A network in evaluation mode and its test images.

    Args:
        model: The network; tested with the weights that it holds at the time.
        images: The images that it classifies.
        device: Device of the inputs.
        reset: Resets all neuron state of the network.
        scores: Function from an output to class scores ``[B, classes]``; None sums over time and
            raises if there seem to be several outputs per class.
        loss: Function from output and labels to the mean loss of the batch, or None.
        autocast: Lower precision of the forward passes, None for that of the weights.
        draws: Seeds the random numbers that the network draws.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    model: nn.Module
    images: Images
    device: torch.device
    reset: Callable[[nn.Module], None]
    scores: Scores | None
    loss: ChipLoss | None
    autocast: torch.dtype | None
    draws: Draws

    def evaluate(self, what: str, chosen: Tensor | None = None, seed: int = 0) -> Answers:
        """Classify all images.

        Args:
            what: Description of the weights, for messages.
            chosen: Indices of the images to use, after :meth:`Images.load`; by default all.
            seed: Seed of the random numbers that the network draws.

        Raises:
            ValueError: If there are no images, or different ones than before; if outputs have an
                unexpected shape or are NaN; if labels are out of range.
            TypeError: If a batch is not a pair of tensors.
        """

        def forward(inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            self.reset(self.model)
            reduced = self._reduced(self.model(inputs), labels)
            return tuple(part.unsqueeze(0) for part in reduced)

        images = self.images
        batches = images.batches if chosen is None else partial(images.chosen, chosen)
        return self._evaluated(forward, [what], batches(self.device), seed)[0]

    def evaluate_stacked(
        self, stack: Stack, chips: list[Weights], whats: list[str]
    ) -> list[Answers]:
        """Classify all images on several chips at once.

        Args:
            stack: Stack for the same network.
            chips: Weights of each chip.
            whats: Description of each chip, for messages.

        Returns:
            As :meth:`evaluate`, for each chip.

        Raises:
            NotStackableError: If a layer does not support stacked weights.
            ValueError: As :meth:`evaluate`.
        """

        def forward(inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            return stack.outputs(inputs, chips, lambda output: self._reduced(output, labels))

        return self._evaluated(forward, whats, self.images.batches(self.device))

    def _reduced(self, output: Any, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the scores and, if there is one, the loss."""
        scores = self.class_scores(output)
        _check_shape(scores, labels)
        if scores.shape[1] not in self.images.class_counts:
            _check_labels(labels, scores.shape[1])
        if self.loss is None:
            return (scores,)
        return scores, torch.as_tensor(self.loss(output, labels.to(scores.device)))

    def _evaluated(
        self, forward: _Forward, whats: list[str], batches: Iterable[Batch], seed: int = 0
    ) -> list[Answers]:
        """Return the answers of each chip; waits for a GPU once, at the end."""
        answers: list[tuple[Tensor, Tensor]] = []
        lost: list[Tensor] = []
        losses: list[Tensor] = []
        sizes: list[int] = []
        with self.draws.forked([self.device]):
            for index, (inputs, labels) in enumerate(batches):
                with self._pass(seed, index):
                    scores, *loss = forward(inputs, labels)
                answers.append((scores.argmax(2), labels.to(scores.device)))
                lost.append(scores.isnan().any(2).sum(1))
                losses.extend(loss)
                sizes.append(len(labels))
        images = sum(sizes)
        for what, count in zip(whats, torch.stack(lost).sum(0).tolist(), strict=True):
            if count:
                raise ValueError(
                    f"scores are NaN for {count} of {images} images on {what}. "
                    "Check the inputs, and normalisation layers for divisions by zero."
                )
        if images == self.images.count and scores.shape[2] not in self.images.class_counts:
            if self.scores is None:
                _check_population(answers, scores.shape[2])
            self.images.class_counts.add(scores.shape[2])
        right = torch.cat([given == labels for given, labels in answers], 1).cpu()
        means = [math.nan] * len(right)
        if self.loss is not None:
            by_batch = torch.stack(losses).cpu().double()
            means = (torch.tensor(sizes, dtype=torch.float64) @ by_batch / images).tolist()
        return [
            Answers(int(own.sum()) / images, loss, own)
            for own, loss in zip(right, means, strict=True)
        ]

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
                f"weights {', '.join(map(repr, frozen))} are frozen, expected parameters that "
                "require gradients. Call requires_grad_() on them, or leave out the ascent."
            )
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        with torch.enable_grad(), taken(weights), self.draws.forked([self.device]):
            for index, (inputs, labels) in enumerate(self.images.batches(self.device)):
                self.reset(self.model)
                with self._pass(0, index):
                    output = self.model(inputs)
                    labels = labels.to(self.class_scores(output).device)
                    loss = self.loss(output, labels) * len(labels) if self.loss else None
                if loss is None or not loss.requires_grad:
                    raise ValueError(
                        "the loss has no gradient with respect to the weights. Use surrogate "
                        "gradients, or leave out the ascent."
                    )
                parts = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                for name, part in zip(weights, parts, strict=True):
                    if part is not None:
                        total[name] += part
        self.reset(self.model)
        images = self.images.count
        return {name: gradient.detach() / images for name, gradient in total.items()}

    def class_scores(self, output: Any) -> Tensor:
        """Return the scores ``[B, classes]`` of an output."""
        return class_scores(output) if self.scores is None else self.scores(output)

    @contextmanager
    def _pass(self, seed: int, batch: int) -> Iterator[None]:
        """Run a pass in the requested precision, with a chip's random state."""
        precision = torch.autocast(
            self.device.type, self.autocast, enabled=self.autocast is not None
        )
        with self.draws.of(seed, batch, [self.device]), precision:
            yield


def _check_shape(scores: Any, labels: Tensor) -> None:
    """Raise unless there is one row of scores per image."""
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != len(labels):
        raise ValueError(
            f"class scores are {described(scores)}, expected [{len(labels)}, classes] for "
            f"{len(labels)} labels. Return [B, classes] or [T, B, classes], or pass scores=..."
        )


def _check_labels(labels: Tensor, classes: int) -> None:
    """Raise unless every label is a class index."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels range from {int(labels.min())} to {int(labels.max())}, but the network has "
            f"{classes} classes, expected 0 .. {classes - 1}."
        )


def _check_population(answers: list[tuple[Tensor, Tensor]], outputs: int) -> None:
    """Raise if there seem to be several outputs per class."""
    labels = torch.cat([labels for _, labels in answers])
    given = torch.cat([own for own, _ in answers], 1)[0]
    classes, images = int(labels.max()) + 1, len(labels)
    if classes < 2 or outputs < 2 * classes or outputs % classes:
        return
    if len(set(labels.tolist())) < classes or 2 * int((given >= classes).sum()) < images:
        return
    # Of the answers, as neighbours for each class, so many are right; by chance, far fewer.
    each = outputs // classes
    right = float((given // each == labels).double().mean())
    luck = 1 / classes + 4 * math.sqrt((classes - 1) / images) / classes
    if right > luck or (each >= _MANY and images >= _ENOUGH):
        raise ValueError(
            f"labels are 0 .. {classes - 1}, but the network has {outputs} outputs and mostly "
            f"answers with higher ones. If {each} outputs stand for each class, pass "
            f"scores=population_scores({classes}) from spikewvat.robustness; if there are "
            f"{outputs} classes, pass scores=class_scores from there."
        )
