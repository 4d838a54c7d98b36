"""Compare training methods, devices and corruptions on a network of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, TypeAlias

import torch
from torch import Generator, nn

from spikewvat.adapters import Adapter, ResetState, adapter_for
from spikewvat.comparison.batches import Loaders, TestBatches, pair_of, samples
from spikewvat.comparison.methods import METHODS, Method, Steps, Train
from spikewvat.comparison.results import Comparison, Failure, Row
from spikewvat.devices import DeviceModel, Gaussian, Lognormal, Quantized, StuckAt
from spikewvat.errors import DataError, UnsupportedModelError
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
from spikewvat.robustness.timing import Time

DeviceAt: TypeAlias = Callable[[float], DeviceModel]
"""From the size of the variation to what a chip does to weights."""
CorruptionAt: TypeAlias = Callable[[float], Corruption]
"""From a severity to what happens to spikes."""
OnRow: TypeAlias = Callable[[Comparison, Row | Failure | None], object]
"""Takes what is known so far and what is new in it."""

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
SIGMAS = (0.0, 0.05, 0.10)
"""Sizes of the variation by default."""
UNTRAINED = "as it is"
"""Name of the only method where nothing is trained."""


def compare(
    model: nn.Module | Callable[[], nn.Module],
    loaders: Loaders,
    train: Train | None = None,
    *,
    methods: Mapping[str, Method] | None = None,
    devices: Mapping[str, DeviceAt] = DEVICES,
    corruptions: Mapping[str, CorruptionAt] | None = None,
    sigmas: Sequence[float] = SIGMAS,
    severities: Sequence[float] | None = None,
    chips: int = 25,
    target: float | None = None,
    seeds: Sequence[int] = (0,),
    time: Time = None,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    on_row: OnRow = lambda found, new: None,
) -> Comparison:
    """Train a network by several methods and test it on simulated chips.

    The variation of the weights is swept for each device, the severity for each corruption. All
    networks meet the same chips. Before anything is trained, the network is tried on one batch
    with each device and corruption. A method that raises does not stop the others.

    Args:
        model: The network, or a function that makes it; from spikes ``[T, B, ...]`` or images
            ``[B, ...]`` to output spikes ``[T, B, classes]`` or scores ``[B, classes]``. A
            network is copied, never changed.
        loaders: Test batches ``(inputs, labels)``, or a pair of training and test batches. The
            test batches are read once.
        train: Trains a network in place: ``train(model, loader, method)`` calls
            :meth:`Steps.backward` in each step and :meth:`Steps.epoch_ended` after each epoch.
            Without it the network is tested as it is.
        methods: What to compare, by name; ``METHODS`` by default. Needs ``train``.
        devices: From sigma to a device model, by name.
        corruptions: From severity to a corruption, by name; by default those of ``CORRUPTIONS``
            that can happen to the network and its inputs.
        sigmas: Sizes of the variation.
        severities: Severities of all corruptions; by default 0 and their levels 1, 3 and 5.
        chips: Chips at each size.
        target: Accuracy that a chip must reach to work, a fraction.
        seeds: Seeds of the trainings; torch's global generators are seeded too.
        time: How the network meets time, as :class:`~spikewvat.Evaluator` takes it.
        adapter: By default the one for the network's framework.
        reset_state: Resets layers that no adapter knows.
        on_row: Called with what is known so far: with None when everything has been tried, then
            with each new row or failure.

    Returns:
        A row for each method on each device and under each corruption.

    Raises:
        ValueError: If there is nothing to compare, a number is out of its range, an option would
            have no effect, or one of the ``corruptions`` cannot happen to the inputs.
        DataError: If the loaders are not what they should be, or the network and they do not fit.
        UnsupportedModelError: If the network has no synaptic weights, a layer keeps state that
            nothing can reset, or one of the ``corruptions`` cannot happen to it.
        Exception: What the first method raised, if all of them did.

    Example:
        >>> batches = [(torch.eye(2), torch.arange(2))]
        >>> network = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(network.weight)
        >>> found = compare(network, batches, devices={"mine": Gaussian}, corruptions={}, chips=2)
        >>> print(found)
        mine      no variation  σ = 0 %  σ = 5 %  σ = 10 %  worst chip  working chips
        as it is         100.0    100.0    100.0     100.0       100.0              -
        <BLANKLINE>
        Accuracy in %: mean over chips and trainings.
    """
    named = _methods(methods, train)
    _check(devices, corruptions, severities, seeds)
    training, testing = pair_of(loaders, wanted=train is not None)
    example = model if isinstance(model, nn.Module) else _made(model)
    adapter = adapter or adapter_for(example, reset_state=reset_state)
    adapter.synaptic_weights(example)
    batches = TestBatches(testing)
    evaluator = Evaluator(example, batches, time=time, adapter=adapter)
    _check_fit(evaluator)  # reads the batches, for all networks
    rehearsal = Evaluator(example, batches.first, time=time, adapter=adapter)
    tests, skipped = _tests(rehearsal, devices, corruptions, sigmas, severities, chips, target)

    def trained(method: Method, seed: int) -> nn.Module:
        # A live network cannot be copied, but the rehearsal has reset this one.
        network = copy.deepcopy(model) if isinstance(model, nn.Module) else _made(model)
        if train is None:
            return network
        steps = Steps(method, network, adapter, Generator().manual_seed(seed))
        train(network, training, steps)
        return steps.finished(training)

    found = Comparison(
        tests=tuple(test.name for test in tests),
        methods=tuple(named),
        seeds=tuple(seeds),
        skipped=tuple(skipped.items()),
        training_samples=0 if train is None else samples(training),
    )
    on_row(found, None)
    for name, method in named.items():
        try:
            networks, seconds = [], []
            for seed in seeds:
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    started = perf_counter()
                    network = trained(method, seed)
                    seconds.append(perf_counter() - started)
                networks.append(evaluator.on(network))
            for test in tests:
                curves = tuple(test.run(network, chips, target) for network in networks)
                row = Row(test.name, name, tuple(seeds), curves, tuple(seconds))
                found = replace(found, rows=(*found.rows, row))
                on_row(found, row)
        except Exception as error:  # whatever it is, the other methods go on
            failure = Failure(name, error)
            found = replace(found, failures=(*found.failures, failure))
            on_row(found, failure)
    if found.failures and not found.rows:
        raise found.failures[0].error
    return found


@dataclass(frozen=True)
class _Test:
    """A device or a corruption, and the sizes that are swept."""

    name: str
    at: Callable[[float], Any]
    sizes: tuple[float, ...]
    corrupts: bool

    def run(self, network: Evaluator, chips: int, target: float | None) -> Degradation:
        """Put a network on chips, the same for all networks."""
        sweep = network.corrupt if self.corrupts else network.sweep
        return sweep(self.at, self.sizes, chips=chips, target=target)


def _check_fit(network: Evaluator) -> None:
    """Raise DataError unless a network takes the batches and knows all their classes."""
    try:
        _ = network.accuracy
    except DataError:
        raise
    except (ValueError, TypeError) as error:
        raise DataError(f"the network does not fit the test batches: {error}") from error


def _tests(
    rehearsal: Evaluator,
    devices: Mapping[str, DeviceAt],
    corruptions: Mapping[str, CorruptionAt] | None,
    sigmas: Sequence[float],
    severities: Sequence[float] | None,
    chips: int,
    target: float | None,
) -> tuple[list[_Test], dict[str, str]]:
    """Return what works on one batch, and why some of the default corruptions do not."""
    tests, skipped = [], {}
    for name, device_at in devices.items():
        test = _Test(name, device_at, tuple(sigmas), corrupts=False)
        test.run(rehearsal, min(chips, 1), target)
        tests.append(test)
    for name, at in (CORRUPTIONS if corruptions is None else corruptions).items():
        test = _Test(name, at, tuple(severities or _levels(name, at)), corrupts=True)
        try:
            test.run(rehearsal, min(chips, 1), target)
            tests.append(test)
        except ValueError as error:  # UnsupportedModelError is one
            if corruptions is None:
                skipped[name] = str(error)
            elif isinstance(error, UnsupportedModelError):
                raise
            else:
                raise DataError(f"corruption {name!r} cannot be applied: {error}") from error
    return tests, skipped


def _methods(methods: Mapping[str, Method] | None, train: Train | None) -> Mapping[str, Method]:
    """Return the methods by name.

    Raises:
        ValueError: If there are none, or nothing to train them with.
    """
    if train is None:
        if methods is not None:
            raise ValueError("methods need a training function. Pass train=, or leave them out.")
        return {UNTRAINED: Method()}
    if methods is not None and not methods:
        raise ValueError("methods is empty, expected at least one, such as METHODS.")
    return METHODS if methods is None else methods


def _check(
    devices: Mapping[str, DeviceAt],
    corruptions: Mapping[str, CorruptionAt] | None,
    severities: Sequence[float] | None,
    seeds: Sequence[int],
) -> None:
    """Raise ValueError if there is nothing to do, or something would be done twice or not at all.

    Raises:
        ValueError: If so.
    """
    happens = CORRUPTIONS if corruptions is None else corruptions
    both = sorted(set(devices) & set(happens))
    if not devices and not happens:
        raise ValueError("devices and corruptions are empty, expected at least one of either.")
    if both:
        raise ValueError(f"{both[0]!r} is a device and a corruption. Rename one of them.")
    if severities is not None and not (severities and happens):
        raise ValueError(
            f"severities {list(severities)} with {len(happens)} corruptions, expected at least "
            "one of each. Leave out severities, or pass corruptions."
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}, expected different ones, at least one.")


def _levels(name: str, at: CorruptionAt) -> tuple[float, ...]:
    """Return 0 and every other level of a corruption; of a composition, those of its open stage.

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
