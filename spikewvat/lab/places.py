"""Where files that come with the package lie, and what they are called."""

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


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package, such as ``"demo/wvat"``."""
    files = (path for path in suites_folder().rglob("*.toml") if path.name != SUITE)
    return sorted(shown(path) for path in files)


def shown(path: Path | str) -> str:
    """Return the name of a recipe or suite of the package, or the path of any other file."""
    path = Path(path)
    if not path.is_relative_to(suites_folder()):
        return str(path)
    inner = path.relative_to(suites_folder())
    return (inner.parent if inner.name == SUITE else inner.with_suffix("")).as_posix()
