"""The loss around the weights of single networks of a suite, and their weights."""

from __future__ import annotations

from matplotlib.figure import Figure

from pages.shared import RESULTS, NotRunError
from spikewvat.lab.recipes.landscape import figures
from spikewvat.lab.report.landscape import losses, of_rows
from spikewvat.lab.suites import read_suite
from spikewvat.results import Landscape
from spikewvat.serialisation import read


def landscapes(name: str) -> str:
    """Return the table of the losses around the weights.

    Args:
        name: Name of the suite.

    Raises:
        NotRunError: If no landscape was evaluated.
    """
    methods = _by_method(name)
    first = next(iter(methods.values()))
    lines = first.lines
    note = (
        f"{first.loss} and accuracy in % of {lines.images} {first.split} images at both ends of "
        f"{len(lines.seeds)} lines to chips ({first.device}), and the rise of the loss on "
        f"{first.sharpness.report.chips} chips."
    )
    return f"{losses(methods).markdown()}\n\n{note}"


def weights(name: str) -> str:
    """Return the spread and the kurtosis of each network's largest layer.

    Raises:
        NotRunError: If no landscape was evaluated.
    """
    texts = []
    for method, found in _by_method(name).items():
        layer = max(found.histograms, key=lambda one: one.size)
        texts.append(f"{method} {layer.std:.3g} ({layer.kurtosis:.2f})")
    return f"standard deviation and excess kurtosis of the largest layer: {', '.join(texts)}"


def landscape_pictures(name: str) -> dict[str, Figure]:
    """Return the pictures by kind: lines to chips, weights of each layer.

    Raises:
        NotRunError: If no landscape was evaluated.
    """
    return figures(_by_method(name))


def _by_method(name: str) -> dict[str, Landscape]:
    files = sorted((RESULTS / name).glob("*-landscape.json"))
    if not files:
        raise NotRunError(name)
    found = of_rows(read_suite(name), {file.stem: read(file, Landscape) for file in files})
    return {each.method: each for each in found.values()}
