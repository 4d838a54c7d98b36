"""Result files: what was run, with what, by which version, and what came out."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import spikewvat
from spikewvat import files

_PACKAGES = (
    *("spikewvat", "torch", "numpy", "snntorch", "spikingjelly", "tonic"),
    *("lightning-fabric", "safetensors"),
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the checkout that the package runs from, None outside of one.

    Uncommitted changes to tracked files are marked by ``-dirty``.
    """
    file = Path(spikewvat.__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(file.parent), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", file.name) is None:
        return None  # installed into an environment that lies in somebody else's repository
    name = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", str(file.parent))
    return f"{name}-dirty" if name and changed else name


def provenance() -> dict[str, Any]:
    """Return versions and commit, as every result file holds them."""
    return {"versions": versions(), "commit": commit()}


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a result file, atomically; numbers that are not finite become null.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    files.write_atomic(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
