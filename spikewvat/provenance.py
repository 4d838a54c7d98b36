"""Provenance of results: package versions and commit."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import spikewvat

_PACKAGES = (
    *("spikewvat", "torch", "numpy", "snntorch", "spikingjelly", "tonic"),
    *("lightning-fabric", "safetensors"),
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of all packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the checkout that the package runs from, or None outside a checkout.

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
    """Return versions and commit, as stored in every result file."""
    return {"versions": versions(), "commit": commit()}
