"""Shared fixtures: one thread, seeded, real data only where its folder is given."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def through_a_file(tmp_path):
    """Write a result and return what is read back."""
    from spikewvat import serialisation

    def through(result):
        serialisation.write(tmp_path / "through.json", result)
        return serialisation.read(tmp_path / "through.json", type(result))

    return through


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets; skips where it is absent."""
    root = os.environ.get("SPIKEWVAT_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("SPIKEWVAT_DATA names no folder with real data")
    return Path(root)


@pytest.fixture(scope="session")
def embedded_data() -> Path:
    """The embedded event digits, generated once into the cache, by one of the test processes."""
    from filelock import FileLock

    from spikewvat.data.cache import cache_folder
    from spikewvat.data.embedded import embedded_root

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".tests.lock"):
        return embedded_root()


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script of the folder ``benchmarks`` by its name."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    return importlib.import_module
