"""What the examples of the README and the quick start print is what stands below them."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

import spikewvat.data

ROOT = Path(__file__).parent.parent
REPOSITORY = re.compile(r"https://\S+?/spikewvat/spikewvat/(?:blob/)?main/(\S+)")
PAGES = ("README.md", "docs/tutorials/quick-start.ipynb")


def masked(text: str) -> str:
    """Return a text without its figures."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


def in_notebook(path: Path) -> list[tuple[str, str]]:
    """Return each cell with what it prints."""
    cells = json.loads(path.read_text())["cells"]
    found = []
    for cell in cells:
        if cell["cell_type"] == "code":
            streams = [out["text"] for out in cell["outputs"] if out["output_type"] == "stream"]
            printed = "".join(itertools.chain.from_iterable(streams))
            found.append(("".join(cell["source"]), printed))
    return found


@pytest.fixture
def examples(benchmark_script):
    pytest.importorskip("snntorch")
    pytest.importorskip("sklearn")
    readme = benchmark_script("readme")
    read = {"README.md": readme.examples}

    def of(page):
        return read.get(page, lambda: in_notebook(ROOT / page))(), readme.run

    return of


@pytest.mark.parametrize("page", PAGES)
def test_the_form_of_the_output(page, examples, embedded_data, monkeypatch):
    """After a short training: two small batches of each loader."""
    full = spikewvat.data.make_loader

    def short(dataset, batch_size, **options):
        return list(itertools.islice(full(dataset, 8, **options), 2))

    monkeypatch.setattr(spikewvat.data, "make_loader", short)
    found, run = examples(page)
    _, printed = run([code for code, _ in found])
    assert [masked(text) for text in printed] == [masked(text) for _, text in found]
    assert any("chips" in text for text in printed)


@pytest.mark.slow
def test_more_chips_work_after_the_robust_training(examples, embedded_data):
    found, run = examples("README.md")
    names, _ = run([code for code, _ in found])
    networks, device, test = [names["plain"], names["robust"]], names["device"], names["test"]
    plain, robust = (
        spikewvat.Evaluator(network, test).chips(device, chips=50) for network in networks
    )
    assert robust.mean > plain.mean
    assert robust.yield_at(0.9).ci95[0] > plain.yield_at(0.9).ci95[1]


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((\S+?)\)", (ROOT / "README.md").read_text())
    files = [match[1] for match in map(REPOSITORY.match, links) if match]
    assert len(files) >= 2
    assert [file for file in files if not (ROOT / file).exists()] == []
