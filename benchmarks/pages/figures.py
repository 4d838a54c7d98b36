"""The table of the paper's figures and tables: what makes them, and what came out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from pages.landscapes import weights
from pages.shared import NotRunError, load, markdown_table, results_of
from pages.steps import ratio
from spikewvat.errors import RecipeError
from spikewvat.formatting import MISSING, percent
from spikewvat.lab.suites import Suite, read_suite
from spikewvat.lab.suites.suite import Row, Setup
from spikewvat.lab.suites.table import published
from spikewvat.results import RowResult

NOT_RUN = "not run"


@dataclass(frozen=True)
class Figure:
    """One of the paper's.

    Args:
        name: Its number.
        shows: What is in it.
        suite: Suite with its rows, if it is one.
        rows: Names of the rows, in which ``*`` stands for anything.
        options: What the command takes beside the rows.
        command: What makes it, if it is no suite.
        result: Reads what came out, if it is no suite.
    """

    name: str
    shows: str
    suite: str = ""
    rows: tuple[str, ...] = ()
    options: str = ""
    command: str = ""
    result: Callable[[], str] | None = None

    @property
    def runs(self) -> str:
        """The command."""
        if not self.suite:
            return self.command
        chosen = f' --rows "{",".join(self.rows)}"' if self.rows else ""
        return f"spikewvat bench {self.suite}{chosen}{self.options}"


def step_times() -> str:
    """Return what steps cost at the paper's settings."""
    (setup, row), *_ = load("speed", "steps")["rows"].items()
    return f"{setup}: " + ", ".join(f"{name} {ratio(row['ms'], name)}" for name in ("GAV", "WVAT"))


FIGURES = (
    Figure("Figure 1, Table 1", "VGG-5 on CIFAR-10, accuracy and its loss", "vgg5", ("full-*",)),
    Figure("Figure 4", "choice of `w_th` and `gamma`", "ablation", ("adam", "w_th-*", "gamma-*")),
    Figure("Figure 4", "its corners on VGG-5, a quarter as wide", "ablation", ("vgg5-*",)),
    Figure("Figure 7", "loss along directions of variation", "landscape"),
    Figure(
        "Figures 8, 14, 15",
        "weights of each layer, here of VGG-5",
        command="spikewvat landscape RUN --histograms",
        result=functools.partial(weights, "vgg5"),
    ),
    Figure("Figure 9", "AlexNet on CIFAR-10, binary cells", "cifar10", ("alexnet_*",)),
    Figure(
        "Section 4",
        "time of a step relative to plain training; published 1.49 for the worst direction "
        "alone, 1.16 for WVAT",
        command="python benchmarks/speed/steps.py",
        result=step_times,
    ),
    Figure("Section 4.5, A.5", "trained for one distribution, tested on others", "distributions"),
    Figure(
        "Table 1",
        "CIFAR-10: ResNet-110, a converted VGG-16",
        "cifar10",
        ("preresnet110_*", "vgg16_*"),
    ),
    Figure("Table 1", "CIFAR-100: WRN-28-10, ResNet-110, VGG-16", "cifar100"),
    Figure("A.1", "two-layer network on MNIST, other methods", "twolayer"),
    Figure(
        "A.2",
        "MNIST and N-MNIST",
        "mnist",
        ("fc_*", "slayer_*", "cnn1_*", "cnn2_*"),
    ),
    Figure("A.3", "quantisation, ResNet-18 on CIFAR-10", "quantization"),
    Figure("A.4", "fine-tuning on ImageNet", "imagenet", options=" --data-root DIR"),
    Figure("FTJ", "ferroelectric tunnel junctions, one and many", "ftj", ("*-intra", "*-inter")),
)
WITHOUT_RECIPE = (
    ("Figures 2, 3, 5, 6, 10 to 13", "no recipe: drawings, or figures that give no numbers"),
)


def figures() -> str:
    """Return the table."""
    heads = ["in the paper", "what it shows", "command", "scale", "result (published)"]
    lines = []
    for figure in FIGURES:
        command = f"`{figure.runs}`"
        for number, (scale, result) in enumerate(_results(figure)):
            first = [figure.name, figure.shows, command] if number == 0 else [""] * 3
            lines.append([*first, scale, result])
    lines += [[name, why, MISSING, MISSING, NOT_RUN] for name, why in WITHOUT_RECIPE]
    return markdown_table(heads, lines, names=len(heads))


def _results(figure: Figure) -> list[tuple[str, str]]:
    """Return scale and result of each set-up, one line at least."""
    if not figure.suite:
        try:
            return [(MISSING, figure.result())] if figure.result else [(MISSING, NOT_RUN)]
        except NotRunError:
            return [(MISSING, NOT_RUN)]
    try:
        suite = read_suite(figure.suite).chosen(figure.rows)
    except RecipeError:
        return [(MISSING, NOT_RUN)]
    found = results_of(suite)
    if not found:
        return [(MISSING, NOT_RUN)]
    return [_setup(suite, setup, found) for setup in suite.setups]


def _setup(suite: Suite, setup: Setup, found: dict[str, RowResult]) -> tuple[str, str]:
    rows = [(row, found[row.name]) for row in setup.rows if row.name in found]
    if not rows:
        return MISSING, f"{setup.name}: {NOT_RUN}"
    scales = {f"{r.scale}, {_seeds(len(r.curves))}" for _, r in rows}
    sigmas = {result.sigmas[-1] for _, result in rows}
    at = " and ".join(f"σ = {100 * sigma:g} %" for sigma in sorted(sigmas))
    missing = [row.method for row in setup.rows if row.name not in found]
    texts = [*(_cell(row, result) for row, result in rows), *(f"{m} {NOT_RUN}" for m in missing)]
    name = f"{setup.name}, " if len(suite.setups) > 1 else ""
    return " / ".join(sorted(scales)), f"{name}{at}: {', '.join(texts)}"


def _cell(row: Row, result: RowResult) -> str:
    """Return accuracy at the largest variation, the published one in brackets."""
    text = f"{row.method} {percent(result.mean(-1))}"
    figure = published(row, result)
    return text if figure is None else f"{text} ({figure:.1f})"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"
