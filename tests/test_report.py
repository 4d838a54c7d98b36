"""The report: what is found in a folder, what it says in words, the page in a real browser."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import browser
import pytest
import torch
from test_cli import call, error

from spikewvat.conversion import TimeSweep
from spikewvat.devices import Gaussian
from spikewvat.errors import DataError
from spikewvat.lab.recipes.results import RunResult, Training, row_result
from spikewvat.lab.report import Table, collect, write_report
from spikewvat.lab.report.collect import JOB
from spikewvat.lab.report.words import gain, summary
from spikewvat.lab.suites import jobs_of, read_suite
from spikewvat.lab.suites.suite import Row
from spikewvat.results import Converted, Landscape, RowResult, StepTime, StepTimes
from spikewvat.robustness import ChipReport, Degradation, Evaluator, mean_interval
from spikewvat.robustness.landscape import weight_histograms
from spikewvat.serialisation import plain, write

SUITE = """
title = "Tiny <suite>"
source = "the paper"
[seeds]
quick = [0, 1]
[[setups]]
name = "CNN"
rows = [
    { method = "plain", recipe = "plain.toml", paper = [[98.0], [80.0]] },
    { method = "SWA", recipe = "swa.toml", paper = [[98.0], [85.0]] },
    { method = "WVAT", recipe = "wvat.toml", paper = [[97.0], [95.0]] },
    { method = "missing", recipe = "missing.toml" },
]
[[setups]]
name = "large"
presets = ["paper"]
rows = [{ method = "plain", recipe = "large.toml" }]
"""


def curve(clean, noisy, *, chips=(0.01, -0.01, 0.03)):
    """A curve over sigma 0 and 10 %, whose chips lie around ``noisy``."""
    reports = [
        ChipReport("Gaussian", sigma, torch.tensor(values, dtype=torch.float64), (3, 4, 5), 10)
        for sigma, values in ((0.0, [clean] * 3), (0.1, [noisy + c - 0.01 for c in chips]))
    ]
    return Degradation(clean, tuple(reports))


def job(seed, degradation, *, seconds=60.0, **found):
    """What a finished job has found."""
    samples = {"train": 48, "validation": 0, "test": 24}
    return RunResult(
        recipe={"name": "tiny", "seed": seed},
        seed=seed,
        scale="quick",
        method="plain",
        split="test",
        device="Gaussian",
        curve=degradation,
        training=Training(1, samples, ({"seconds": seconds},)),
        commit="0123456789abcdef",
        versions={"torch": "2"},
        **found,
    )


def row(*curves, **content):
    return row_result([job(seed, one, **content) for seed, one in enumerate(curves)])


@pytest.fixture
def folder(tmp_path):
    """A suite with three rows, a row that is missing, and a measurement of step times."""
    tiny = tmp_path / "runs" / "tiny"
    tiny.mkdir(parents=True)
    (tiny / "suite.toml").write_text(SUITE)
    write(tiny / "plain.json", row(curve(0.98, 0.80), curve(0.96, 0.82)))
    write(tiny / "swa.json", row(curve(0.98, 0.80), curve(0.96, 0.81)))
    write(tiny / "wvat.json", row(curve(0.97, 0.93), curve(0.96, 0.94)))
    steps = tuple(
        StepTime("net", name, 2.0, ratio, (ratio, ratio))
        for name, ratio in (("plain", 1.0), ("wvat", 1.5), ("sam", 2.0))
    )
    other = tmp_path / "runs" / "speed"
    other.mkdir()
    write(other / "step.json", StepTimes(steps))
    (other / "strange.json").write_text('{"something": "else"}')
    return tmp_path / "runs"


def test_the_page_and_its_tables(folder, tmp_path):
    page = write_report(folder, tmp_path / "out", title="My report")
    text, tables = page.read_text(), (tmp_path / "out" / "report.md").read_text()
    assert "<h1>My report</h1>" in text
    assert "Tiny &lt;suite&gt;" in text  # names are escaped
    assert not re.search(r'(src|href)="(?!data:|#)', text), "something is loaded from elsewhere"
    for content in (text, tables):
        assert "2 suites, 3 rows with results; missing or incomplete: 1 row;" in content
        assert "At σ = 10 % WVAT reaches 93.5 %, 12.5 points (95 % CI over 2" in content
        assert "without variation 0.5 points less" in content
        assert "CNN: missing" in content
        assert "Minus plain, on the same chips at the largest variation" in content
        assert "large: plain" not in content  # belongs to a scale that was not run
        assert "speed/strange.json" in text
    assert "| plain | 97.0 ± 1.4 (98.0, -1.0) | 81.0 ± 1.4 (80.0, +1.0) |" in tables
    assert "| missing | - | - |" in tables
    assert "- **Tiny &lt;suite&gt;**: CNN: At σ = 10 % WVAT reaches 93.5 %" in tables
    assert "| SWA | -0.5 | -6.9 .. +5.9 | 0.5 |" in tables
    assert "| wvat | 1.50 (1.50 .. 1.50) |" in tables
    assert write_report(folder, tmp_path / "again", title="My report").read_text() == text


def test_the_command(folder, tmp_path):
    done = call("report", folder)
    assert f"Written: {folder / 'report.html'}" in done.stdout
    assert (folder / "report.md").is_file()
    assert "there is no folder" in error("report", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no suite results" in error("report", tmp_path / "empty")
    (tmp_path / "empty" / "strange.json").write_text("{}")
    assert "only empty/strange.json" in error("report", tmp_path / "empty")


def test_a_single_suite_folder_is_enough(folder):
    (section,) = collect(folder / "tiny")
    assert section.suite.title == "Tiny <suite>"
    assert sorted(section.results) == ["plain", "swa", "wvat"]


def test_rows_of_no_known_suite(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.json", row(curve(0.9, 0.8)))
    (section,) = collect(tmp_path)
    (setup,) = section.suite.setups
    assert [row.method for row in setup.rows] == ["a", "b"]


def test_what_went_wrong_is_said(folder):
    tiny = folder / "tiny"
    (tiny / "swa.json").write_text('{"cut o')
    impossible = plain(row(curve(0.98, 0.80)))
    impossible["curves"][0]["reports"][1]["accuracies"][2] = 1.2
    (tiny / "missing.json").write_text(json.dumps({"kind": "RowResult 1", **impossible}))
    write(tiny / "wvat.json", row(curve(0.98, 0.80)))
    for seed in (1, 2):
        failed = tiny / f"wvat-seed{seed}-01234567"
        failed.mkdir()
        (failed / "error.txt").write_text("Traceback\nValueError: no luck\n")
    skipped = tiny / "swa-seed0-01234567"
    skipped.mkdir()
    (skipped / "error.txt").write_text("MissingDataError: no digits (in its training: x)\n")
    (folder / "trained" / "network-seed1-01234567").mkdir(parents=True)  # is no suite
    (folder / "trained" / "network-seed1-01234567" / "result.json").write_text("{}")
    section = next(s for s in collect(folder) if s.folder == tiny)
    assert section.missing == ("CNN: SWA", "CNN: WVAT (1 of 2 seeds)", "CNN: missing")
    names = ("wvat-seed1-01234567", "wvat-seed2-01234567")
    assert section.failures == {"ValueError: no luck": names}
    (why,) = section.skipped
    assert section.skipped[why] == ("swa-seed0-01234567",)
    assert len(section.unreadable) == 2
    broken, cut = section.unreadable
    assert "missing.json' is no RowResult: curves.0.reports.1.accuracies: Value error, " in broken
    assert "expected numbers from 0 to 1" in broken
    assert "swa.json' is not a result file (Unterminated string" in cut
    text = write_report(folder).read_text()
    assert "ValueError: no luck" in text
    assert "incomplete: 3 rows; failed: 2 jobs; not readable: 2 files." in text


def test_a_row_whose_file_is_another_measurement(folder):
    (folder / "tiny" / "missing.json").write_text('{"something": "else"}')
    section = next(s for s in collect(folder) if s.folder.name == "tiny")
    assert "missing'.json is not the result of a row" in section.unreadable[0]


def test_a_malformed_suite_is_an_error(folder):
    (folder / "tiny" / "suite.toml").write_text("title = 3")
    with pytest.raises(DataError, match=r"tiny/suite\.toml"):
        collect(folder)


def test_folders_of_jobs_are_known_by_their_names(tmp_path):
    for job in jobs_of(read_suite("ablation"), preset=None, seeds=[0, 12]):
        found = JOB.fullmatch(job.folder(tmp_path).name)
        assert found is not None
        assert found["row"] == job.row


def test_finished_jobs_of_a_bench_that_was_cut_off(folder):
    """No row file was written: the jobs are joined, of one recipe only."""
    for seed in (0, 1):
        run = folder / "tiny" / f"missing-seed{seed}-0123456{seed}"
        run.mkdir()
        write(run / "result.json", job(seed, curve(0.9, 0.7 + 0.1 * seed)))
    broken = folder / "tiny" / "missing-seed2-01234562"
    broken.mkdir()
    (broken / "result.json").write_text("{")
    section = next(s for s in collect(folder) if s.folder.name == "tiny")
    assert section.results["missing"].seeds == (0, 1)
    assert section.results["missing"].mean(-1) == pytest.approx(0.75)
    assert section.missing == ()


def found(*methods):
    """Rows with published accuracies at 0 and 10 %."""
    return [
        (Row(method=name, recipe=f"{name}.toml", paper=((98.0,), (paper,))), row(*curves))
        for name, paper, curves in methods
    ]


def named(name, *curves, **content):
    return Row(method=name, recipe=f"{name}.toml"), row(*curves, **content)


def test_the_interval_of_a_gain_is_over_trainings_on_the_same_chips():
    base = named("base", curve(0.9, 0.5), curve(0.9, 0.7))
    other = named("other", curve(0.9, 0.6), curve(0.9, 0.9))
    result = gain(base, other)
    assert result.mean == pytest.approx(0.15)
    assert tuple(result.interval) == pytest.approx(tuple(mean_interval([0.1, 0.2])))
    assert "over 2 trainings" in result.words
    # Only seeds that both have count.
    assert gain(base, named("more", curve(0.9, 0.6))).mean == pytest.approx(0.1)
    # One training: over its chips.
    base = named("base", curve(0.9, 0.5))
    result = gain(base, named("other", curve(0.9, 0.6, chips=(0.02, -0.01, 0.02))))
    assert tuple(result.interval) == pytest.approx(tuple(mean_interval([0.11, 0.1, 0.09])))
    assert "over one training" in result.words
    # Other chips: no interval.
    reports = [ChipReport("d", 0.1, torch.tensor([0.5, 0.6]).double(), (8, 9), 10)]
    elsewhere = RowResult((0,), (Degradation(1.0, tuple(reports)),))
    assert gain(base, (base[0], elsewhere)).words == "5.0 points"


def test_whether_the_published_order_is_reproduced():
    plain = ("plain", 80.0, (curve(0.98, 0.80), curve(0.98, 0.81)))
    better = ("better", 90.0, (curve(0.98, 0.90), curve(0.98, 0.91)))
    worse = ("worse", 90.0, (curve(0.98, 0.70), curve(0.98, 0.71)))
    alike = ("alike", 90.0, (curve(0.98, 0.81), curve(0.98, 0.80)))
    assert summary(found(plain, better))[1] == (
        "The published order better > plain is reproduced (by 10.0 points)."
    )
    assert "worse > plain is not reproduced, plain leads by 10.0" in summary(found(plain, worse))[1]
    assert "alike > plain is undecided (+0.0 points" in summary(found(plain, alike))[1]
    assert "no other method helps here" in summary(found(plain, worse))[0]
    assert summary(found(plain)) == [
        "At σ = 10 % plain reaches 80.5 %, 17.5 points below its accuracy without variation."
    ]


def test_converted_networks_over_time(tmp_path):
    def converted(scale):
        accuracies = (0.5 * scale, 0.9 * scale)
        sweep = TimeSweep((4, 8), accuracies, (10.0, 20.0), (1e5, 2e5), 0.0, (), 9)
        return Converted(0.95, sweep)

    one = job(0, curve(0.9, 0.8), converted=converted(1.0))
    two = job(1, curve(0.9, 0.8), converted=converted(0.9))
    write(tmp_path / "snn.json", row_result([one, two]))
    tables = write_report(tmp_path).with_name("report.md").read_text()
    assert "| snn | 95.0 | 47.5 | 85.5 | 20 | 200000 |" in tables
    assert "85.5 % after 8 steps, 9.5 points below its ANN" in tables


def test_the_loss_around_weights(tmp_path):
    labels = [(torch.randn(8, 3), torch.arange(8) % 2)]
    shared = {"device": "gaussian", "scale": "quick", "split": "test", "loss": "cross-entropy"}
    for name, slope in (("adam", 4.0), ("wvat", 0.5)):
        model = torch.nn.Linear(3, 2)
        with torch.no_grad():
            model.weight.mul_(slope)
        around = Evaluator(model, labels, loss=torch.nn.functional.cross_entropy).landscape
        lines = around.lines(Gaussian(0.15), lines=2, points=3)
        rise = around.sharpness(Gaussian(0.15), chips=3, ascent_points=0)
        layers = weight_histograms(model)
        found = Landscape(method=name, lines=lines, sharpness=rise, histograms=layers, **shared)
        write(tmp_path / f"{name}.json", found)
    page = write_report(tmp_path)
    tables = page.with_name("report.md").read_text()
    assert "### Loss around the weights: gaussian" in tables
    assert tables.count("\n| adam |") == tables.count("\n| wvat |") == 1
    assert f"| wvat | {lines.clean_loss:.3g} |" in tables
    assert f"{rise.expected:.3g} for wvat" in tables
    assert page.read_text().count("<img") == 2  # lines and histograms

    looked = row(curve(0.9, 0.8), landscape=found)
    (tmp_path / "suite" / "demo").mkdir(parents=True)
    write(tmp_path / "suite" / "demo" / "wvat.json", looked)
    tables = write_report(tmp_path / "suite").with_name("report.md").read_text()
    assert "### Loss around the weights: gaussian" in tables
    assert f"| WVAT | {lines.clean_loss:.3g} |" in tables


def test_published_statements(folder):
    suite = folder / "tiny" / "suite.toml"
    suite.write_text(
        SUITE
        + """
