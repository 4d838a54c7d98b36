"""The report: what is found in a folder, what it says in words, the page in a real browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import browser
import pytest
import torch
from test_cli import call, error

from spikewvat.conversion import TimeSweep
from spikewvat.devices import Gaussian, Quantized
from spikewvat.errors import DataError
from spikewvat.lab.recipes.results import RunResult, Training, row_result
from spikewvat.lab.report import Table, collect, write_report
from spikewvat.lab.report.answer import answer, leaderboards
from spikewvat.lab.report.collect import JOB
from spikewvat.lab.report.conversion import distinct
from spikewvat.lab.report.landscape import of_rows
from spikewvat.lab.report.words import gain, summary
from spikewvat.lab.suites import jobs_of, read_suite
from spikewvat.lab.suites.suite import Row
from spikewvat.lab.suites.table import device_words
from spikewvat.results import Converted, Landscape, RowResult, StepTime, StepTimes
from spikewvat.robustness import ChipReport, Degradation, Evaluator, mean_interval
from spikewvat.robustness.axis import AGE, Setting
from spikewvat.robustness.landscape import weight_histograms
from spikewvat.serialisation import plain, read, write

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "report.html"
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
        assert "2 suites, 3 rows with results, 1 row not run." in content
        assert (
            "At σ = 10 % WVAT reaches 93.5 %, 12.5 points (95 % CI 6.1 .. 18.9, 2 trainings)"
            in content
        )
        assert "without variation 0.5 points less" in content
        assert "1 row not run" in content
        assert "CNN: missing" in content
        assert "large: plain" not in content  # belongs to a scale that was not run
    assert "<li>speed/strange.json</li>" in text
    assert "| plain | 97.0 ± 1.4 | 81.0 ± 1.4 | 78.0 | 0 of 6 ≥ 92 % | - |" in tables
    assert (
        "| SWA | 97.0 ± 1.4 | 80.5 ± 0.7 | 78.0 | 0 of 6 ≥ 92 % | -0.5 (-6.9 .. +5.9) |" in tables
    )
    assert "<td>97.0 ± 1.4 (98.0, -1.0)</td>" in text  # folded away with all figures
    assert "| wvat | 1.50 (1.50 .. 1.50) |" in tables
    assert write_report(folder, tmp_path / "again", title="My report").read_text() == text


def test_no_table_is_wider_than_seven_columns_unless_folded():
    text = EXAMPLE.read_text(encoding="utf-8")
    unfolded = re.sub(r'<details><summary class="small">.*?</details>', "", text, flags=re.DOTALL)
    found = [head.count("<th ") for head in re.findall(r"<thead>.*?</thead>", unfolded)]
    assert len(found) > 50
    assert max(found) <= 7


def aimed(target, *curves):
    """The curves with a target accuracy."""
    return [
        Degradation(curve.clean, tuple(replace(report, target=target) for report in curve))
        for curve in curves
    ]


def compared(folder, target, **methods):
    """Write the rows of a comparison on one's own network, and return the report's answer."""
    rows = ", ".join(f'{{ method = "{name}", recipe = "{name}.toml" }}' for name in methods)
    folder.mkdir()
    text = f'title = "mine.net"\nseeds = {{}}\n[[setups]]\nname = "Gaussian"\nrows = [{rows}]'
    (folder / "suite.toml").write_text(text)
    for name, curves in methods.items():
        found = row(*(curves if target is None else aimed(target, *curves)))
        write(folder / f"{name}.json", replace(found, recipe={"network": "mine.net"}))
    return answer(collect(folder))


PLAIN = (curve(0.98, 0.80), curve(0.98, 0.81))
BETTER = (curve(0.97, 0.90), curve(0.97, 0.91))


def test_the_first_sentence_counts_working_chips(tmp_path):
    found = compared(tmp_path / "a", 0.9, plain=PLAIN, wvat=BETTER, third=PLAIN)
    sentence, following, note, picture = found
    page = write_report(tmp_path / "a").with_name("report.md").read_text()
    assert page.split("\n\n")[1:4] == [sentence, f"**Next:** {following}", note]
    assert len(picture.figure.axes[0].get_yticks()) == 3
    assert sentence.startswith("mine.net on chips with Gaussian variation, σ = 10 % of ")
    works = "4 of 6 chips work with wvat (95 % CI "
    assert works in sentence
    assert "0 with third (95 % CI " in sentence
    assert "0 with plain (95 % CI 0 .. " in sentence
    assert following == (
        "Train with wvat: the 95 % interval of its lead over plain in accuracy, on the same chips, "
        "excludes 0."
    )
    assert note.startswith("A chip works if it classifies at least 90 % of the test set correctly.")
    assert "2 trainings show only " in note


def test_the_first_sentence_without_a_target(tmp_path):
    sentence, _, note, _ = compared(tmp_path / "a", None, plain=PLAIN, wvat=BETTER)
    assert "1 of 6 chips work with wvat" in sentence
    assert "no target was set, so this is 5 points below plain without variation" in note
    assert "at least 93 %" in note


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (
            {"plain": PLAIN},
            "Compare plain with other methods on the same chips (spikewvat compare ... --train",
        ),
        (
            {"plain": BETTER, "wvat": PLAIN},
            "Stay with plain, or train the others longer: with none of them more chips work. To be",
        ),
        (
            {"plain": (curve(0.98, 0.80), curve(0.98, 0.90)), "wvat": reversed(BETTER)},
            "2,3,4): its lead over plain in accuracy is undecided, +",
        ),
        (
            {"plain": PLAIN, "wvat": PLAIN},
            "No chip works: train longer, or lower the target or the variation.",
        ),
        (
            {"plain": PLAIN[:1], "wvat": BETTER[:1]},
            "One training says nothing of others, so add some (spikewvat compare",
        ),
    ],
)
def test_what_to_do_next(tmp_path, methods, words):
    methods = {name: list(curves) for name, curves in methods.items()}
    assert words in compared(tmp_path / "a", 0.9, **methods).next


def test_the_answer_names_a_few_of_many_methods_and_the_baseline(tmp_path):
    methods = {f"m{i}": [curve(0.98, 0.80 + 0.02 * i)] for i in range(7)}
    sentence = compared(tmp_path / "a", 0.9, **methods).sentence
    assert re.findall(r"with (m\d)", sentence) == ["m6", "m5", "m4", "m0"]
    assert "3 more methods below" in sentence


def test_chips_that_saw_samples_of_the_images_have_no_yield(tmp_path):
    reports = [replace(report, sampled_from=99) for report in curve(0.98, 0.8)]
    found = compared(tmp_path / "a", None, plain=[Degradation(0.98, tuple(reports))])
    words = "mean accuracy plain 80.0 %; no yield, because chips saw samples of the images."
    assert found.sentence.endswith(words)
    assert found.picture is None
    assert "| plain | - | - |" in write_report(tmp_path / "a").with_name("report.md").read_text()


@pytest.mark.parametrize(("unit", "cost"), [(20.0, "2.50"), (0.2, "-")])
def test_step_times_of_a_comparison_are_those_of_long_trainings(tmp_path, unit, cost):
    compared(tmp_path / "a", 0.9, plain=PLAIN, wvat=BETTER)
    for name, seconds in (("plain", (3 * unit, unit)), ("wvat", (2.5 * unit, 2.5 * unit))):
        path = tmp_path / "a" / f"{name}.json"
        write(path, replace(read(path, RowResult), seconds=seconds))
    (board,) = leaderboards(collect(tmp_path / "a"))
    assert {name: cells[-1] for name, *cells in board.rows}["wvat"] == cost


def test_measured_step_times_are_those_of_a_set_up_with_a_name_of_its_own(folder):
    steps = tuple(StepTime("CNN", name, 2.0, ratio, (1, 1)) for name, ratio in (("WVAT", 1.5),))
    write(folder / "speed" / "step.json", StepTimes(steps))
    sections = collect(folder)
    assert [row[-1] for row in leaderboards(sections)[0].rows] == ["1.50", "-", "-"]
    assert [row[-1] for row in leaderboards([*sections, sections[0]])[0].rows] == ["-"] * 3


def test_devices_in_words():
    def words(device, sigma=0.1, **fields):
        report = replace(curve(0.9, 0.8)[1], device=device, sigma=sigma, **fields)
        return device_words(RowResult((0,), (Degradation(0.9, (report,)),)))

    six = "of the 6-sigma width of each layer"
    assert words(repr(Gaussian(0.1))) == f"chips with Gaussian variation, σ = 10 % {six}"
    quantized = repr(Quantized(bits=4) >> Gaussian(0.1))
    assert (
        words(quantized) == f"chips with Quantized(bits=4), then Gaussian variation, σ = 10 % {six}"
    )
    assert words("Lognormal(sigma=0.5, keep_mean=False)", 0.5).endswith(
        "Lognormal variation, σ = 50 % of the logarithm of each weight"
    )
    assert (
        words("StuckAt(low=0.1, high=0.2)", None)
        == "chips with StuckAt(low=0.1, high=0.2) variation"
    )
    lost = {"corruption": "deletion", "severity": 0.4, "unit": "share of events lost"}
    assert words("Ideal()", None, **lost) == (
        "chips without variation, under deletion 0.4 (share of events lost)"
    )
    old = words(repr(Gaussian(0.1)), setting=Setting(AGE, 86400.0))
    assert old == "chips with Gaussian variation, age 1 d (time since programming)"


def test_runs_are_reported_without_a_suite(tmp_path):
    """Folders of ``train`` and files of ``evaluate``: one row a recipe, with its seeds."""
    parts = {"model": {"name": "net"}, "data": {"name": "digits"}}

    def run(name, method, seed, degradation):
        found = job(seed, degradation)
        recipe = {"name": name, "seed": seed, **parts}
        return replace(found, recipe=recipe, method=method)

    for seed in (0, 1):
        (tmp_path / f"a-seed{seed}").mkdir()
        write(tmp_path / f"a-seed{seed}" / "result.json", run("a", "adam", seed, PLAIN[seed]))
    write(tmp_path / "evaluated.json", run("b", "wvat", 0, BETTER[0]))
    (section,) = collect(tmp_path)
    assert {name: result.seeds for name, result in section.results.items()} == {
        "adam, a": (0, 1),
        "wvat, b": (0,),
    }
    sentence = answer([section]).sentence
    assert sentence.startswith("net (digits) on chips with Gaussian variation, σ = 10 % of the 6-")
    assert "1 of 3 chips work with wvat" in sentence
    assert "0 of 6 with adam" in sentence
    (alone,) = collect(tmp_path / "a-seed0")
    assert alone.results["adam, a"].seeds == (0,)


def test_the_command(folder, tmp_path):
    done = call("report", folder)
    assert f"Written: {folder / 'report.html'}" in done.stdout
    assert (folder / "report.md").is_file()
    assert "there is no folder" in error("report", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no results" in error("report", tmp_path / "empty")
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
    assert section.missing == ("CNN: SWA", "CNN: missing")
    assert section.fewer == ("CNN: WVAT (1 of 2)",)
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
    assert (
        "2 rows not run, 1 row with fewer trainings than others, 2 jobs failed, "
        "1 job without its data, 2 files not readable."
    ) in text


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
    assert ", 2 trainings)" in result.words
    # Only seeds that both have count.
    assert gain(base, named("more", curve(0.9, 0.6))).mean == pytest.approx(0.1)
    # One training: over its chips.
    base = named("base", curve(0.9, 0.5))
    result = gain(base, named("other", curve(0.9, 0.6, chips=(0.02, -0.01, 0.02))))
    assert tuple(result.interval) == pytest.approx(tuple(mean_interval([0.11, 0.1, 0.09])))
    assert ", one training)" in result.words
    # Other chips: no interval.
    reports = [ChipReport("d", 0.1, torch.tensor([0.5, 0.6]).double(), (8, 9), 10)]
    elsewhere = RowResult((0,), (Degradation(1.0, tuple(reports)),))
    assert gain(base, (base[0], elsewhere)).words == "5.0 points"


def test_whether_the_published_order_is_supported():
    plain = ("plain", 80.0, (curve(0.98, 0.80), curve(0.98, 0.81)))
    better = ("better", 90.0, (curve(0.98, 0.90), curve(0.98, 0.91)))
    worse = ("worse", 90.0, (curve(0.98, 0.70), curve(0.98, 0.71)))
    alike = ("alike", 90.0, (curve(0.98, 0.81), curve(0.98, 0.80)))
    assert summary(found(plain, better))[1] == (
        "Of the published order better > plain is supported (+10.0, 95 % CI +10.0 .. +10.0)."
    )
    assert "worse > plain is contradicted (-10.0" in summary(found(plain, worse))[1]
    assert "alike > plain is undecided (+0.0" in summary(found(plain, alike))[1]
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


def test_a_converted_network_that_several_rows_test_is_shown_once():
    def rows(*scales):
        for name, scale in zip(("nothing", "scale", "layer"), scales, strict=False):
            sweep = TimeSweep(
                (4, 8), (0.5 * scale, 0.9 * scale), (1.0, 2.0), (1e5, 2e5), 0.0, (), 9
            )
            yield f"SGD: {name}", (Converted(0.95, sweep),)

    assert list(distinct(rows(1.0, 1.0))) == ["SGD"]
    assert list(distinct(rows(1.0))) == ["SGD: nothing"]
    assert list(distinct(rows(1.0, 0.9, 1.0))) == ["SGD: nothing / SGD: layer", "SGD: scale"]


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

    one = {"wvat-landscape": found, "mine": found, "adam-landscape": found}
    by_file = of_rows(read_suite("demo"), one)
    methods = ["wvat", "Adam", "WVAT"]  # the suite's names in its order, behind other files
    assert [each.method for each in by_file.values()] == methods
    assert list(by_file) == ["mine", "adam-landscape", "wvat-landscape"]


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
    assert "Of 3, 1 supported, 0 contradicted, 2 undecided." in tables
    assert "| WVAT leads at 10 % | supported | wvat 93.5, plain 81.0, swa 80.5 | +" in tables
    assert "| averaging helps | undecided | swa 80.5, plain 81.0 | -0.50, 95 % CI " in tables
    assert "| more of it | undecided | missing -, plain 81.0 | - |" in tables
    assert tables.count("averaging helps") == 1  # each statement once
    assert "### Published statements" in tables

    suite.write_text("published = false\n" + suite.read_text())
    tables = write_report(folder).with_name("report.md").read_text()
    assert "### Statements" in tables


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
    page = write_report(tmp_path)
    tables = page.with_name("report.md").read_text()
    assert "On chips m7 reaches 70.0 %" in tables
    assert "| method | no variation | on chips | worst chip | chips that work |" in tables
    assert "| m7 | 90.0 | 70.0 | 70.0 | 0 of 3 ≥ 85 % | +70.0 (+70.0 .. +70.0) |" in tables
    assert "| m7 | 0 % (0 of 3) | 0 .. 71 | 70.0 | 70.0 | 8.00 |" in tables  # the leaderboard
    assert "All figures" in page.read_text()


def test_markdown_cells_are_escaped():
    assert Table(["a|b", "c"], [["1", "2"]]).markdown().splitlines()[0] == "| a\\|b | c |"


def test_the_page_is_in_the_package():
    text = (resources.files("spikewvat.lab.report") / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")


@pytest.fixture
def league(tmp_path):
    """A page of three methods that differ in every column of the leaderboard, and two suites."""
    slow = {"plain": 1.0, "swa": 3.0, "wvat": 2.0}
    methods = {"plain": (0.98, 0.80), "swa": (0.98, 0.93), "wvat": (0.97, 0.92)}
    root = tmp_path / "runs"
    for suite in ("one", "two"):
        (root / suite).mkdir(parents=True)
        rows = ", ".join(f'{{ method = "{name}", recipe = "{name}.toml" }}' for name in methods)
        text = 'title = "%s"\nseeds = {}\n[[setups]]\nname = "%s"\nbaseline = "plain"\nrows = [%s]'
        (root / suite / "suite.toml").write_text(text % (f"Suite {suite}", suite, rows))
        for name, (clean, noisy) in methods.items():
            chips = (-0.05, 0.04, 0.04) if name == "swa" else (0.01, 0.01, 0.01)
            (found,) = aimed(0.9, curve(clean, noisy, chips=chips))
            write(root / suite / f"{name}.json", row(found, seconds=slow[name]))
    return write_report(root)


def test_sorting_folding_and_choosing_in_a_browser(league, tmp_path):
    script = """
      const board = document.querySelector(".board table");
      const names = () => [...board.tBodies[0].rows].map(row => row.cells[0].textContent);
      const heads = [...board.tHead.rows[0].cells];
      const orders = {start: names()};
      for (const head of heads) {
        const button = head.querySelector("button");
        button.click();
        orders[button.textContent] = names();
      }
      heads[5].querySelector("button").click();
      const boards = () => [...document.querySelectorAll(".board")].map(board => board.hidden);
      const hidden = [boards()];
      const which = document.getElementById("which");
      which.selectedIndex = 1;
      which.dispatchEvent(new Event("change"));
      hidden.push(boards());
      const folded = () => [...document.querySelectorAll("details")].map(one => one.open);
      document.querySelector("details").open = true;
      const open = [folded()];
      window.dispatchEvent(new Event("beforeprint"));
      open.push(folded());
      window.dispatchEvent(new Event("afterprint"));
      open.push(folded());
      return {
        orders, hidden, open, last: names(), sorted: heads[5].getAttribute("aria-sort"),
        answer: document.querySelector(".answer").textContent,
        images: [...document.images].map(image => image.naturalWidth),
        inside: document.querySelector("details table").checkVisibility(),
      };
    """
    found = browser.ask(league, script, tmp_path / "profile")
    assert found["orders"] == {
        "start": ["wvat", "swa", "plain"],  # by working chips
        "method": ["plain", "swa", "wvat"],
        "chips that work": ["wvat", "swa", "plain"],
        "95 % CI": ["wvat", "swa", "plain"],
        "10th percentile": ["wvat", "swa", "plain"],
        "mean": ["swa", "wvat", "plain"],
        "step time": ["swa", "wvat", "plain"],
    }
    assert found["last"] == ["plain", "wvat", "swa"]
    assert found["sorted"] == "ascending"
    assert found["hidden"] == [[False, True], [True, False]]
    before, printed, after = found["open"]
    assert before == after == [True] + [False] * (len(before) - 1)
    assert all(printed)
    assert "one (Suite one) on chips with Gaussian variation" in found["answer"]
    assert "3 of 3 chips work with wvat (95 % CI 29 .. 100 %)" in found["answer"]
    assert min(found["images"]) > 500
    text = browser.document(f"{league.as_uri()}#sort=0,4", tmp_path / "profile")
    first = text[text.index("<tbody>") :].split("</tbody>")[0]
    assert re.findall(r"<tr><td>(.*?)</td>", first) == ["swa", "wvat", "plain"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_nothing_overflows_at_400_pixels(league, tmp_path, scheme):
    script = """
      const shade = text => {
        const canvas = document.createElement("canvas").getContext("2d");
        canvas.fillStyle = text;
        const parts = canvas.fillStyle.match(/\\w\\w/g).map(two => Number.parseInt(two, 16) / 255);
        const [r, g, b] = parts.map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = shade(getComputedStyle(document.body).backgroundColor);
      const contrast = selector => {
        const ink = shade(getComputedStyle(document.querySelector(selector)).color);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
      };
      return {
        ground,
        contrasts: ["body", ".small", "nav a", "th button", "summary"].map(contrast),
        filter: getComputedStyle(document.images[0]).filter,
        width: window.innerWidth,
        overflow: document.documentElement.scrollWidth - window.innerWidth,
        letters: Math.min(...[...document.querySelectorAll("p, td, th, li, summary")].map(
          one => Number.parseFloat(getComputedStyle(one).fontSize))),
      };
    """
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    found = browser.ask(league, script, tmp_path / "profile", *dark, width=400)
    assert (found["ground"] < 0.05) == (scheme == "dark")
    assert ("invert" in found["filter"]) == (scheme == "dark")
    assert min(found["contrasts"]) > 4.5  # WCAG AA
    assert found["width"] == 400
    assert found["overflow"] <= 0
    assert found["letters"] >= 12


def test_the_page_of_the_repository_in_a_browser(tmp_path):
    copy = tmp_path / "report.html"
    copy.write_bytes(EXAMPLE.read_bytes())
    script = """
      const answer = document.querySelector(".answer");
      return {
        images: [...document.images].map(i => i.naturalWidth > 0),
        answer: answer.textContent,
        top: answer.getBoundingClientRect().bottom,
        overflow: document.documentElement.scrollWidth > window.innerWidth,
      };
    """
    found = browser.ask(copy, script, tmp_path / "p", width=400)
    assert len(found["images"]) > 5
    assert all(found["images"])
    assert re.search(r"\d+ of \d+ chips work with \S+ \(95 % CI \d+ \.\. \d+ %\)", found["answer"])
    assert found["top"] < 700  # without scrolling on a phone
    assert not found["overflow"]


def test_the_page_on_paper(league, tmp_path):
    done = tmp_path / "page.pdf"
    browser.run(league.as_uri(), tmp_path / "p", f"--print-to-pdf={done}")
    assert done.read_bytes()[:4] == b"%PDF"
