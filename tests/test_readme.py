"""What the README's examples print is what it says they print."""

from __future__ import annotations

import itertools
import re

import pytest

import spikewvat.data


def masked(text: str) -> str:
    """Return a text without its figures."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


@pytest.fixture
def readme(benchmark_script):
    pytest.importorskip("snntorch")
    pytest.importorskip("sklearn")
    return benchmark_script("readme")


def test_the_form_of_the_output(readme, embedded_data, monkeypatch):
    """After a short training: the first batches of each loader."""
    full = spikewvat.data.make_loader

    def short(*args, **options):
        return list(itertools.islice(full(*args, **options), 2))

    monkeypatch.setattr(spikewvat.data, "make_loader", short)
    examples = readme.examples()
    assert len(examples) == 2
    _, printed = readme.run([code for code, _ in examples])
    assert [masked(text) for text in printed] == [masked(text) for _, text in examples]


@pytest.mark.slow
def test_more_chips_work_after_the_robust_training(readme, embedded_data):
    codes = [code for code, _ in readme.examples()]
    names, _ = readme.run(codes)
    device, test = names["device"], names["test"]
    found = {
        name: spikewvat.Evaluator(names[name], test).chips(device, chips=50, target=0.9)
        for name in ("plain", "robust")
    }
    plain, robust = found["plain"], found["robust"]
    assert robust.mean > plain.mean
    assert robust.yield_at(0.9).ci95[0] > plain.yield_at(0.9).ci95[1]
