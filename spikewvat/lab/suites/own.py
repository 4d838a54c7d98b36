"""A bench for a network and data of one's own: chips of several devices, training methods."""

from __future__ import annotations

import copy
import itertools
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Generator, nn

from spikewvat import files, serialisation
from spikewvat.adapters import Adapter, ResetState, adapter_for
from spikewvat.devices import DeviceModel, Gaussian, Lognormal, Quantized, StuckAt
from spikewvat.errors import UnsupportedModelError
from spikewvat.lab.suites.jobs import ERROR
from spikewvat.lab.suites.loaders import Loaders, count, pair_of, try_on
from spikewvat.lab.suites.methods import METHODS, Loader, Method, Steps, Train
from spikewvat.lab.suites.suite import FILE, Row, Setup, Suite
from spikewvat.lab.suites.table import markdown
from spikewvat.provenance import provenance
from spikewvat.results import RowResult
from spikewvat.robustness import Degradation, Evaluator
from spikewvat.robustness.corruptions import (
    Corruption,
    DeadNeurons,
    Deletion,
    Insertion,
    Jitter,
    ReadNoise,
    ThresholdMismatch,
)

DeviceAt: TypeAlias = Callable[[float], DeviceModel]
"""From the size of the variation to what a chip does to weights."""
CorruptionAt: TypeAlias = Callable[[float], Corruption]
"""From a severity to what happens to spikes."""

DEVICES: Mapping[str, DeviceAt] = {
    "Gaussian": Gaussian,
    "lognormal": Lognormal,
    "4 bits, Gaussian": lambda sigma: Quantized(bits=4) >> Gaussian(sigma=sigma),
    "Gaussian, 1 % of the cells stuck": (
        lambda sigma: Gaussian(sigma=sigma) >> StuckAt(low=0.005, high=0.005)
    ),
}
"""What chips do to weights by default."""
CORRUPTIONS: Mapping[str, CorruptionAt] = {
    "deletion": Deletion,
    "insertion": Insertion,
    "jitter": Jitter,
    "dead neurons": DeadNeurons,
    "threshold mismatch": ThresholdMismatch,
    "read noise": ReadNoise,
}
"""What happens to spikes by default."""
AS_IT_IS = "as it is"
"""Name of the only row where nothing is trained."""


@dataclass(frozen=True)
class BenchResult:
    """What a bench found.

    Args:
        suite: The rows that were asked for.
        rows: Results by row name.
        failed: What was raised, by method.
        skipped: Why a corruption that is tried by default cannot happen to the network.
    """

    suite: Suite
    rows: Mapping[str, RowResult]
    failed: Mapping[str, Exception]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def row(self, what: str, method: str) -> RowResult:
        """Return the result of a device or corruption and a method.

        Raises:
            KeyError: If there is none.
        """
        for setup in self.suite.setups:
            for row in setup.rows:
                if (setup.name, row.method) == (what, method) and row.name in self.rows:
                    return self.rows[row.name]
        raise KeyError(f"there is no result for {what!r} and {method!r}.")

    def __str__(self) -> str:
        return markdown(self.suite, self.rows)


