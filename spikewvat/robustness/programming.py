"""Which weights of a network are worth being verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, Unpack

import torch
from torch import Generator, Tensor, nn

from spikewvat.devices.aging import at_age
from spikewvat.devices.base import DeviceModel, check_device
from spikewvat.devices.verified import ProgrammingPlan
from spikewvat.robustness.calibration import Bench
from spikewvat.robustness.evaluator import Evaluator
from spikewvat.robustness.sensitivity import squares
from spikewvat.robustness.simulate import EvaluatorOptions
from spikewvat.weights import Weights

Ranking: TypeAlias = Literal["fisher", "random", "size", "largest error", "swim"]
"""How weights are ranked; the default is the best that is known."""

_CHIPS = 16  # whose errors stand for the variance of a device


def programming_plan(
    model: nn.Module,
    loader: Iterable[Any],
    device: DeviceModel,
    budget: float = 0.1,
    *,
    cells_readable: bool = True,
    trimmed: bool = False,
    by: Ranking = "fisher",
    samples: int = 400,
    seed: int = 0,
    **options: Unpack[EvaluatorOptions],
) -> ProgrammingPlan:
    r"""Return which weights to verify, so that as many chips as possible work.

    An error d of a weight raises the loss by about :math:`F d^2 / 2`, where F is the diagonal of
    the Fisher information: the mean squared gradient of the loss of single samples. Weights are
    ranked by :math:`F d^2` where the cells of each chip can be read, and by
    :math:`F \, \mathrm{E}[d^2]` of the device otherwise.

    To first order an error also changes the loss by gradient times error, sign included. Ranking
    by that is not offered: it mends errors of one sign only and leaves a coherent displacement,
    which is far worse than random errors.

    Args:
        model: The network, with the weights to be programmed.
        loader: Batches of labelled samples, in random order, not those of the test.
        device: Device model of a single write.
        budget: Share of all weights that may be verified.
        cells_readable: Whether all cells of a chip can be read.
        trimmed: Whether chips get a :class:`~spikewvat.robustness.calibration.BiasTrim` afterwards:
            Fisher information is then that of what an offset cannot mend.
        by: ``"fisher"``; others to compare with: ``"random"``, ``"size"`` of the weight,
            ``"largest error"`` (cells must be readable), and ``"swim"``, the second derivative of
            a squared loss as in SWIM, here that of Gauss and Newton with random signs, since
            spikes have no second derivative; of equals the larger weights.
        samples: Number of samples for F, or for SWIM.
        seed: Of random rankings and signs, and of the device's errors.
        **options: Options of :class:`~spikewvat.Evaluator`; its ``loss`` is the loss.

    Returns:
        The plan, for :class:`~spikewvat.devices.Verified` or as CSV for a tester.

    Raises:
        ValueError: If an argument is out of range, or the loss has no gradient.
        DataError: If there are too few samples.
    """
    check_device(device)
    if by not in ("fisher", "random", "size", "largest error", "swim"):
        raise ValueError(
            f"by must be 'fisher', 'random', 'size', 'largest error' or 'swim', got {by!r}. The "
            "signed first-order score leaves a coherent error and is not offered."
        )
    if by == "largest error" and not cells_readable:
        raise ValueError("by='largest error' needs cells that can be read. Use by='fisher'.")
    generator = Generator().manual_seed(seed)
    with Evaluator(model, loader, **options).bench(loader) as bench:
        ideal = bench.ideal_weights
        if by == "random":
            scores = {n: torch.rand(w.shape, generator=generator) for n, w in ideal.items()}
            return ProgrammingPlan("random", budget, scores, reads=False)
        if by == "size":
            return ProgrammingPlan("size", budget, _on_cpu(_sizes(ideal)), reads=False)
        if by == "largest error":
            ones = {name: torch.ones(weight.shape) for name, weight in ideal.items()}
            return ProgrammingPlan("error^2", budget, ones, reads=True)
        if by == "swim":
            second = squares(bench, samples, _signed(bench, generator))
            return ProgrammingPlan("SWIM", budget, _ties(second, ideal), reads=False)
        fisher = squares(bench, samples, bench.loss, trimmed=trimmed)
        if cells_readable:
            return ProgrammingPlan("Fisher x error^2", budget, fisher, reads=True)
        variance = _on_cpu(mean_square_errors(device, ideal, generator))
        scores = {name: f * variance[name] for name, f in fisher.items()}
        return ProgrammingPlan("Fisher x variance", budget, scores, reads=False)


def mean_square_errors(
    device: DeviceModel, weights: Weights, generator: Generator | None = None
) -> Weights:
    """Return E[d^2] of each weight's error right after programming, float64."""
    young = at_age(device, 0.0)
    moments = young.moments(weights)
    if moments is not None:
        return {
            name: (variance + (mean - weights[name]).square()).detach().double()
            for name, (mean, variance) in moments.items()
        }
    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
    for _ in range(_CHIPS):
        for name, error in young.errors(weights, generator=generator).items():
            total[name] += error.double().square() / _CHIPS
    return total


def _signed(bench: Bench, generator: Generator) -> Callable[[Any, Tensor], Tensor]:
    """Return a sum of the class scores with random signs."""

    def loss(output: Any, labels: Tensor) -> Tensor:
        scores = bench.scores(output)
        signs = torch.randint(2, scores.shape, generator=generator).to(scores) * 2 - 1
        return (scores * signs).sum()

    return loss


def _ties(scores: Weights, weights: Weights) -> Weights:
    """Return scores in which the size of a weight decides between equals."""
    sizes = _on_cpu(_sizes(weights))
    largest = max(float(size.max()) for size in sizes.values() if size.numel())
    least = [float(s[s > 0].min()) for s in scores.values() if bool((s > 0).any())]
    grain = min(least, default=1.0) * 1e-6 / (largest or 1.0)
    return {name: score + grain * sizes[name] for name, score in scores.items()}


def _sizes(weights: Weights) -> Weights:
    return {name: weight.detach().double().abs() for name, weight in weights.items()}


def _on_cpu(scores: Weights) -> Weights:
    return {name: score.cpu() for name, score in scores.items()}
