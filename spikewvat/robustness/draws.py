"""What a network draws itself in a forward pass: the same numbers for the same chip."""

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
    """The global generators of torch, numpy and Python, seeded by a chip for a while.

    Poisson encoding, random initial potentials and dropout that is kept on draw from them. Every
    batch has a seed of its own, so that a loader may draw in between.
    """

    def __init__(self) -> None:
        self.seen = False
        """Whether the network was seen to draw."""

    @contextmanager
    def forked(self, devices: Iterable[torch.device]) -> Iterator[None]:
        """Leave the generators as they were, whatever happens inside.

        Args:
            devices: Where the network is.
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
        """Seed the generators for one pass; call it inside of :meth:`forked`.

        Args:
            seed: Of the chip.
            batch: Number of the batch.
            devices: Where the network is.
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
    """Return the seed of something that is drawn beside others with the same seed."""
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
