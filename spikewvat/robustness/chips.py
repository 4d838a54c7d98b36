"""Simulated chips: a network is put on each of them, and a report says how accurate it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Generator

from spikewvat.devices.base import DeviceModel, check_device
from spikewvat.errors import UnsupportedModelError
from spikewvat.processes import Processes
from spikewvat.robustness.activity import Activity
from spikewvat.robustness.calibration import Repair
from spikewvat.robustness.chip import taken_apart
from spikewvat.robustness.corruptions.base import Corruption
from spikewvat.robustness.cost import Calibrated, Cost
from spikewvat.robustness.crossbar import Crossbar
from spikewvat.robustness.plan import Plan, Progress, draw_seeds
from spikewvat.robustness.results import ChipReport
from spikewvat.robustness.run import Found, Run
from spikewvat.robustness.stacked import (
    STACK_BYTES,
    NotStackableError,
    Stack,
    Stacking,
    group_size,
    measured,
    pays,
)
from spikewvat.weights import Weights, refuse_computed


class Tested(NamedTuple):
    """Result of a chip that was evaluated by itself.

    Args:
        found: The result, after a repair if there is one.
        before: Accuracy in front of it, if that was asked for.
        cost: What it cost.
        kept: Whether no check has undone anything of it.
    """

    found: Found
    before: float | None = None
    cost: Cost = Cost()
    kept: bool = True


class Chips:
    """Puts a network on chips, one at a time or several in a forward pass.

    Args:
        run: Holds the network.
        plan: The chips to simulate.
        stack: Whether several of them share a forward pass.
        repair: What is done to each chip before it is tested, if anything.
    """

    def __init__(self, run: Run, plan: Plan, stack: Stacking, repair: Repair | None = None) -> None:
        self._run, self._plan, self._repair = run, plan, repair
        self._processes: Processes | None = None
        self._seeds = draw_seeds(plan.chips, plan.source)
        self._insist = stack is True
        self._stacking = pays(run.live) if stack == "auto" else stack
        self._stack: Stack | None = None
        self._before: list[float] = []  # accuracies of chips in front of a repair
        self._cost = Cost()
        self._undone = 0  # chips on which a check has undone something
        self._activations = 0  # bytes in one pass of one chip, once they are measured

    def report(
        self,
        device: DeviceModel,
        sigma: float | None,
        progress: Progress | None,
        *,
        happens: Corruption | None = None,
    ) -> ChipReport:
        """Simulate the chips of a device, each with the corruption of spikes, if any.

        Args:
            device: The device model.
            sigma: Size of its variation, for the report.
            progress: Called after each chip.
            happens: The corruption of spikes.
        """
        check_device(device)
        self._run.check_weights()
        plan, images = self._plan, self._run.test.images
        found: list[Found] = []
        self._before, self._cost, self._undone = [], Cost(), 0
        once, effects, crossbar = taken_apart(device)
        acting = happens if effects is None else effects if happens is None else effects >> happens
        for one in self._found(once, acting, crossbar):
            found.append(one)
            if progress is not None:
                progress(len(found), plan.chips, one.accuracy)
            if plan.is_done([chip.accuracy for chip in found]):
                break
        activities = [chip.activity for chip in found if chip.activity is not None]
        hits = None
        if plan.images is None and images.ordered:
            hits = sum((chip.right for chip in found), torch.zeros(images.count, dtype=torch.int64))
        has_loss = self._run.test.loss is not None
        return ChipReport(
            device=repr(device),
            sigma=sigma,
            accuracies=torch.tensor([chip.accuracy for chip in found], dtype=torch.float64),
            seeds=self._seeds[: len(found)],
            images=images.count if plan.images is None else plan.images,
            losses=(
                torch.tensor([chip.loss for chip in found], dtype=torch.float64)
                if has_loss
                else None
            ),
            target=plan.target,
            corruption=None if happens is None else happens.name,
            severity=None if happens is None else happens.severity,
            unit="" if happens is None else happens.unit,
            activity=Activity.mean(activities) if activities else None,
            sampled_from=None if plan.images is None else images.count,
            calibrated=self._calibrated(),
            hits=hits,
            planned=plan.chips if plan.any_time else None,
        )

    def _found(
        self, device: DeviceModel, happens: Corruption | None, crossbar: Crossbar | None
    ) -> Iterator[Found]:
        """Yield the result of each chip, evaluated in groups or one at a time."""
        run, plan, seeds = self._run, self._plan, self._seeds
        if plan.images is not None:
            run.test.images.load(plan.images, run.test.device)
        if self._processes is not None:
            for tested in self._processes.each((device, seed, happens, crossbar) for seed in seeds):
                yield self._noted(tested)
            return
        # What happens to spikes, and who counts them, know a single chip.
        alone = not self._stacking or happens is not None or run.observer is not None
        alone = alone or self._repair is not None or plan.images is not None
        alone = alone or crossbar is not None
        # Chips that stopping early throws away cost time: no more than are needed anyway.
        most = len(seeds) if plan.interval_width is None else plan.min_chips
        done = 0
        while done < len(seeds):
            size = 1 if alone else min(self._group(), most)
            group = seeds[done : done + size]
            done += len(group)
            if alone or (len(group) == 1 and self._activations):
                yield self._noted(self.one(device, group[0], happens, crossbar))
                continue
            run.stand_in(None)
            chips = [self._chip(device, seed, happens) for seed in group]
            if len(chips) > 1:
                yield from self._together(chips, group)
            else:
                with measured(run.model) as activations:
                    found = run.holding(*chips[0], seed=group[0])
                self._activations = activations()
                yield found

    def one(
        self,
        device: DeviceModel,
        seed: int,
        happens: Corruption | None = None,
        crossbar: Crossbar | None = None,
    ) -> Tested:
        """Return the result of a chip, evaluated by itself.

        Args:
            device: What acts once on its weights.
            seed: The chip's.
            happens: What happens while it runs, if anything.
            crossbar: What stands around it, if anything.
        """
        self._run.stand_in(crossbar)
        if self._plan.images is not None:
            return Tested(self._sampled(device, seed, self._plan.images, happens))
        chip, what = self._chip(device, seed, happens)
        if self._repair is None:
            return Tested(self._run.holding(chip, what, happens=happens, seed=seed))
        before = None
        if self._plan.before:
            before = self._run.holding(chip, what, happens=happens, seed=seed).accuracy
        found, repaired = self._run.holding_calibrated(
            chip, what, self._repair.calibrated, happens=happens, seed=seed
        )
        return Tested(found, before, repaired.cost, repaired.kept)

    def _noted(self, tested: Tested) -> Found:
        """Return the result of a chip, and note what a repair has done."""
        if tested.before is not None:
            self._before.append(tested.before)
        self._cost = tested.cost
        self._undone += not tested.kept
        return tested.found

    @contextmanager
    def shared(self, jobs: int) -> Iterator[None]:
        """Share the chips among processes for a block; their results are the same.

        Args:
            jobs: Number of processes; one is this one.

        Raises:
            ValueError: If the images do not fit into memory.
            UnsupportedModelError: If the network cannot be sent to other processes.
        """
        if jobs == 1:
            yield
            return
        refuse_computed(self._run.live, "sent to other processes: jobs")
        self._run.test.images.read(self._run.test.device, f"jobs={jobs}")
        with Processes(jobs, self.one, f"jobs={jobs}") as self._processes:
            try:
                yield
            finally:
                self._processes = None

    def _calibrated(self) -> Calibrated | None:
        if self._repair is None:
            return None
        tested = self._plan.before
        before = torch.tensor(self._before, dtype=torch.float64) if tested else None
        measures = tuple(map(repr, self._repair.measures))
        return Calibrated(measures, before, self._cost, self._undone)

    def _sampled(
        self, device: DeviceModel, seed: int, images: int, happens: Corruption | None
    ) -> Found:
        """Return the result of a chip on its own images."""
        generator = Generator().manual_seed(seed)
        chip = device.program(self._run.weights, generator=generator)
        # The next numbers of the same generator: independent of the chip, and the chip's own.
        chosen = torch.randperm(self._run.test.images.count, generator=generator)[:images]
        what = f"the chip with seed {seed} of {device!r}"
        return self._run.holding_on(chip, what, chosen, seed, happens)

    def _group(self) -> int:
        """Return how many chips to evaluate at once, from the memory that the first one takes."""
        if not (self._stacking and self._activations):
            return 1
        return group_size(self._run.live, self._activations, STACK_BYTES)

    def _chip(
        self, device: DeviceModel, seed: int, happens: Corruption | None
    ) -> tuple[Weights, str]:
        """Return a chip, and its name for messages."""
        chip = device.program(self._run.weights, generator=Generator().manual_seed(seed))
        what = f"the chip with seed {seed} of {device!r}"
        return chip, what if happens is None else f"{what} with {happens!r}"

    def _together(self, chips: list[tuple[Weights, str]], seeds: Sequence[int]) -> list[Found]:
        """Return the result of each chip of a group, from one forward pass if possible."""
        run = self._run
        try:
            if run.test.draws.seen:
                raise NotStackableError("it draws random numbers, which differ from chip to chip")
            if self._stack is None:
                self._stack = Stack(run.model, run.live, run.adapter.reset_state)
            return run.holding_each(self._stack, chips)
        except NotStackableError as error:
            if self._insist:
                raise UnsupportedModelError(
                    f"the network cannot hold several chips at once: {error}. "
                    'Pass stack="auto" or False.'
                ) from error
            self._stacking = False
            return [run.holding(*chip, seed=s) for chip, s in zip(chips, seeds, strict=True)]
