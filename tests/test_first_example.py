"""The README's first example runs with what its install line brings, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# A short training: the first batch of the example's loader.
SHORT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(","), None))
import itertools, spikewvat.data, spikewvat.data.embedded as embedded
full = spikewvat.data.make_loader
spikewvat.data.make_loader = lambda *args, **more: list(itertools.islice(full(*args, **more), 1))
"""


def first_example() -> str:
    return re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0]


def install_line() -> Requirement:
    """Return what the first ``pip install`` of the README installs."""
    return Requirement(re.findall(r'pip install "(spikewvat[^"]*)"', README)[0])


def brought_by(line: Requirement) -> set[str]:
    """Return the names of all distributions that an install line brings."""
    brought: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    open_ = [line]
    while open_:
        wanted = open_.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        brought.add(name)
        if name == "spikewvat":
            optional = PROJECT["optional-dependencies"]
            assert extras <= set(optional), extras
            lines = [*PROJECT["dependencies"], *(r for extra in extras for r in optional[extra])]
        else:
            try:
                lines = requires(name) or []
            except PackageNotFoundError:  # not needed on this machine
                continue
        for text in lines:
            needed = Requirement(text)
            environments = [{"extra": extra} for extra in (*extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(e) for e in environments):
                open_.append(needed)
    return brought


def missing_with(line: Requirement) -> list[str]:
    """Return the modules that are installed here, but would not be after an install line."""
    brought = brought_by(line)
    return sorted(
        module
        for module, owners in packages_distributions().items()
        if module.isidentifier() and not brought & {canonicalize_name(owner) for owner in owners}
    )


def run(code: str, missing: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SHORT + code, ",".join(missing)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_it_needs_what_the_install_line_brings(embedded_data):
    pytest.importorskip("snntorch")
    pytest.importorskip("sklearn")
    missing = missing_with(install_line())
    assert {"tonic", "typer", "pydantic", "matplotlib", "pytest"} <= set(missing)
    assert not {"torch", "numpy", "snntorch"} & set(missing)
    done = run(first_example() + "assert len(embedded.digit_images()[1]) == 1797", missing)
    assert done.returncode == 0, done.stderr


def test_generated_digits_are_read_with_torch_and_numpy(embedded_data):
    missing = missing_with(Requirement("spikewvat"))
    assert {"tonic", "sklearn", "scipy", "snntorch"} <= set(missing)
    code = """
root = spikewvat.data.embedded_root()
data = spikewvat.data.NMNIST(root, "test", time_steps=6, cache=False)
(spikes, labels), *_ = spikewvat.data.make_loader(data, 32)
assert spikes.shape == (6, 32, 2, 34, 34) and spikes.any() and not labels.any()
"""
    done = run(code, missing)
    assert done.returncode == 0, done.stderr
