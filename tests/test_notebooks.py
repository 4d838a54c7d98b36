"""The notebooks of the documentation were run as they stand, and show what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOKS = {path.stem: path for path in sorted(DOCS.rglob("*.ipynb"))}
MORE_WORK = """
assert {better}.yield_at(0.9).working > {worse}.yield_at(0.9).working + 10
"""
CLAIMS = {
    "quick-start": MORE_WORK.format(better="reports['variation-aware']", worse="reports['plain']"),
    "spikingjelly": MORE_WORK.format(better="reports['WVAT']", worse="reports['plain']")
    + "assert abs(before.accuracy - after.accuracy) < 0.03",
    "convert": MORE_WORK.format(better="reports['WVAT']", worse="reports['plain']")
    + "assert reports['plain, fine-tuned'].mean > reports['plain'].mean",
    "own-model": MORE_WORK.format(
        better="found.row('Gaussian', 'WVAT').pooled[-1]",
        worse="found.row('Gaussian', 'plain').pooled[-1]",
    ),
    "gallery": "assert demo['WVAT'].pooled[-1].mean > demo['Adam'].pooled[-1].mean",
}
"""What the text of each notebook says about its figures: an order, not the digits."""


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_has_a_claim():
    assert set(CLAIMS) == set(NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=list(NOTEBOOKS))
def test_a_notebook_was_run_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        compile(cell.source, str(path), "exec")
        kinds = {output.get("name", output.output_type) for output in cell.outputs}
        assert kinds <= {"stdout", "display_data", "execute_result"}
        shows = re.search(r"^print\(|^\w*plots\.\w+\(", cell.source, re.MULTILINE)
        assert cell.outputs or not shows, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=list(NOTEBOOKS))
def test_a_notebook_holds_nothing_of_the_machine(path):
    text = path.read_text()
    assert len(text) < 1_000_000
    assert not re.search(r"/(home|root|tmp)/|0x[0-9a-f]{6,}", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_in_a_fresh_kernel_what_it_says(name, benchmark_script, embedded_data):
    cells = code_cells(NOTEBOOKS[name])
    again = benchmark_script("notebooks").executed(NOTEBOOKS[name], claim=CLAIMS[name])
    anew = [cell for cell in again.cells if cell.cell_type == "code"]
    for old, new in zip(cells, anew, strict=False):
        assert bool(old.outputs) == bool(new.outputs)
