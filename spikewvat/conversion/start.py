"""Choose where potentials start, by a check on held-out calibration images."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from spikewvat.adapters import adapter_for
from spikewvat.adapters.modes import evaluating
from spikewvat.conversion.balance import NO_BATCH, Balancing, Used, balance, held_out
from spikewvat.conversion.network import SpikingNetwork
from spikewvat.devices.base import DeviceModel
from spikewvat.spiking.stdb import check_start
from spikewvat.weights import replaced

STARTS = (0.5, 0.0)
"""Half a threshold rounds rates to the nearest; 0 leaves out what is small, errors included."""

_HELD_OUT = 8  # of so many images, one is held out
_CHIPS = 4
_SURE = 2.0  # standard errors by which another start must be better than the first


def choose_start(
    snn: SpikingNetwork,
    loader: Iterable[Any],
    starts: Sequence[float] = STARTS,
    *,
    balancing: Balancing = Balancing(),  # noqa: B008 -- frozen
    variation: DeviceModel | None = None,
    images: int = 256,
    generator: Generator | None = None,
) -> float:
    r"""Set where potentials start to what is closest to the ANN on images not balanced with.

    Thresholds are fitted for each start to seven of eight images. On the others, the distance is
    :math:`1 - \cos(a, s)` between the scores of the ANN and of the spiking network, both less
    their mean over classes; the latter with weights as they are, or on four simulated chips. (A
    start at 0 makes all scores smaller, which changes no decision: hence the cosine.) The first
    start stays unless another one is better by two standard errors, of the paired differences
    between images. Balance the network afterwards, with all images.

    Args:
        snn: The network, with the ANN's weights; its thresholds are not changed.
        loader: Calibration images, as for :func:`spikewvat.conversion.balance`.
        starts: Shares of the threshold in [0, 1), the preferred one first.
        balancing: How thresholds are chosen.
        variation: Device model whose chips are simulated; ``None`` uses weights as they are.
        images: Largest number of images to hold out.
        generator: Source of the chips' seeds; ``None`` uses torch's global one.

    Returns:
        The chosen start; layers of QCFS keep theirs, half a threshold.

    Raises:
        ValueError: If there are no starts or one is out of range, or there are fewer than 16
            images.
        TypeError: If a batch holds no tensor.
    """
    if not starts:
        raise ValueError("starts is empty, expected at least one, such as [0.5, 0.0].")
    for start in starts:
        check_start(start)
    if all(neurons.levels is not None for neurons in snn.neurons().values()):
        return starts[0]  # QCFS starts at half a threshold
    held = torch.cat([part for _, part in held_out(loader, snn, _HELD_OUT)] or [torch.empty(0)])[
        :images
    ]
    if not len(held) and not any(True for _ in loader):
        raise ValueError(NO_BATCH)
    if len(held) < 2:
        raise ValueError(
            f"only {len(held)} calibration images are left to check the start with, expected at "
            f"least 2. Pass {2 * _HELD_OUT} or more, or a single start."
        )
    device = torch.device("cpu") if generator is None else generator.device
    draw = torch.randint(2**32, (_CHIPS + 1,), generator=generator, device=device)
    seeds = [int(seed) for seed in draw]
    with evaluating(snn), torch.no_grad():
        target = snn.analog(held)
    distances = []
    for start in starts:
        trial = copy.deepcopy(snn)
        _set(trial, start)
        fit = Generator().manual_seed(seeds[0])
        kept = Used(loader, snn, _HELD_OUT)
        balance(trial, kept, balancing, variation=variation, generator=fit)
        distances.append(_distance(trial, held, target, variation, seeds[1:]))
    best = starts[0]
    lead = 0.0
    for start, distance in zip(starts[1:], distances[1:], strict=True):
        gain = distances[0] - distance
        sure = _SURE * float(gain.std()) / math.sqrt(len(gain))
        if float(gain.mean()) > max(sure, lead):
            best, lead = start, float(gain.mean())
    _set(snn, best)
    return best


def _set(snn: SpikingNetwork, start: float) -> None:
    for neurons in snn.neurons().values():
        if neurons.levels is None:
            neurons.start = torch.full_like(neurons.start, start)


@torch.no_grad()
def _distance(
    snn: SpikingNetwork,
    images: Tensor,
    target: Tensor,
    variation: DeviceModel | None,
    seeds: Sequence[int],
) -> Tensor:
    """Return the distance for each image, the mean over chips."""
    live = adapter_for(snn).synaptic_weights(snn)
    clean = {name: weight.detach() for name, weight in live.items()}
    found = []
    for seed in seeds if variation is not None else seeds[:1]:
        draw = Generator().manual_seed(seed)
        chip = clean if variation is None else variation.program(clean, generator=draw)
        with replaced(live, chip), torch.random.fork_rng():
            torch.manual_seed(seed)  # equal spikes of the input for every start
            found.append(1 - functional.cosine_similarity(_centred(snn(images)), _centred(target)))
    return torch.stack(found).mean(0)


def _centred(scores: Tensor) -> Tensor:
    return scores - scores.mean(1, keepdim=True)