[[claims]]
text = "WVAT leads at 10 %"
better = "wvat"
worse = ["plain", "swa"]
sigma = 0.1
[[claims]]
text = "averaging helps"
better = "swa"
worse = "plain"
sigma = 0.1
[[claims]]
text = "more of it"
better = "missing"
worse = "plain"
sigma = 0.1
"""
    )
    tables = write_report(folder).with_name("report.md").read_text()
    assert "Of 3 published statements 1 is reproduced, 1 not, 1 cannot be judged; " in tables
    assert "not reproduced: averaging helps (accuracy at σ = 10 %: swa 80.5, plain 81.0;" in tables
    assert "| WVAT leads at 10 % | reproduced | wvat 93.5, plain 81.0, swa 80.5 | +" in (tables)
    assert "| more of it | unknown | missing -, plain 81.0 | - |" in tables

    suite.write_text("published = false\n" + suite.read_text())
    tables = write_report(folder).with_name("report.md").read_text()
    assert "Of 3 statements 1 holds, 1 not, 1 cannot be judged; " in tables
    assert "ublished statements" not in tables
    assert "| averaging helps | does not hold | swa 80.5, plain 81.0 | -" in tables


def test_devices_without_a_size_and_leagues_of_many_rows(tmp_path):
    """Ideal weights come first, dots stand for lines, training time is in the baseline's unit."""
    names = [f"m{number}" for number in range(8)]
    rows = ", ".join(f'{{ method = "{name}", recipe = "{name}.toml" }}' for name in names)
    text = f'title = "T"\nseeds = {{}}\n[[setups]]\nname = "S"\nbaseline = "m0"\nrows = [{rows}]'
    (tmp_path / "suite.toml").write_text(text)
    for number, name in enumerate(names):
        report = ChipReport("FTJ", None, torch.full((3,), 0.1 * number).double(), (1, 2, 3), 10)
        one = Degradation(0.9, (report,))
        write(tmp_path / f"{name}.json", row_result([job(0, one, seconds=1.0 + number)]))
    tables = write_report(tmp_path).with_name("report.md").read_text()
    assert "On chips m7 reaches 70.0 %" in tables
    assert "| method | no variation | on chips | drop |" in tables
    assert "| m7 | 90.0 | 70.0 | 20.0 | 0.0 | 70.0 | - | 8.00 |" in tables


