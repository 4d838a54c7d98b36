"""Every Python example of the documentation runs, every command exists; tables are up to date."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spikewvat.cli import app
from spikewvat.lab.places import suite_names
from spikewvat.lab.suites import read_suite

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [p for p in DOCS if blocks(p, "python")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_python_examples_run(page, tmp_path, monkeypatch, embedded_data):
    """The blocks of a page run one after the other, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # the reader's own file of a page
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), namespace)


COMMANDS = sorted(
    {
        line.strip()
        for page in PAGES
        for block in blocks(page, "(?:bash|console)")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip().startswith("spikewvat ")
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_docs_exist(command):
    """The subcommand exists and takes every option that the docs give it."""
    words = shlex.split(command, comments=True)[1:]
    path = []
    while words and re.fullmatch(r"[a-z]+", words[0]) and len(path) < 2:
        path.append(words.pop(0))
        shown = CliRunner().invoke(app, [*path, "--help"], terminal_width=200)
        if "COMMAND" not in shown.output:
            break
    assert shown.exit_code == 0, shown.output
    for option in re.findall(r"(?<!\S)--[a-z-]+", " ".join(words)):
        assert option in shown.output, f"{command}: no option {option}"


def test_figures_of_the_paper_name_suites_and_rows_that_exist(benchmark_script):
    figures = benchmark_script("pages.figures")
    known = [figure for figure in figures.FIGURES if figure.suite in suite_names()]
    assert len(known) >= 5
    for figure in known:
        assert read_suite(figure.suite).chosen(figure.rows).rows
    text = figures.figures()
    assert all(figure.name in text for figure in figures.FIGURES)
    assert figures.NOT_RUN in text


def test_there_are_examples_to_run():
    assert len(COMMANDS) > 5
    assert sum(len(blocks(page, "python")) for page in PAGES) > 5


def test_links_and_pictures_exist():
    targets = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in target
    ]
    assert len(targets) > 50
    assert [(page, target) for page, target in targets if not (page.parent / target).exists()] == []


TABLED = [page for page in PAGES if "<!-- table:" in page.read_text()]


@pytest.mark.parametrize("page", TABLED, ids=lambda p: str(p.relative_to(ROOT)))
def test_tables_are_what_the_results_say(page, benchmark_script):
    tables = benchmark_script("tables")
    assert tables.filled(page.read_text()) == page.read_text()
