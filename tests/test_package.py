"""What an installer and a package index see: version, links, extras; the name of the paper."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import spikewvat

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
URLS = PROJECT["urls"]
PAPER = "A weight variation-aware training method for hardware neuromorphic chips"


def test_one_version():
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "spikewvat/__init__.py"
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {spikewvat.__version__}\n" in citation


def test_addresses_are_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nurl: {URLS['Homepage']}\n" in citation
    assert f"\nrepository-code: {URLS['Source']}\n" in citation
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= set(URLS)


def test_links_of_the_readme_lead_somewhere_from_a_package_index():
    targets = re.findall(r"\]\(([^)\s]+)|(?:src|href)=\"([^\"]+)", (ROOT / "README.md").read_text())
    links = ["".join(pair) for pair in targets]
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.mark.parametrize(
    "place",
    ["README.md", "CITATION.cff", "docs/explanation/wvat.md", "docs/reference/figures.md"],
)
def test_the_paper_is_named(place):
    assert PAPER in " ".join((ROOT / place).read_text().split())


def test_the_docstring_names_the_paper():
    assert PAPER in " ".join((spikewvat.WVAT.__doc__ or "").split())


def brought(extra: str) -> set[str]:
    """Return the names of the packages that an extra asks for, those of its extras included."""
    found = set()
    for line in map(Requirement, EXTRAS[extra]):
        inner = line.extras if line.name == "spikewvat" else ()
        found |= set().union(*map(brought, inner)) if inner else {line.name}
    return found


def test_all_is_what_users_want():
    users = set(EXTRAS) - {"all", "dev", "docs"}
    assert brought("all") == set().union(*map(brought, users))
    assert not brought("all") & {"pytest", "mypy", "ruff", "hypothesis", "pre-commit"}


SCRIPT = """
import sys
sys.modules["typer"] = None
sys.argv[0] = "spikewvat"
from spikewvat.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["--version"], 0, f"spikewvat {spikewvat.__version__}\n", ""),
        (
            ["bench", "demo"],
            2,
            "",
            'error: the command line needs typer. Run: pip install "spikewvat[cli]".\n',
        ),
    ],
)
def test_without_the_extra_of_the_command_line(words, code, out, err):
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_the_version_with_it():
    command = [sys.executable, "-m", "spikewvat", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"spikewvat {spikewvat.__version__}\n"