def bench(
    model: nn.Module | Callable[[], nn.Module],
    loaders: Loaders,
    train: Train | None = None,
    *,
    methods: Mapping[str, Method] = METHODS,
    devices: Mapping[str, DeviceAt] = DEVICES,
    corruptions: Mapping[str, CorruptionAt] | None = None,
    sigmas: Sequence[float] = (0.0, 0.05, 0.10),
    severities: Sequence[float] | None = None,
    chips: int = 25,
    target: float | None = None,
    seeds: Sequence[int] = (0,),
    title: str = "",
    out: Path | str | None = None,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    on_row: Callable[[str, RowResult | Exception], object] = lambda name, found: None,
) -> BenchResult:
    """Test a network of one's own on simulated chips, and compare ways of training it.

    Two suites: weights, whose variation is swept for several devices, and spikes, to which
    several things happen. All meet chips of the same seeds. A method that raises does not stop
    the others.

    Args:
        model: The network, or what makes one; from spikes ``[T, B, ...]`` or images ``[B, ...]``
            to output spikes ``[T, B, classes]`` or scores ``[B, classes]``.
        loaders: Test batches ``(inputs, labels)``, or a pair of training and test batches; each
            can be iterated several times.
        train: Trains a network in place with the methods that are compared; without it the
            network is tested as it is.
        methods: What to compare, by name; the first is the baseline.
        devices: From sigma to what a chip does to weights, by name.
        corruptions: From severity to what happens to spikes, by name; by default those of
            ``CORRUPTIONS`` that can happen to the network and its inputs.
        sigmas: Sizes of the variation.
        severities: Severities of all corruptions; by default 0 and their levels 1, 3 and 5.
        chips: Chips at each size.
        target: Accuracy that a chip must reach to work.
        seeds: Training seeds; they seed torch's global generators too.
        title: What the report calls it; the network's class by default.
        out: Folder for a result file a row, each written as soon as it is known, and what
            ``spikewvat report`` needs to know of them.
        adapter: By default the one for the network's framework.
        reset_state: Resets layers that no adapter knows.
        on_row: Called as each row ends, with its name and what was found or raised.

    Returns:
        Results by device or corruption and method.

    Raises:
        ValueError: If there is nothing to compare, a number is out of its range, or one of the
            ``corruptions`` cannot happen to the inputs.
        DataError: If the loaders are not what they should be, or the network and they do not fit.
        UnsupportedModelError: If the network has no synaptic weights, a layer keeps state that
            nothing can reset, or one of the ``corruptions`` cannot happen to it.
        CheckpointError: If ``out`` cannot be written to.
        Exception: What every method raises, if all of them do.

    Example:
        >>> batches = [(torch.eye(2), torch.arange(2))]
        >>> network = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(network.weight)
        >>> devices = {"Gaussian": Gaussian}
        >>> found = bench(network, batches, devices=devices, corruptions={}, chips=2)
        >>> found.row("Gaussian", "as it is").mean(0)
        1.0
    """
    training, test = pair_of(loaders, wanted=train is not None)
    example = model if isinstance(model, nn.Module) else _made(model)
    adapter = adapter or adapter_for(example, reset_state=reset_state)
    try_on(example, test, adapter)

    def make() -> nn.Module:
        # A live network cannot be copied, but the trial has reset this one.
        return copy.deepcopy(model) if isinstance(model, nn.Module) else _made(model)

    named = methods if train is not None else {AS_IT_IS: Method()}
    plan = _Plan(make, training, test, train, adapter, tuple(seeds), chips, target)
    sweeps = {name: _Sweep(Evaluator.sweep, at, tuple(sigmas)) for name, at in devices.items()}
    skipped: dict[str, str] = {}
    for one in sweeps.values():
        plan.rehearse(example, one)
    for name, at in (CORRUPTIONS if corruptions is None else corruptions).items():
        try:
            sizes = tuple(severities or _levels(name, at))
            sweeps[name] = _Sweep(Evaluator.corrupt, at, sizes)
            plan.rehearse(example, sweeps[name])
        except (UnsupportedModelError, ValueError) as error:
            if corruptions is not None:
                raise
            del sweeps[name]
            skipped[name] = str(error)
    suite = _suite(title or type(example).__name__, list(sweeps), list(named), seeds)
    folder = None if out is None else Path(out)
    if folder is not None:
        files.check_writable(folder)
        files.write_toml(folder / FILE, _content(suite))
    common: dict[str, Any] = {
        "recipe": {"network": suite.title},
        "seeds": tuple(seeds),
        "scale": "own",
        **provenance(),
        "samples": {"train": count(training) if train else 0, "test": count(test)},
    }

    rows: dict[str, RowResult] = {}
    failed: dict[str, Exception] = {}
    for number, (name, method) in enumerate(named.items()):
        log = None if folder is None else folder / f"{_slug(name)}-failed" / ERROR
        try:
            networks, seconds = plan.trained(method)
            for setup, one in zip(suite.setups, sweeps.values(), strict=True):
                row = setup.rows[number].name
                curves = [plan.tested(network, one) for network in networks]
                rows[row] = RowResult(curves=tuple(curves), seconds=tuple(seconds), **common)
                if folder is not None:
                    serialisation.write(folder / f"{row}.json", rows[row])
                on_row(row, rows[row])
            if log is not None:
                log.unlink(missing_ok=True)
        except Exception as error:  # whatever it is, the other methods go on
            failed[name] = error
            on_row(name, error)
            if log is not None:
                files.write_atomic(log, "".join(traceback.format_exception(error)))
    if not rows:
        raise next(iter(failed.values()))
    return BenchResult(suite, rows, failed, skipped)


