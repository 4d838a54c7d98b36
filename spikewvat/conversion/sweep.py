"""Accuracy, spikes and synaptic operations against the number of time steps, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.conversion.balance import images_of
from spikewvat.conversion.graph import INPUT, Node
from spikewvat.conversion.layers import Neurons
from spikewvat.conversion.network import SpikingNetwork, check_time_steps
from spikewvat.serialisation import Fraction
from spikewvat.spiking.fan_out import fan_out


@dataclass(frozen=True)
class EarlyExit:
    """Result of early exit: stopping as soon as the decision is clear.

    Args:
        margin: Lead of the best class over the second, in accumulated potential, at which an image
            is decided.
        accuracy: Share of correct answers.
        mean_steps: Mean number of steps until the decision.
    """

    margin: float
    accuracy: Fraction
    mean_steps: float


@dataclass(frozen=True)
class TimeSweep:
    """Accuracy and cost of a network within T steps, for several T.

    Args:
        steps: Numbers of steps T.
        accuracies: Share of correct answers after T steps.
        spikes: Mean number of spikes per image, over all neurons up to step T.
        operations: Mean number of synaptic operations per image up to step T: in every step, all
            synapses after the first neurons that a non-zero input reaches.
        input_operations: Operations per image in the layers that receive the analog or coded input,
            counted once: these are multiplications, which direct coding does not repeat.
        early: Accuracy and mean steps with early exit, for each requested margin.
        images: Number of images tested.
    """

    steps: tuple[int, ...]
    accuracies: tuple[Fraction, ...]
    spikes: tuple[float, ...]
    operations: tuple[float, ...]
    input_operations: float
    early: tuple[EarlyExit, ...]
    images: int

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
            f"exit at a lead of {e.margin:g}: {100 * e.accuracy:6.2f} % after {e.mean_steps:.1f} "
            "steps"
            for e in self.early
        ]
        return "\n".join(lines)


@torch.no_grad()
def sweep_time(
    snn: SpikingNetwork,
    loader: Iterable[Any],
    steps: Sequence[int] = (8, 16, 32, 64, 128),
    *,
    margins: Sequence[float] = (),
) -> TimeSweep:
    """Test a network once over the longest time and evaluate its output at every step.

    Args:
        snn: A converted network.
        loader: Test batches ``(images, labels)``.
        steps: Numbers of steps T to report, each at least 1.
        margins: Also report early exit at these leads of the best class over the second, in
            accumulated potential (scores times steps), each at least 0.

    Returns:
        Accuracies and costs.

    Raises:
        ValueError: If a number of steps or a margin is out of range, or there are no images.
        TypeError: If a batch holds no tensor.
    """
    if not steps:
        raise ValueError("steps is empty, expected at least one number, such as [16, 64].")
    for step in steps:
        check_time_steps(step)
    for margin in margins:
        if not margin >= 0:
            raise ValueError(f"margins must be at least 0, got {margin!r}.")
    ordered = sorted(set(steps))
    longest = ordered[-1]
    cost = _Cost(snn, longest)
    right = torch.zeros(longest, dtype=torch.float64)
    sure_right, sure_steps = torch.zeros(len(margins)), torch.zeros(len(margins))
    images_seen = 0
    training = snn.training
    try:
        snn.eval()
        for batch in loader:
            images = images_of(batch, snn)
            labels = torch.as_tensor(batch[1]).to(images.device)
            cost.start()
            outputs = list(snn.outputs(images, time_steps=longest, observe=cost))
            potential = torch.cat(outputs).double().cumsum(0)
            correct = potential.argmax(2) == labels
            right += correct.double().sum(1).cpu()
            best = potential.topk(2, dim=2).values if margins else potential
            for index, margin in enumerate(margins):
                sure = best[..., 0] - best[..., 1] >= margin
                sure[-1] = True
                first = sure.int().argmax(0)
                sure_steps[index] += (first + 1).sum().cpu()
                sure_right[index] += correct.gather(0, first[None]).sum().cpu()
            images_seen += len(labels)
    finally:
        snn.train(training)
    if images_seen == 0:
        raise ValueError("the loader yields no images, expected test batches.")
    at = torch.tensor(ordered) - 1
    return TimeSweep(
        steps=tuple(ordered),
        accuracies=tuple((right[at] / images_seen).tolist()),
        spikes=tuple((cost.spikes.cumsum(0)[at] / images_seen).tolist()),
        operations=tuple((cost.operations.cumsum(0)[at] / images_seen).tolist()),
        input_operations=cost.of_input / images_seen,
        early=tuple(
            EarlyExit(m, float(r) / images_seen, float(s) / images_seen)
            for m, r, s in zip(margins, sure_right, sure_steps, strict=True)
        ),
        images=images_seen,
    )


@torch.no_grad()
def early_exit(snn: SpikingNetwork, images: Tensor, margin: float) -> tuple[Tensor, int]:
    """Classify images and stop as soon as all of them are decided.

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
        self.spikes = torch.zeros(time_steps, dtype=torch.float64)
        self.operations = torch.zeros(time_steps, dtype=torch.float64)
        self.of_input = 0.0
        self._fan_out: dict[str, Tensor] = {}
        self.start()

    def start(self) -> None:
        """Start a new batch."""
        self._at: dict[str, int] = {}
        self._analog = {INPUT}

    def __call__(self, node: Node, inputs: tuple[Tensor, ...], output: Tensor | None) -> None:
        module = self._snn.layers.get_submodule(node.path)
        steps = slice(self._at.get(node.name, 0), None)
        if isinstance(module, Neurons):
            assert output is not None
            steps = slice(steps.start, steps.start + len(output))
            self.spikes[steps] += output.flatten(1).count_nonzero(1).double().cpu()
            self._at[node.name] = steps.stop
            return
        if self._analog.issuperset(node.inputs):
            self._analog.add(node.name)
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            return
        reached = self._reached(node.name, module, inputs[0])
        if node.inputs[0] in self._analog:
            if steps.start == 0:
                self.of_input += float(reached.sum()) * inputs[0].shape[1]
                self._at[node.name] = 1
            return
        events = inputs[0].ne(0).to(reached.dtype).flatten(2) @ reached.flatten()
        events = events.double().sum(1).cpu()  # whole numbers, exact in float32 for one image
        steps = slice(steps.start, steps.start + len(events))
        self.operations[steps] += events
        self._at[node.name] = steps.stop

    def _reached(self, name: str, module: nn.Module, x: Tensor) -> Tensor:
        """Return the number of synapses of each input of a layer, allowing for image borders."""
        if name not in self._fan_out:
            self._fan_out[name] = fan_out(module, x[0, :1])[0]
        return self._fan_out[name]
