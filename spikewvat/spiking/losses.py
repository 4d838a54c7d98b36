"""Losses on output spikes ``[T, B, classes]``; the class that fires most is the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Output: TypeAlias = Tensor | Sequence[Tensor]
"""What a network returns: output spikes, or a tuple of them and other records, spikes first."""

_RECORDS = 4  # a neuron returns so many at most: spikes, two currents and the potential


def class_scores(output: Output) -> Tensor:
    """Return the score of every class: how often its output neuron fired.

    Args:
        output: Output spikes ``[T, B, classes]``, or a tuple ``(spikes, potentials, ...)`` as
            snnTorch networks return; scores ``[B, classes]`` pass through.

    Returns:
        Spike counts ``[B, classes]``, at least in float32.

    Raises:
        ValueError: If the output has other dimensions, is a list of steps, or does not come first.

    Example:
        >>> class_scores(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])).tolist()
        [[2.0, 1.0]]
    """
    spikes = output if isinstance(output, Tensor) else _first(output)
    if spikes.dim() not in (2, 3):
        raise ValueError(
            f"network output has shape {tuple(spikes.shape)}, expected [T, B, classes]. "
            "Flatten the last layer's output, time first."
        )
    if spikes.dtype in (torch.float16, torch.bfloat16):
        spikes = spikes.float()  # counts above 256 are not exact in bf16
    return spikes.sum(0) if spikes.dim() == 3 else spikes


def _first(output: Sequence[Tensor]) -> Tensor:
    """Return the output spikes of several records; a list of steps would be its first step."""
    try:
        first = output[0]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"network output is a {type(output).__name__}, expected output spikes, or a tuple with "
            'them first. Pass scores=lambda output: output["logits"], or what holds them there.'
        ) from error
    steps = len(output) > _RECORDS or (isinstance(output, list) and len(output) > 1)
    if not isinstance(first, Tensor) or (first.dim() == 2 and steps):
        raise ValueError(
            f"network output is a {type(output).__name__} of {len(output)} entries, expected "
            "output spikes, or a tuple with them first. Return torch.stack(steps) for a list of "
            "steps."
        )
    return first


def population_scores(classes: int) -> Callable[[Output], Tensor]:
    """Return the scores of a network with several outputs for each class.

    The outputs of a class are neighbours, as in snnTorch's ``population_code``: of 500 outputs for
    10 classes the first 50 stand for class 0.

    Args:
        classes: How many there are, at least 1.

    Returns:
        From outputs, as :func:`class_scores` takes them, to scores ``[B, classes]``.

    Raises:
        ValueError: If ``classes`` is below 1. When called: if outputs are no multiple of it.

    Example:
        >>> population_scores(2)(torch.tensor([[1.0, 1.0, 0.0, 3.0]])).tolist()
        [[2.0, 3.0]]
    """
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes!r}.")

    def scores(output: Output) -> Tensor:
        counts = class_scores(output)
        if counts.shape[1] % classes:
            raise ValueError(
                f"the network has {counts.shape[1]} outputs, expected a multiple of {classes}, "
                "the number of classes."
            )
        return counts.reshape(len(counts), classes, -1).sum(2)

    return scores


def rate_cross_entropy(output: Output, labels: Tensor) -> Tensor:
    r"""Cross-entropy of a softmax over spike counts.

    .. math:: L = -\frac1B \sum_b \log \frac{e^{n_{b,y_b}}}{\sum_c e^{n_{b,c}}},
        \qquad n_{b,c} = \sum_t s_{t,b,c}

    Counts, not rates, are the logits: they span the range that a softmax needs, so no
    temperature is left to choose.

    Args:
        output: Output spikes ``[T, B, classes]``, or a tuple with them first.
        labels: Class indices ``[B]``, int64.

    Returns:
        The mean over the batch, a 0-dim tensor.

    Example:
        >>> spikes = torch.zeros(4, 1, 2)
        >>> round(rate_cross_entropy(spikes, torch.tensor([0])).item(), 4)
        0.6931
    """
    return functional.cross_entropy(class_scores(output), labels)


def mse_count(
    output: Output, labels: Tensor, *, correct: float = 0.6, incorrect: float = 0.1
) -> Tensor:
    r"""Mean squared distance of firing rates from a target for the right and the wrong classes.

    .. math:: L = \frac1{BC} \sum_{b,c} \left(\frac{n_{b,c}}{T} - r_{b,c}\right)^2, \qquad
        r_{b,c} = \begin{cases} \text{correct} & c = y_b \\ \text{incorrect} & \text{else}
        \end{cases}

    Args:
        output: Output spikes ``[T, B, classes]``, or a tuple with them first.
        labels: Class indices ``[B]``, int64.
        correct: Target of the labelled class, spikes per time step, between 0 and 1.
        incorrect: Target of all others, spikes per time step, at least 0 and below ``correct``.

    Returns:
        The mean over batch and classes, a 0-dim tensor.

    Raises:
        ValueError: If the targets are out of order or the output has no time axis.

    Example:
        >>> spikes = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
        >>> mse_count(spikes, torch.tensor([0]), correct=0.5, incorrect=0.0).item()
        0.0
    """
    if not 0 <= incorrect < correct <= 1:
        raise ValueError(
            "mse_count needs 0 <= incorrect < correct <= 1, "
            f"got correct={correct!r}, incorrect={incorrect!r}."
        )
    spikes = output if isinstance(output, Tensor) else output[0]
    if spikes.dim() != 3:
        raise ValueError(
            f"network output has shape {tuple(spikes.shape)}, expected [T, B, classes]."
        )
    rates = class_scores(spikes) / spikes.shape[0]
    targets = torch.full_like(rates, incorrect)
    targets.scatter_(1, labels[:, None], correct)
    return functional.mse_loss(rates, targets)
