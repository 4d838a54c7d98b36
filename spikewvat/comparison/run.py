"""Compare training methods, devices and corruptions on a network of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias

import torch
from torch import Generator, nn

from spikewvat.adapters import Adapter, ResetState, adapter_for
from spikewvat.adapters.copying import copied
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
"""Makes a device model from the size of its variation."""
CorruptionAt: TypeAlias = Callable[[float], Corruption]
"""Makes a corruption from its severity."""
OnRow: TypeAlias = Callable[[Comparison, Row | Failure | None], object]
"""Takes the results so far and the newest of them."""
OnEpoch: TypeAlias = Callable[[str, int, int, int], object]
"""Takes a method, the seed of its training, an epoch counted from 0 and the number of epochs."""

DEVICES: Mapping[str, DeviceAt] = {
    "Gaussian": Gaussian,
    "lognormal": Lognormal,
    "4 bits, Gaussian": lambda sigma: Quantized(bits=4) >> Gaussian(sigma=sigma),
    "Gaussian, 1 % of the cells stuck": (
        lambda sigma: Gaussian(sigma=sigma) >> StuckAt(low=0.005, high=0.005)
    ),
}
"""The devices tested by default."""
CORRUPTIONS: Mapping[str, CorruptionAt] = {
    "deletion": Deletion,
    "insertion": Insertion,
    "jitter": Jitter,
    "dead neurons": DeadNeurons,
    "threshold mismatch": ThresholdMismatch,
    "read noise": ReadNoise,
}
"""The corruptions tested by default."""
SIGMAS = (0.0, 0.05, 0.10)
"""The default sizes of the variation."""
UNTRAINED = "as it is"
"""Name of the single method when nothing is trained."""


def compare(
    model: nn.Module | Callable[[], nn.Module],
    loaders: Loaders,
    train: Train | None = None,
    *,
    methods: Mapping[str, Method] | None = None,
    devices: Mapping[str, DeviceAt | DeviceModel] = DEVICES,
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
    on_epoch: OnEpoch = lambda method, seed, epoch, epochs: None,
) -> Comparison:
    """Train a network with several methods and test each result on simulated chips.

    Sweeps the size of the variation for each device and the severity of each corruption. All
    networks are put on the same chips. Before training starts, the network is tried on one batch
    with each device and corruption. A method that raises does not stop the others.

    Args:
        model: The network, or a function that makes it. Maps spikes ``[T, B, ...]`` or images
            ``[B, ...]`` to output spikes ``[T, B, classes]`` or scores ``[B, classes]``. It is
            copied, never modified.
        loaders: Test batches ``(inputs, labels)``, or a pair of training and test batches. Test
            batches are read once.
        train: Trains a network in place: ``train(model, loader, method)`` calls
            :meth:`Steps.backward` in each step and :meth:`Steps.epoch_ended` after each epoch.
            If omitted, the network is tested as it is.
        methods: Methods to compare, by name; ``METHODS`` by default. Requires ``train``.
        devices: By name, functions that make a device model from sigma, or device models, such as
            a fitted one, which have one size of their own.
        corruptions: By name, functions that make a corruption from its severity; by default those
            of ``CORRUPTIONS`` that apply to the network and its inputs.
        sigmas: Sizes of the variation.
        severities: Severities, the same for all corruptions; by default 0 and levels 1, 3 and 5 of
            each.
        chips: Number of chips at each size.
        target: Accuracy that a chip must reach to work, a fraction.
        seeds: Seeds of the trainings; torch's global generators are seeded too.
        time: How the network handles time, see :class:`~spikewvat.Evaluator`.
        adapter: Defaults to the adapter for the network's framework.
        reset_state: Resets layers that no adapter knows.
        on_row: Called with the results so far and the newest row or failure; the first call, after
            everything has been tried on one batch, passes None for the latter.
        on_epoch: Called when a training calls :meth:`Steps.epoch_ended`.

    Returns:
        One row for each method on each device and under each corruption.

    Raises:
        ValueError: If there is nothing to compare, a number is out of range, an option would have
            no effect, or one of the ``corruptions`` does not apply to the inputs.
        DataError: If the loaders are invalid or do not fit the network.
        UnsupportedModelError: If the network has no synaptic weights, a layer keeps state that
            nothing can reset, or one of the ``corruptions`` does not apply to the network.
        Exception: The first method's exception, if every method raised.

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

    def trained(name: str, method: Method, seed: int) -> nn.Module:
        # A live network cannot be copied, but the rehearsal has reset this one.
        network = copied(model) if isinstance(model, nn.Module) else _made(model)
        if train is None:
            return network
        steps = Steps(
            method, network, adapter, Generator().manual_seed(seed), partial(on_epoch, name, seed)
        )
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
                    network = trained(name, method, seed)
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
    """A device or corruption with the sizes to sweep."""

    name: str
    at: Callable[[float], Any] | DeviceModel
    sizes: tuple[float, ...]
    corrupts: bool

    def run(self, network: Evaluator, chips: int, target: float | None) -> Degradation:
        """Test a network on chips that are the same for all networks."""
        if isinstance(self.at, DeviceModel):
            report = network.chips(self.at, chips=chips, target=target)
            return Degradation(network.accuracy, (report,))
        sweep = network.corrupt if self.corrupts else network.sweep
        return sweep(self.at, self.sizes, chips=chips, target=target)


