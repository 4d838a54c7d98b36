"""Accuracy, spikes and synaptic operations against the number of time steps, in one pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters.modes import evaluating
from spikewvat.conversion.balance import images_of
from spikewvat.conversion.graph import INPUT, Node
from spikewvat.conversion.layers import Neurons
from spikewvat.conversion.network import SpikingNetwork, check_time_steps
from spikewvat.conversion.traced import SYNAPSES
from spikewvat.serialisation import Fraction
from spikewvat.spiking.fan_out import fan_out

_UNFITTED = "thresholds were fitted to another number of steps; pass fit= to fit them to each"


@dataclass(frozen=True)
class EarlyExit:
    """Result of early exit: stopping as soon as the decision is clear.

    Args:
        margin: Lead of the best class over the second, in accumulated potential, at which an image
            is decided.
        accuracy: Share of correct answers.
        mean_steps: Mean number of steps until the decision.
        within: Number of steps after which every image is decided.
    """

    margin: float
    accuracy: Fraction
    mean_steps: float
    within: int | None = None


@dataclass(frozen=True)
class TimeSweep:
    """Accuracy and cost of a network within T steps, for several T.

    Args:
        steps: Numbers of steps T.
        accuracies: Share of correct answers after T steps.
        spikes: Mean number of spikes per image, over all neurons up to step T; negative ones and
            each spike of a burst count.
        operations: Mean number of synaptic operations per image up to step T: in every step, all
            synapses after the first neurons that a non-zero input reaches.
        input_operations: Operations per image in the layers that receive the analog or coded input,
            counted once: these are multiplications, which direct coding does not repeat.
        early: Accuracy and mean steps with early exit, for each requested margin.
        images: Number of images tested.
        fitted: Whether the thresholds belong to each number of steps, or to none.
    """

    steps: tuple[int, ...]
    accuracies: tuple[Fraction, ...]
    spikes: tuple[float, ...]
    operations: tuple[float, ...]
    input_operations: float
    early: tuple[EarlyExit, ...]
    images: int
    fitted: bool = True

    def __post_init__(self) -> None:
        """Check that all figures are for the same numbers of steps."""
        for name in ("accuracies", "spikes", "operations"):
            if not self.steps or len(getattr(self, name)) != len(self.steps):
                raise ValueError(
                    f"{name} are {len(getattr(self, name))} figures, expected one for each of "
                    f"{len(self.steps)} numbers of steps, and at least one."
                )

    def __str__(self) -> str:
        rows = zip(self.steps, self.accuracies, self.spikes, self.operations, strict=True)
        lines = [
            f"T = {t:>5}: {100 * accuracy:6.2f} %, {spikes:.3g} spikes, {operations:.3g} synaptic "
            "operations per image"
            for t, accuracy, spikes, operations in rows
        ]
        lines += [
            f"exit at a lead of {e.margin:g}"
            + (f" within {e.within} steps" if e.within else "")
            + f": {100 * e.accuracy:6.2f} % after {e.mean_steps:.1f} steps"
            for e in self.early
        ]
        if not self.fitted:
            lines.append(_UNFITTED)
        return "\n".join(lines)


@torch.no_grad()
def sweep_time(
    snn: SpikingNetwork,
    loader: Iterable[Any],
    steps: Sequence[int] = (8, 16, 32, 64, 128),
    *,
    fit: Callable[[SpikingNetwork], object] | None = None,
    margins: Sequence[float] = (),
) -> TimeSweep:
    """Test a network after several numbers of steps.

    Thresholds that were fitted to one number of steps are worse at others. With ``fit``, each T has
    thresholds of its own and a pass of its own; without it, all are read from a single pass.

    Args:
        snn: A converted network; it is not changed.
        loader: Test batches ``(images, labels)``.
        steps: Numbers of steps T to report, each at least 1.
        fit: Called with a copy of the network, whose ``time_steps`` is T, for each T; balances its
            thresholds: ``lambda net: balance(net, calibration)``.
        margins: Also report early exit at these leads of the best class over the second, in
            accumulated potential (scores times steps), each at least 0: for each T with ``fit``,
            else for the longest.

    Returns:
        Accuracies and costs.

    Raises:
        ValueError: If a number of steps or a margin is out of range, or there are no images.
        TypeError: If a batch holds no tensor.

    Example:
        >>> from spikewvat.conversion import balance, convert
        >>> ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> images = torch.rand(32, 4)
        >>> snn = convert(ann, [images], time_steps=8)
        >>> test = [(images, ann(images).argmax(1))]
        >>> sweep_time(snn, test, [2, 4], fit=lambda net: balance(net, [images])).steps
        (2, 4)
    """
    if not steps:
        raise ValueError("steps is empty, expected at least one number, such as [16, 64].")
    for step in steps:
        check_time_steps(step)
    for margin in margins:
        if not margin >= 0:
            raise ValueError(f"margins must be at least 0, got {margin!r}.")
    ordered = sorted(set(steps))
    if fit is None:
        found = _Pass(snn, loader, ordered[-1], margins)
        return _sweep([(step, found) for step in ordered], (found,), fitted=_fits(snn, ordered))
    passes = []
    for step in ordered:
        own = copy.deepcopy(snn)
        own.time_steps = step
        fit(own)
        passes.append(_Pass(own, loader, step, margins))
    return _sweep(list(zip(ordered, passes, strict=True)), tuple(passes), fitted=True)


def _fits(snn: SpikingNetwork, steps: list[int]) -> bool:
    return snn.fitted_steps is None or steps == [snn.fitted_steps]


class _Pass:
    """What a test over so many steps finds; counts are totals after each step."""

    def __init__(
        self, snn: SpikingNetwork, loader: Iterable[Any], longest: int, margins: Sequence[float]
    ) -> None:
        self.longest, self.margins = longest, margins
        self.right = torch.zeros(longest, dtype=torch.float64)
        self.sure_right, self.sure_steps = torch.zeros(len(margins)), torch.zeros(len(margins))
        self.images = 0
        self.cost = _Cost(snn, longest)
        with evaluating(snn):
            for batch in loader:
                images = images_of(batch, snn)
                self._count(snn, images, torch.as_tensor(batch[1]).to(images.device))
        if self.images == 0:
            raise ValueError("the loader yields no images, expected test batches.")

    def _count(self, snn: SpikingNetwork, images: Tensor, labels: Tensor) -> None:
        self.cost.start()
        outputs = list(snn.outputs(images, time_steps=self.longest, observe=self.cost))
        potential = torch.cat(outputs).double().cumsum(0)
        correct = potential.argmax(2) == labels
        self.right += correct.double().sum(1).cpu()
        best = potential.topk(2, dim=2).values if self.margins else potential
        for index, margin in enumerate(self.margins):
            sure = best[..., 0] - best[..., 1] >= margin
            sure[-1] = True
            first = sure.int().argmax(0)
            self.sure_steps[index] += (first + 1).sum().cpu()
            self.sure_right[index] += correct.gather(0, first[None]).sum().cpu()
        self.images += len(labels)

    def early(self) -> list[EarlyExit]:
        """Return what early exit within this time gives."""
        return [
            EarlyExit(m, float(r) / self.images, float(s) / self.images, self.longest)
            for m, r, s in zip(self.margins, self.sure_right, self.sure_steps, strict=True)
        ]


def _sweep(at: list[tuple[int, _Pass]], passes: tuple[_Pass, ...], *, fitted: bool) -> TimeSweep:
    return TimeSweep(
        steps=tuple(step for step, _ in at),
        accuracies=tuple(float(found.right[step - 1]) / found.images for step, found in at),
        spikes=tuple(
            found.cost.until(found.cost.spikes, step) / found.images for step, found in at
        ),
        operations=tuple(
            found.cost.until(found.cost.operations, step) / found.images for step, found in at
        ),
        input_operations=passes[-1].cost.of_input / passes[-1].images,
        early=tuple(exit for found in passes for exit in found.early()),
        images=passes[-1].images,
        fitted=fitted,
    )


@torch.no_grad()
def early_exit(snn: SpikingNetwork, images: Tensor, margin: float) -> tuple[Tensor, int]:
    """Classify images and stop as soon as all of them are decided.

    Thresholds should be fitted to about as many steps as decisions take: ``sweep_time`` with
    ``fit`` and ``margins`` shows which T, and margin, give the best accuracy for the steps.

    Args:
        snn: A converted network; its mode is not changed.
        images: ``[B, ...]``; to stop for each image separately, pass one at a time.
        margin: Lead of the best class over the second, in accumulated potential, at which an image
            is decided; the image keeps that class.

    Returns:
        Classes ``[B]``, and the number of steps run.

    Raises:
        ValueError: If ``margin`` is negative.
    """
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin!r}.")
    potential: Tensor | None = None
    answer: Tensor | None = None
    decided: Tensor | None = None
    done = 0
    for outputs in snn.outputs(images):
        for output in outputs:
            potential = output.clone() if potential is None else potential + output
            done += 1
            best = potential.topk(2, dim=1)
            lead = best.values[:, 0] - best.values[:, 1]
            classes = best.indices[:, 0]
            sure = lead >= margin
            if answer is None or decided is None:
                answer, decided = classes, sure
            else:
                answer, decided = torch.where(decided, answer, classes), decided | sure
            if bool(decided.all()):
                return answer, done
    assert answer is not None  # there is at least one step
    return answer, done


class _Cost:
    """Counts spikes and the synapses that they reach, step by step."""

    def __init__(self, snn: SpikingNetwork, time_steps: int) -> None:
        self._snn = snn
        time_steps += snn.steps_before
        self.spikes = torch.zeros(time_steps, dtype=torch.float64)
        self.operations = torch.zeros(time_steps, dtype=torch.float64)
        self.of_input = 0.0
        self._fan_out: dict[str, Tensor] = {}
        self.start()

    def start(self) -> None:
        """Start a new batch."""
        self._at: dict[str, int] = {}
        self._analog = {INPUT}
        self._bursts: dict[str, Tensor] = {}

    def until(self, counts: Tensor, step: int) -> float:
        """Return the total up to a step, with all that a correction ran before the first one."""
        return float(counts[: self._snn.steps_before + step].sum())

    def __call__(self, node: Node, inputs: tuple[Tensor, ...], output: Tensor | None) -> None:
        module = self._snn.layers.get_submodule(node.path)
        steps = slice(self._at.get(node.name, 0), None)
        if isinstance(module, Neurons):
            assert output is not None
            steps = slice(steps.start, steps.start + len(output))
            if module.dynamics.burst > 1:
                output = self._bursts[node.name] = module.counts(output)
                self.spikes[steps] += output.flatten(1).sum(1).double().cpu()
            else:
                self.spikes[steps] += output.flatten(1).count_nonzero(1).double().cpu()
            self._at[node.name] = steps.stop
            return
        if isinstance(module, nn.Flatten) and node.inputs[0] in self._bursts:
            self._bursts[node.name] = self._bursts[node.inputs[0]].flatten(2)
        if self._analog.issuperset(node.inputs):
            self._analog.add(node.name)
        if not isinstance(module, SYNAPSES):
            return
        reached = self._reached(node.name, module, inputs[0])
        if node.inputs[0] in self._analog:
            if steps.start == 0:
                self.of_input += float(reached.sum()) * inputs[0].shape[1]
                self._at[node.name] = 1
            return
        arriving = self._bursts.get(node.inputs[0], inputs[0].ne(0))  # pooled bursts are one event
        events = arriving.to(reached.dtype).flatten(2) @ reached.flatten()
        events = events.double().sum(1).cpu()  # whole numbers, exact in float32 for one image
        steps = slice(steps.start, steps.start + len(events))
        self.operations[steps] += events
        self._at[node.name] = steps.stop

    def _reached(self, name: str, module: nn.Module, x: Tensor) -> Tensor:
        """Return the number of synapses of each input of a layer, allowing for image borders."""
        if name not in self._fan_out:
            self._fan_out[name] = fan_out(module, x[0, :1])[0]
        return self._fan_out[name]
