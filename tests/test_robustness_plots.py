"""What pictures show, read back from their artists."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from spikewvat.errors import MissingExtraError
from spikewvat.robustness import ChipReport, Degradation, plots


def a_report(seed, mean=0.9, chips=30, sigma=0.1):
    generator = torch.Generator().manual_seed(seed)
    accuracies = (mean + 0.02 * torch.randn(chips, generator=generator)).double().clamp(0, 1)
    return ChipReport("Gaussian", sigma, accuracies, tuple(range(chips)), 1000)


def a_curve(seed):
    sigmas = (0.10, 0.0, 0.05)
    return Degradation(0.95, tuple(a_report(seed, 0.95 - s, sigma=s) for s in sigmas))


def lines(figure, panel=0):
    return {line.get_label(): line for line in figure.axes[panel].get_lines()}


CURVES = {"Adam": a_curve(1), "WVAT": a_curve(2), "my method": a_curve(3)}
REPORTS = {"Adam": a_report(1), "WVAT": a_report(2, 0.93), "one chip": a_report(3, chips=1)}


def test_accuracy_against_sigma_draws_means_in_order_of_sigma():
    figure = plots.accuracy_against_sigma(CURVES, range_label="full width", title="Digits")
    for name, line in lines(figure).items():
        assert list(line.get_xdata()) == [0, 5, 10]
        assert list(line.get_ydata()) == [100 * CURVES[name].at(s).mean for s in (0, 0.05, 0.1)]
    axes = figure.axes[0]
    assert axes.get_xlabel() == "variation σ (% of the full width)"
    assert axes.get_ylabel() == "accuracy (%)"
    assert len(axes.collections) == 3
    band = axes.collections[0].get_paths()[0].vertices
    expected = np.quantile(100 * CURVES["Adam"].at(0.1).accuracies.numpy(), [0.1, 0.9])
    at_ten = band[band[:, 0] == 10, 1]
    assert (at_ten.min(), at_ten.max()) == pytest.approx(tuple(expected))
    assert figure.get_suptitle() == "Digits"


def shown(figure):
    """The panels that are not empty."""
    return [axes for axes in figure.axes if axes.axison]


def test_a_notebook_shows_a_figure():
    figure = plots.sorted_chips(REPORTS)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_more_than_three_bands_have_a_panel_each():
    names = ["Adam", "SWA", "WVAT", "mine", "yours"]
    curves = {name: a_curve(seed) for seed, name in enumerate(names)}
    reports = {name: curve[0] for name, curve in curves.items()}
    for figure in (plots.accuracy_against_sigma(curves), plots.yield_curve(reports)):
        panels = shown(figure)
        assert [axes.get_title() for axes in panels] == names
        assert [len(axes.collections) for axes in panels] == [1] * 5
        assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
        dotted = [[line.get_linestyle() for line in axes.get_lines()].count(":") for axes in panels]
        assert dotted == [0, 1, 1, 1, 1]  # the first, beside all others
        assert "dotted: Adam" in figure.get_supxlabel()
        colours = {lines(figure, i)[name].get_color() for i, name in enumerate(names)}
        assert len(colours) == 5


def test_the_common_target_is_a_line():
    def aiming(seed, target):
        reports = (replace(report, target=target) for report in a_curve(seed))
        return Degradation(0.95, tuple(reports))

    (axes,) = plots.accuracy_against_sigma({"a": aiming(0, 0.9), "b": aiming(1, 0.9)}).axes
    assert [list(line.get_ydata()) for line in axes.get_lines()].count([90, 90]) == 1
    assert "target 90 %" in [text.get_text() for text in axes.texts]
    for target, end in ((0.94, 1), (0.86, 0)):  # from 95 to 85 %: the name stands away from it
        (axes,) = plots.accuracy_against_sigma({"a": aiming(0, target)}).axes
        (name,) = [text for text in axes.texts if "target" in text.get_text()]
        assert name.xy == (end, pytest.approx(100 * target))
    (axes,) = plots.accuracy_against_sigma({"a": aiming(0, 0.9), "b": aiming(1, 0.8)}).axes
    assert sorted(text.get_text() for text in axes.texts) == ["a", "b"]


def test_lines_that_coincide_share_their_path():
    curve = a_curve(0)
    apart = Degradation(0.95, tuple(a_report(1, 0.8, sigma=sigma) for sigma in (0, 0.05, 0.1)))
    figure = plots.accuracy_against_sigma({"a": curve, "b": curve, "other": apart})
    one, two, other = (lines(figure)[name] for name in ("a", "b", "other"))
    # Dashes of one lie in the gaps of the other, and the marker below is larger.
    (start, (dash, gap)), (later, pattern) = one._dash_pattern, two._dash_pattern
    assert (start, dash, pattern) == (0, gap, [dash, gap])
    assert later == dash
    assert one.get_markersize() > two.get_markersize()
    assert other.get_linestyle() == "-"


def test_labels_of_line_ends_lie_apart():
    curve = a_curve(0)
    figure = plots.accuracy_against_sigma({"a": curve, "b": curve, "c": curve})
    figure.draw_without_rendering()
    texts = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without their arrows
    assert len(texts) == 3
    assert all(one.y1 <= other.y0 for one, other in pairwise(sorted(texts, key=lambda t: t.y0)))


def test_yield_curve_is_the_yield_at_every_target():
    figure = plots.yield_curve(REPORTS, target=0.92)
    for name, report in REPORTS.items():
        line = lines(figure)[name]
        assert line.get_drawstyle() == "steps-pre"
        x, y = np.asarray(line.get_xdata()) / 100, np.asarray(line.get_ydata())
        for target in np.linspace(x[0] + 1e-6, x[-1] - 1e-6, 57):
            # Before each corner a step line has that corner's height.
            assert y[np.searchsorted(x, target)] == 100 * report.yield_at(target).share
        assert y[0] == 100
        assert y[-1] == 0


def test_yield_curve_as_numbers():
    report = ChipReport(
        "Gaussian", 0.1, torch.tensor([0.8, 0.9, 0.9, 0.7], dtype=torch.float64), (0,) * 4, 10
    )
    curve = report.yield_curve()
    assert [(y.target, y.working) for y in curve] == [(0.7, 4), (0.8, 3), (0.9, 2)]
    assert [y.working for y in report.yield_curve([0.0, 0.85, 1.0])] == [4, 2, 0]
    with pytest.raises(ValueError, match="target must be a fraction between 0 and 1, got 85"):
        report.yield_curve([85])


def test_yield_curve_of_perfect_chips_stays_up():
    perfect = ChipReport("Gaussian", 0.0, torch.ones(5).double(), (0,) * 5, 10)
    line = lines(plots.yield_curve({"WVAT": perfect}))["WVAT"]
    assert set(line.get_ydata()) == {100.0}
    assert max(line.get_xdata()) == 100


def test_sorted_chips_fall_from_the_best_to_the_worst():
    figure = plots.sorted_chips(REPORTS)
    drawn = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "None"]
    for line, report in zip(drawn, REPORTS.values(), strict=True):
        assert list(line.get_xdata()) == list(range(1, report.chips + 1))
        assert list(line.get_ydata()) == sorted((100 * report.accuracies).tolist(), reverse=True)
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == [
        f"{name}\n{100 * r.mean:.1f}, worst {100 * r.worst:.1f}"
        for name, r in sorted(REPORTS.items(), key=lambda pair: pair[1].worst)
    ]


def test_device_fit_shows_quantiles_at_each_level():
    rng = np.random.default_rng(0)
    levels = np.repeat([1.0, 4.0, 2.0], 50)
    errors = 0.01 * levels * rng.standard_normal(150)
    figure = plots.device_fit(levels, errors, levels[:100], errors[:100] * 2, level_label="µS")
    fitted, measured = figure.axes[0].get_lines()
    assert list(measured.get_xdata()) == [1, 2, 4]
    medians = [100 * np.median(errors[levels == level]) for level in (1, 2, 4)]
    assert list(measured.get_ydata()) == pytest.approx(medians)
    assert list(fitted.get_xdata()) == [1, 4]
    whisker = figure.axes[0].collections[2].get_segments()[0]
    expected = 100 * np.quantile(errors[levels == 1], [0.05, 0.95])
    assert whisker[:, 1] == pytest.approx(expected)
    assert figure.axes[0].get_xlabel() == "µS"


def test_device_fit_gathers_many_levels_into_bins():
    rng = np.random.default_rng(0)
    levels = rng.random(1000)
    figure = plots.device_fit(levels, 0 * levels, levels[:1], [0.3])
    fitted, measured = figure.axes[0].get_lines()
    assert len(measured.get_xdata()) == 32
    assert len(fitted.get_xdata()) == 1


def test_a_method_has_one_style_in_every_picture():
    alone = plots.styles(["wvat"])["wvat"]
    assert plots.styles(["x", "SGD + SWA", "WVAT"])["WVAT"] == alone
    names = [f"method {i}" for i in range(20)] + ["Adam", "SWA", "HSV"]
    assert len(set(plots.styles(names).values())) == len(names)
    assert plots.styles(["Adam", "SGD"])["Adam"] != plots.styles(["Adam", "SGD"])["SGD"]
    assert len(plots.styles([str(i) for i in range(40)])) == 40
    figure = plots.accuracy_against_sigma(CURVES)
    assert (
        lines(figure)["WVAT"].get_color() == lines(plots.yield_curve(REPORTS))["WVAT"].get_color()
    )


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_saves_pictures(tmp_path, suffix, start):
    path = tmp_path / "new" / f"picture.{suffix}"
    plots.save(plots.sorted_chips(REPORTS), path)
    assert path.read_bytes().startswith(start)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_impossible_values(tmp_path):
    for draw in (plots.yield_curve, plots.sorted_chips):
        with pytest.raises(ValueError, match="there are no reports to draw"):
            draw({})
    with pytest.raises(ValueError, match="there are no curves to draw"):
        plots.accuracy_against_sigma({})
    with pytest.raises(ValueError, match="target must be a fraction between 0 and 1, got 95"):
        plots.yield_curve(REPORTS, target=95)
    with pytest.raises(ValueError, match="measured levels and errors have 2 and 1 entries"):
        plots.device_fit([1, 2], [0.1], [1], [0.1])
    with pytest.raises(ValueError, match="fitted levels and errors have 0 and 0 entries"):
        plots.device_fit([1], [0.1], [], [])
    with pytest.raises(
        ValueError, match=r"does not end in a known picture format. Use one of: .*png"
    ):
        plots.save(plots.sorted_chips(REPORTS), tmp_path / "picture.txt")


def test_missing_matplotlib_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        MissingExtraError, match=r'needs matplotlib.* pip install "spikewvat\[cli\]"'
    ):
        plots.sorted_chips(REPORTS)


def test_nothing_is_imported_before_it_is_needed(tmp_path):
    code = (
        "import sys, torch\n"
        "from spikewvat.robustness import ChipReport, plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "report = ChipReport('d', None, torch.rand(5).double(), (1,) * 5, 10)\n"
        "plots.save(plots.sorted_chips({'a': report}), sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "chips.png")], check=True)
    assert (tmp_path / "chips.png").exists()