def _check_fit(network: Evaluator) -> None:
    """Raise DataError unless a network accepts the batches and has a score for each class."""
    try:
        _ = network.accuracy
    except DataError:
        raise
    except (ValueError, TypeError) as error:
        raise DataError(f"the network does not fit the test batches: {error}") from error


def _tests(
    rehearsal: Evaluator,
    devices: Mapping[str, DeviceAt | DeviceModel],
    corruptions: Mapping[str, CorruptionAt] | None,
    sigmas: Sequence[float],
    severities: Sequence[float] | None,
    chips: int,
    target: float | None,
) -> tuple[list[_Test], dict[str, str]]:
    """Return the tests that work on one batch, and why some default corruptions do not."""
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
        ValueError: If there are none, or no training function is given.
    """
    if train is None:
        if methods is not None:
            raise ValueError("methods need a training function. Pass train=, or leave them out.")
        return {UNTRAINED: Method()}
    if methods is not None and not methods:
        raise ValueError("methods is empty, expected at least one, such as METHODS.")
    return METHODS if methods is None else methods


def _check(
    devices: Mapping[str, DeviceAt | DeviceModel],
    corruptions: Mapping[str, CorruptionAt] | None,
    severities: Sequence[float] | None,
    seeds: Sequence[int],
) -> None:
    """Raise ValueError if there is nothing to compare, or an argument is repeated or has no effect.

    Raises:
        ValueError: If the arguments do not fit together.
    """
    happens = CORRUPTIONS if corruptions is None else corruptions
    both = sorted(set(devices) & set(happens))
    if not devices and not happens:
        raise ValueError(
            "devices and corruptions are both empty, expected at least one device or corruption."
        )
    if both:
        raise ValueError(f"{both[0]!r} names both a device and a corruption. Rename one of them.")
    if severities is not None and not (severities and happens):
        raise ValueError(
            f"severities {list(severities)} with {len(happens)} corruptions, expected at least "
            "one of each. Leave out severities, or pass corruptions."
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}, expected one or more distinct numbers.")


def _levels(name: str, at: CorruptionAt) -> tuple[float, ...]:
    """Return 0 and every other level of a corruption, or of the open stage of a composition.

    Raises:
        ValueError: If it defines no levels.
    """
    swept = [stage for stage in at(0.0).stages if stage.severity == 0 and stage.LEVELS]
    if not swept:
        raise ValueError(f"{name!r} has no levels of its own. Pass severities=[0, ...].")
    return (0.0, *swept[0].LEVELS[::2])


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the network that the user's function makes.

    Raises:
        UnsupportedModelError: If the function returns anything else.
    """
    network = make()
    if not isinstance(network, nn.Module):
        raise UnsupportedModelError(
            f"the function that makes the network returned {network!r}, expected a torch.nn.Module."
        )
    return network
