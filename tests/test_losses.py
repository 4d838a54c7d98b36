"""Losses against their equations written out."""

from __future__ import annotations

import math

import pytest
import torch

from spikewvat.spiking.losses import class_scores, mse_count, rate_cross_entropy

SPIKES = (torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.4).double()
LABELS = torch.tensor([0, 3, 2])


def test_cross_entropy_is_that_of_the_counts():
    counts = SPIKES.sum(0).tolist()
    losses = [
        math.log(sum(math.exp(n) for n in row)) - row[label]
        for row, label in zip(counts, LABELS.tolist(), strict=True)
    ]
    expected = torch.tensor(sum(losses) / 3, dtype=torch.float64)
    torch.testing.assert_close(rate_cross_entropy(SPIKES, LABELS), expected)


def test_mse_count_written_out():
    total = 0.0
    for b, label in enumerate(LABELS.tolist()):
        for c in range(4):
            rate = sum(SPIKES[t, b, c].item() for t in range(5)) / 5
            total += (rate - (0.7 if c == label else 0.2)) ** 2
    expected = torch.tensor(total / 12, dtype=torch.float64)
    torch.testing.assert_close(mse_count(SPIKES, LABELS, correct=0.7, incorrect=0.2), expected)


@pytest.mark.parametrize("loss", [rate_cross_entropy, mse_count])
def test_spikes_first_of_a_tuple(loss):
    assert torch.equal(loss((SPIKES, SPIKES * 7), LABELS), loss(SPIKES, LABELS))


def test_more_spikes_of_the_right_class_lower_the_loss():
    right = torch.zeros(5, 1, 2)
    right[:3, 0, 1] = 1
    for loss in (rate_cross_entropy, mse_count):
        assert loss(right, torch.tensor([1])) < loss(right, torch.tensor([0]))


def test_counts_are_exact_in_bf16():
    spikes = torch.ones(999, 1, 2, dtype=torch.bfloat16)
    assert class_scores(spikes).tolist() == [[999.0, 999.0]]


def test_scores_pass_through():
    assert torch.equal(class_scores(SPIKES[0]), SPIKES[0])


def test_wrong_shapes_and_targets():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 5\), expected \[T, B, classes\]"):
        class_scores(torch.zeros(2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"shape \(3, 4\), expected \[T, B, classes\]"):
        mse_count(torch.zeros(3, 4), LABELS)
    with pytest.raises(ValueError, match=r"correct=0.1, incorrect=0.5"):
        mse_count(SPIKES, LABELS, correct=0.1, incorrect=0.5)
