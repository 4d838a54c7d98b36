"""Random numbers that a network draws in its forward pass: the same for the same chip."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator


class Draws:
    """Seeds the global generators of torch, numpy and Python with a chip's seed.

    Poisson encoding, random initial potentials and dropout that stays active draw from them. Every
    batch gets a separate seed, so a loader may draw between batches.
    """

    def __init__(self) -> None:
        self.seen = False
        """Whether the network has been observed to draw."""

    @contextmanager
    def forked(self, devices: Iterable[torch.device]) -> Iterator[None]:
        """Restore the generators at the end of the block, whatever is raised.

        Args:
            devices: Devices of the network's tensors.
        """
        generators = _generators(devices)
        before = [generator.get_state() for generator in generators], _others()
        try:
            yield
        finally:
            for generator, state in zip(generators, before[0], strict=True):
                generator.set_state(state)
            _set_others(*before[1])

    @contextmanager
    def of(self, seed: int, batch: int, devices: Iterable[torch.device]) -> Iterator[None]:
        """Seed the generators for one pass; call within :meth:`forked`.

        Args:
            seed: Seed of the chip.
            batch: Number of the batch.
            devices: Devices of the network's tensors.
        """
        number = derived(seed, f"forward pass {batch}")
        generators = _generators(devices)
        for generator in generators:
            generator.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002
        random.seed(number)
        if self.seen:
            yield
            return
        before = [generator.get_state() for generator in generators], _others()
        yield
        self.seen = any(
            not torch.equal(generator.get_state(), state)
            for generator, state in zip(generators, before[0], strict=True)
        ) or not _equal(before[1], _others())


def derived(seed: int, purpose: str) -> int:
    """Derive a seed for one of several independent draws that share a seed."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def _generators(devices: Iterable[torch.device]) -> list[Generator]:
    on_gpu = {device.index for device in devices if device.type == "cuda"}
    return [torch.default_generator, *(torch.cuda.default_generators[i] for i in sorted(on_gpu))]


def _others() -> tuple[Any, Any]:
    return np.random.get_state(), random.getstate()  # noqa: NPY002


def _set_others(numpys: Any, pythons: Any) -> None:
    np.random.set_state(numpys)  # noqa: NPY002
    random.setstate(pythons)


def _equal(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    numpys = zip(one[0], other[0], strict=True)
    return one[1] == other[1] and all(np.array_equal(a, b) for a, b in numpys)
