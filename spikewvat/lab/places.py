"""Where files that come with the package lie."""

from __future__ import annotations

from pathlib import Path

SUITE = "suite.toml"
"""What makes a folder a suite of recipes."""


def suites_folder() -> Path:
    """Return the folder of the suites that come with the package."""
    here = Path(__file__).parent
    installed = here / "shipped"
    return installed if installed.is_dir() else here.parent.parent / "benchmarks" / "recipes"


def suite_names() -> list[str]:
    """Return the names of the suites that come with the package."""
    return sorted(path.parent.name for path in suites_folder().glob(f"*/{SUITE}"))