@dataclass(frozen=True)
class _Sweep:
    """What networks are put through, over several sizes."""

    run: Callable[..., Degradation]
    at: DeviceAt | CorruptionAt
    sizes: tuple[float, ...]


@dataclass(frozen=True)
class _Plan:
    """How networks are made, trained and tested, the same for all methods."""

    make: Callable[[], nn.Module]
    training: Loader
    test: Loader
    train: Train | None
    adapter: Adapter
    seeds: tuple[int, ...]
    chips: int
    target: float | None

    def trained(self, method: Method) -> tuple[list[nn.Module], list[float]]:
        """Return a network for each seed, and how many seconds its training took."""
        networks, seconds = [], []
        for seed in self.seeds:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                network, started = self.make(), time.perf_counter()
                if self.train is not None:
                    steps = Steps(method, network, self.adapter, Generator().manual_seed(seed))
                    self.train(network, self.training, steps)
                    network = steps.finished(self.training)
                networks.append(network)
                seconds.append(time.perf_counter() - started)
        return networks, seconds

    def rehearse(self, network: nn.Module, one: _Sweep) -> None:
        """Put a network on one chip, on one batch: mistakes show before training."""
        first = replace(self, test=list(itertools.islice(self.test, 1)), chips=min(self.chips, 1))
        first.tested(network, one)

    def tested(self, network: nn.Module, one: _Sweep) -> Degradation:
        """Put a network on chips, the same for all."""
        test = Evaluator(network, self.test, adapter=self.adapter)
        return one.run(test, one.at, one.sizes, chips=self.chips, target=self.target)


def _levels(name: str, at: CorruptionAt) -> tuple[float, ...]:
    """Return 0 and every other level of a corruption, of a composition those of what is swept.

    Raises:
        ValueError: If it documents none.
    """
    swept = [stage for stage in at(0.0).stages if stage.severity == 0 and stage.LEVELS]
    if not swept:
        raise ValueError(f"{name!r} has no levels of its own. Pass severities=[0, ...].")
    return (0.0, *swept[0].LEVELS[::2])


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    """Return what the user's function makes.

    Raises:
        UnsupportedModelError: If that is no network.
    """
    network = make()
    if not isinstance(network, nn.Module):
        raise UnsupportedModelError(
            f"the function that makes the network returned {network!r}, expected a torch.nn.Module."
        )
    return network


def _suite(title: str, tests: list[str], methods: list[str], seeds: Sequence[int]) -> Suite:
    """Return the rows, set-up by set-up.

    Raises:
        ValueError: If there are none, or two have one name in files.
    """
    for names, what in ((tests, "devices and corruptions"), (methods, "methods"), (seeds, "seeds")):
        if not names or len({_slug(str(name)) for name in names}) < len(names):
            raise ValueError(
                f"{what} are {list(names)!r}, expected at least one, with names that differ in "
                "letters or digits."
            )
    setups = [
        Setup(
            name=test,
            rows=tuple(
                Row(method=method, recipe=f"{_slug(test)}-{_slug(method)}.toml")
                for method in methods
            ),
        )
        for test in tests
    ]
    return Suite(title=title, seeds={"own": tuple(seeds)}, setups=tuple(setups))


def _content(suite: Suite) -> dict[str, Any]:
    """Return what a suite's file holds, for the report."""
    return {
        "title": suite.title,
        "seeds": {name: list(seeds) for name, seeds in suite.seeds.items()},
        "setups": [
            {
                "name": setup.name,
                "rows": [{"method": row.method, "recipe": row.recipe} for row in setup.rows],
            }
            for setup in suite.setups
        ],
    }


def _slug(name: str) -> str:
    """Return a name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