def test_markdown_cells_are_escaped():
    assert Table(["a|b", "c"], [["1", "2"]]).markdown().splitlines()[0] == "| a\\|b | c |"


def test_the_page_is_in_the_package():
    text = (resources.files("spikewvat.lab.report") / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")


def test_the_page_in_a_browser(folder, tmp_path):
    page = write_report(folder, tmp_path / "out")
    script = """
      const table = document.querySelector("#s2 table");
      const order = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
      const heads = [...table.tHead.rows[0].cells], orders = [order()];
      for (const column of [0, 0, 2, 2]) {
        heads[column].querySelector("button").click();
        orders.push(order());
      }
      return {
        orders,
        sorted: heads[2].getAttribute("aria-sort"),
        widths: [...document.images].map(image => image.naturalWidth),
        overflow: document.documentElement.scrollWidth > window.innerWidth,
      };
    """
    found = browser.ask(page, script, tmp_path / "profile")
    assert found["orders"] == [
        ["plain", "SWA", "WVAT", "missing"],
        ["missing", "plain", "SWA", "WVAT"],  # by name
        ["WVAT", "SWA", "plain", "missing"],
        ["WVAT", "plain", "SWA", "missing"],  # by accuracy; what is missing comes last
        ["SWA", "plain", "WVAT", "missing"],
    ]
    assert found["sorted"] == "ascending"
    assert len(found["widths"]) == 2
    assert min(found["widths"]) > 500
    assert not found["overflow"]
    text = browser.document(f"{page.as_uri()}#sort=1,2", tmp_path / "profile")
    first = text[text.index('id="s2"') :].split("</table>")[0]
    names = re.findall(r"<tr><td>(.*?)</td>", first)
    assert names == ["WVAT", "plain", "SWA", "missing"]


def test_the_page_of_the_repository_in_a_narrow_window(tmp_path):
    results = Path(__file__).parent.parent / "benchmarks" / "results"
    page = write_report(results, tmp_path)
    picture = tmp_path / "narrow.png"
    browser.run(page.as_uri(), tmp_path / "p", "--window-size=500,900", f"--screenshot={picture}")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    script = "return [document.images.length, [...document.images].every(i => i.naturalWidth > 0)];"
    count, shown = browser.ask(page, script, tmp_path / "p")
    assert count > 5
    assert shown
