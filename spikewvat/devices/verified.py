"""Selective write-verify: some weights are written again until they are right."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from spikewvat import files
from spikewvat.devices.aging import AtRandomAge, at_age, changes_with_age, kept_share
from spikewvat.devices.base import DeviceModel, check_probability, nested
from spikewvat.errors import DataError
from spikewvat.weights import Weights, check_matching

_HEADER = ["rank", "weight", "index", "importance"]


@dataclass(frozen=True, eq=False)
class ProgrammingPlan:
    """Which weights of a network to verify.

    Args:
        by: How they were ranked, in words.
        budget: Share of all weights that is verified, from 0 to 1.
        importance: Of each weight, at least 0.
        reads: Whether every cell of a chip is read first: the importance is then multiplied by the
            square of the weight's error, so that each chip has weights of its own verified.

    Raises:
        ValueError: If ``budget`` is no share.
    """

    by: str
    budget: float
    importance: Weights
    reads: bool

    def __post_init__(self) -> None:
        check_probability("budget", self.budget)

    @property
    def count(self) -> int:
        """Number of weights that are verified."""
        return round(self.budget * sum(score.numel() for score in self.importance.values()))

    def at(self, budget: float) -> ProgrammingPlan:
        """Return the plan with another share of the weights."""
        return replace(self, budget=budget)

    def chosen(self, errors: Weights) -> dict[str, Tensor]:
        """Return which weights of a chip are verified, as masks; of equals the first ones.

        Args:
            errors: What each weight of the chip is off by.

        Raises:
            ValueError: If names or shapes are not those of the plan.
        """
        check_matching(self.importance, errors, what="the chip")
        scores = [
            (
                score.double() * errors[name].detach().cpu().double().square()
                if self.reads
                else score
            )
            .flatten()
            .double()
            for name, score in self.importance.items()
        ]
        ranked = torch.cat(scores).sort(descending=True, stable=True).indices
        mask = torch.zeros(len(ranked), dtype=torch.bool)
        mask[ranked[: self.count]] = True
        parts = torch.split(mask, [score.numel() for score in scores])
        return {
            name: part.view_as(errors[name]).to(errors[name].device)
            for name, part in zip(self.importance, parts, strict=True)
        }

    def to_csv(self, path: Path | str) -> None:
        """Write the plan for a tester: one weight a line, the most important first.

        Raises:
            CheckpointError: If the file cannot be written.
        """
        names = [name for name, score in self.importance.items() for _ in range(score.numel())]
        places = [i for score in self.importance.values() for i in range(score.numel())]
        scores = torch.cat([score.flatten().double() for score in self.importance.values()])
        order = scores.sort(descending=True, stable=True).indices.tolist()
        lines = [
            f"# by={self.by}; budget={self.budget!r}; reads={self.reads}",
            ",".join(_HEADER),
            *(f"{n},{names[i]},{places[i]},{scores[i].item()!r}" for n, i in enumerate(order)),
        ]
        files.write_atomic(Path(path), "\n".join(lines) + "\n")

    @classmethod
    def from_csv(cls, path: Path | str, weights: Mapping[str, Tensor]) -> ProgrammingPlan:
        """Read a plan that :meth:`to_csv` has written.

        Args:
            path: The file.
            weights: The network's weights by name, for their shapes.

        Raises:
            DataError: If the file is missing or malformed, or not for these weights.
        """
        try:
            first, *rows = Path(path).read_text(encoding="utf-8").splitlines()
            said = dict(part.split("=", 1) for part in first.removeprefix("# ").split("; "))
            by, budget, reads = said["by"], float(said["budget"]), said["reads"] == "True"
            found = {n: torch.full((w.numel(),), math.nan).double() for n, w in weights.items()}
            for row in csv.DictReader(rows):
                found[row["weight"]][int(row["index"])] = float(row["importance"])
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(
                f"{str(path)!r} is no programming plan for these weights ({error!r}). Pass a file "
                "written by ProgrammingPlan.to_csv for this network."
            ) from error
        for name, score in found.items():
            if bool(score.isnan().any()):
                raise DataError(
                    f"{str(path)!r} lacks {int(score.isnan().sum())} of {len(score)} entries of "
                    f"weight {name!r}. Write the plan again for this network."
                )
        shaped = {n: score.view(weights[n].shape) for n, score in found.items()}
        return cls(by, budget, shaped, reads)

    def __repr__(self) -> str:
        return f"ProgrammingPlan({self.by}, {100 * self.budget:g} %)"


@dataclass(frozen=True, eq=False)
class Verified(DeviceModel):
    r"""A device on which the weights of a plan are written again until they are right.

    Without ``cycles``, the error of a verified weight shrinks to the share ``residual`` of what it
    was. With them, it is written afresh, with a new error each time, until it is within
    ``residual`` standard deviations of its layer's errors, but at most so many times; the best
    attempt stays. Verification follows programming at once. What the device does with time comes
    on top; removed errors are taken to have shrunk by their layer's mean drift.

    Args:
        device: Device model of a single write.
        programming: The plan, which weights to verify.
        residual: What remains of an error, as a share; above 0, at most 1.
        cycles: Most writes of one weight after the first; None for the ideal outcome.

    Raises:
        ValueError: If ``residual`` or ``cycles`` is out of range, or the age is random inside.

    References:
        SWIM (Yan et al., 2022), https://arxiv.org/abs/2202.08395, for the idea of verifying some.
    """

    device: DeviceModel
    programming: ProgrammingPlan
    residual: float = 0.1
    cycles: int | None = None

    def __post_init__(self) -> None:
        if any(isinstance(part, AtRandomAge) for part in (self.device, *nested(self.device))):
            raise ValueError(
                f"device = {self.device!r}: weights are verified right after programming. Wait "
                "afterwards: AtRandomAge(Verified(device, plan), ...)."
            )
        if not 0 < self.residual <= 1:
            raise ValueError(f"residual must be above 0 and at most 1, got {self.residual!r}.")
        if self.cycles is not None and (type(self.cycles) is not int or self.cycles < 1):
            raise ValueError(
                f"cycles must be a whole number of at least 1, or None, got {self.cycles!r}."
            )

    @property
    def pulses(self) -> float:
        r"""Expected writes of all verified weights after the first.

        With errors that are normal and independent from write to write, one succeeds with
        probability :math:`p = \mathrm{erf}(r / \sqrt 2)`: :math:`(1 - (1 - p)^n) / p` of at most n.
        """
        p = math.erf(self.residual / math.sqrt(2))
        each = 1 / p if self.cycles is None else (1 - (1 - p) ** self.cycles) / p
        return self.programming.count * each

    @property
    def reads(self) -> int:
        """Expected reads of single cells: all of them if the plan reads, and one after a pulse."""
        every = sum(score.numel() for score in self.programming.importance.values())
        return (every if self.programming.reads else 0) + round(self.pulses)

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip (see :meth:`DeviceModel.program`)."""
        ideal = {name: weight.detach() for name, weight in weights.items()}
        source = torch.default_generator if generator is None else generator
        young = at_age(self.device, 0.0)
        start = source.get_state()
        written = young.program(ideal, generator=generator)
        errors = {name: written[name] - weight for name, weight in ideal.items()}
        chosen = self.programming.chosen(errors)
        old = written
        if changes_with_age(self.device):
            end = source.get_state()
            source.set_state(start)
            old = self.device.program(ideal, generator=generator)
            source.set_state(end)
        left = self._left(young, ideal, errors, chosen, generator)
        chip = {}
        for name, weight in old.items():
            removed = torch.where(chosen[name], errors[name] - left[name], 0.0)
            kept = 1.0 if old is written else kept_share(weight, written[name])
            chip[name] = (weight - kept * removed).to(weight.dtype)
        return chip

    def _left(
        self,
        young: DeviceModel,
        ideal: Weights,
        errors: Weights,
        chosen: dict[str, Tensor],
        generator: Generator | None,
    ) -> Weights:
        """Return the errors that verified weights are left with; any for the others."""
        if self.cycles is None:
            return {name: self.residual * error for name, error in errors.items()}
        best = dict(errors)
        within = {
            name: self.residual * error.double().square().mean().sqrt().to(error.dtype)
            for name, error in errors.items()
            if error.numel()
        }
        for _ in range(self.cycles):
            if not any(
                bool((chosen[name] & (best[name].abs() > most)).any())
                for name, most in within.items()
            ):
                break
            fresh = young.errors(ideal, generator=generator)
            for name, most in within.items():
                again = (best[name].abs() > most) & (fresh[name].abs() < best[name].abs())
                best[name] = torch.where(again, fresh[name], best[name])
        return best
