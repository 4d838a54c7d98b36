"""Suites: rows, jobs that run once, failures that stop nothing, the table."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_cli import RECIPE, _tiny_data, call, error  # noqa: F401  (the fixture serves here too)

from spikewvat import files
from spikewvat.devices import ErrorSize, Gaussian
from spikewvat.errors import CheckpointError, DataError, RecipeError
from spikewvat.lab.places import suite_names
from spikewvat.lab.recipes import run as runs
from spikewvat.lab.suites import jobs_of, markdown, read_suite, run_suite
from spikewvat.lab.suites.suite import Row, suites_folder
from spikewvat.lab.suites.table import cells, errors_note, published, sizes_note
from spikewvat.results import RowResult
from spikewvat.robustness import ChipReport, Degradation
from spikewvat.serialisation import plain, read, write

SUITE = """
title = "Tiny"
source = "the paper"
hint = "try more"
[seeds]
quick = [0, 1]
paper = [0, 1, 2]
[[setups]]
name = "CNN"
rows = [
    { method = "plain", recipe = "plain.toml", paper = [[98.0, 0.1], [80.0, 2.0]] },
    { method = "WVAT", recipe = "wvat.toml" },
]
"""


@pytest.fixture
def suite(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "suite.toml").write_text(SUITE)
    (folder / "wvat.toml").write_text(RECIPE)
    (folder / "plain.toml").write_text('extends = "wvat.toml"\nmethod = "plain"\n')
    return folder


def test_setups_of_some_presets_only(suite):
    text = (suite / "suite.toml").read_text()
    (suite / "suite.toml").write_text(
        text
        + '[[setups]]\nname = "large"\npresets = ["paper"]\n'
        + 'rows = [{ method = "WVAT", recipe = "large.toml", paper = [[98.0], [80.0, 2.0]] }]\n'
    )
    tables = read_suite(suite)
    assert [row.name for row in tables.at(None).rows] == ["plain", "wvat"]
    assert [row.name for row in tables.at("paper").rows] == ["plain", "wvat", "large"]
    assert tables.rows[-1].paper == ((98.0,), (80.0, 2.0))
    with pytest.raises(RecipeError, match=r"no selected set-up of .* Pass --preset paper"):
        tables.chosen(["large"]).at("quick")


def trained(monkeypatch):
    """Count the trainings."""
    names = []
    real = runs.train

    def counted(resolved, *arguments, **options):
        names.append((resolved.recipe.method.name, resolved.recipe.seed))
        return real(resolved, *arguments, **options)

    monkeypatch.setattr(runs, "train", counted)
    return names


def test_a_suite_from_the_command_line(suite, tmp_path, monkeypatch):
    names = trained(monkeypatch)
    arguments = ["bench", suite, "--out", tmp_path / "runs", "--jobs", 1]
    done = call(*arguments, "--results", tmp_path / "results")
    assert sorted(names) == [("plain", 0), ("plain", 1), ("wvat", 0), ("wvat", 1)]
    assert "plain, seed 1: no variation" in done.stderr
    assert done.stderr.count(": epoch 4/4  loss ") == 4  # a line an epoch, of each training
    assert done.stdout.rstrip().endswith("try more")
    row = read(tmp_path / "results" / "wvat.json", RowResult)
    assert row.recipe["method"]["name"] == "wvat"
    assert row.versions["torch"]
    assert row.seeds == (0, 1)
    assert [len(curve) for curve in row.curves] == [2, 2]
    table = (tmp_path / "runs" / "tiny" / "table.md").read_text()
    assert table.count("\n| plain |") == table.count("\n| WVAT |") == 1
    assert "(98.0, " in table
    assert "2 training seeds" in table
    assert (tmp_path / "runs" / "tiny" / "accuracy.png").stat().st_size > 10_000

    call(*arguments)  # all is done
    assert len(names) == 4
    call(*arguments, "--rows", "w*", "--seeds", "2")
    assert names[4:] == [("wvat", 2)]
    call(*arguments, "--rows", "w*", "--seeds", "2", "--override", "training.lr=0.01")
    assert names[5:] == [("wvat", 2)]  # another recipe is another job


def test_a_failing_job_does_not_stop_the_rest(suite, tmp_path, monkeypatch):
    real = runs.train

    def sometimes(resolved, *arguments, **options):
        if resolved.recipe.method.name == "plain":
            raise ValueError("no luck\ntoday")
        return real(resolved, *arguments, **options)

    monkeypatch.setattr(runs, "train", sometimes)
    done = call("bench", suite, "--out", tmp_path / "runs", "--jobs", 1, "--seeds", "0", code=1)
    assert "error: plain, seed 0: ValueError: no luck today (see" in done.stderr
    (log,) = (tmp_path / "runs" / "tiny").glob("plain-seed0-*/error.txt")
    assert str(log) in done.stderr
    (log,) = (tmp_path / "runs" / "trained").glob("tiny-snntorch-cnn-swa-seed0-*/error.txt")
    assert "Traceback" in log.read_text()
    table = (tmp_path / "runs" / "tiny" / "table.md").read_text()
    assert "| plain | - | - |" in table
    (found,) = (line for line in table.splitlines() if line.startswith("| WVAT"))
    assert "| - |" not in found


def test_rows_that_change_keys_and_rows_that_only_test(suite, tmp_path, monkeypatch):
    text = (suite / "suite.toml").read_text()
    rows = """rows = [
    { method = "tested", recipe = "wvat.toml" },
    { method = "weibull", recipe = "wvat.toml", evaluation = "weibull" },
    { method = "again", recipe = "wvat.toml", name = "own-name", evaluation = "weibull" },
    { method = "w 0", recipe = "wvat.toml", name = "w-0", overrides = ["method.w_th=0.0"] },
    { method = "chips", recipe = "wvat.toml", name = "chips", overrides = ["evaluation.chips=2"] },
]
"""
    (suite / "suite.toml").write_text(text[: text.index("rows = [")] + rows)
    variant = '[evaluation.variant.weibull]\ndevice = "weibull"\nsigmas = [0.2]\n'
    (suite / "wvat.toml").write_text(RECIPE + variant)
    names = trained(monkeypatch)
    arguments = ["bench", suite, "--out", tmp_path / "runs", "--jobs", 1, "--seeds", "0"]
    call(*arguments, "--results", tmp_path / "results")
    assert names == [("wvat", 0), ("wvat", 0)]  # w_th is of the training, chips are not
    found = {p.stem: read(p, RowResult) for p in (tmp_path / "results").glob("*.json")}
    assert set(found) == {"wvat", "wvat-weibull", "own-name", "w-0", "chips"}
    assert found["w-0"].recipe["method"]["w_th"] == 0.0
    assert "w_th" not in found["wvat"].recipe["method"]
    assert found["chips"].curves[0][0].chips == 2
    assert found["wvat-weibull"].sigmas == (0.2,)
    assert "Weibull" in found["wvat-weibull"].curves[0][0].device
    assert curves_of(found["wvat-weibull"]) == curves_of(found["own-name"])
    assert found["wvat-weibull"].clean == found["wvat"].clean
    assert found["wvat"].seconds == found["chips"].seconds
    assert len(list((tmp_path / "runs" / "trained").iterdir())) == 2
    call(*arguments, "--override", "evaluation.chips=4")
    assert len(names) == 2
    # Another suite that trains the same network takes it from there.
    other = suite.rename(tmp_path / "other")
    call("bench", other, *arguments[2:], "--rows", "wvat")
    assert len(names) == 2
    assert (tmp_path / "runs" / "other" / "wvat.json").is_file()


CROSSED = """
[[groups]]
name = "old"
key = "pcm"
overrides = ["evaluation.device=pcm", "evaluation.ages=[10.0]"]
[[groups]]
name = "noisy"
key = "noise"
overrides = ["evaluation.sigmas=[0.1]"]
[[tests]]
key = "nothing"
method = "nothing"
[[tests]]
key = "scale"
method = "factors"
overrides = ["evaluation.calibrate=scale", "evaluation.before=false"]
groups = ["pcm"]
"""


def test_rows_that_go_through_all_groups_and_tests(suite):
    crossed = SUITE.replace('name = "CNN"', 'name = "CNN"\ncrossed = true')
    (suite / "suite.toml").write_text(crossed.replace("[[setups]]", CROSSED + "[[setups]]"))
    found = read_suite(suite)
    assert [setup.name for setup in found.setups] == ["CNN: old", "CNN: noisy"]
    kinds = ("pcm-nothing", "pcm-scale", "noise-nothing")
    assert {row.name for row in found.rows} == {
        f"{n}-{k}" for n in ("plain", "wvat") for k in kinds
    }
    assert found.rows[1].method == "plain: factors"
    jobs = jobs_of(found, preset=None, seeds=[0])
    assert len({job.training for job in jobs}) == 2
    (job,) = (job for job in jobs if job.row == "wvat-pcm-scale")
    assert job.recipe.evaluation.ages == (10.0,)
    assert str(job.recipe.evaluation.calibrate) == "scale"
    lost = CROSSED.replace('["pcm"]', '["pmc"]')
    (suite / "suite.toml").write_text(crossed.replace("[[setups]]", lost + "[[setups]]"))
    with pytest.raises(RecipeError, match="has no group 'pmc'. Did you mean 'pcm'"):
        read_suite(suite)


def test_what_a_training_depends_on(suite):
    (job,) = jobs_of(read_suite(suite).chosen(["wvat"]), preset=None, seeds=[0])

    def identity(*overrides):
        chosen = read_suite(suite).chosen(["wvat"])
        (other,) = jobs_of(chosen, preset=None, seeds=[0], overrides=overrides)
        return other.training.identity

    assert identity("evaluation.images=7", "description=other") == job.training.identity
    assert identity("training.epochs=7") != job.training.identity
    assert identity("model.channels=[4]") != job.training.identity
    # An early stop looks at the test images where none are held out.
    patient = ("training.patience=1",)
    assert identity(*patient, "evaluation.images=7") != identity(*patient)
    held_out = (*patient, "training.validation=0.2")
    assert identity(*held_out, "evaluation.images=7") == identity(*held_out)


def test_tables_of_devices_without_a_size_and_times(suite):
    def chips(sigma, *accuracies):
        found = torch.tensor(accuracies, dtype=torch.float64)
        return ChipReport("d", sigma, found, tuple(range(len(found))), 10)

    samples = {"train": 1, "test": 1}
    sizes = {"scale": "quick", "samples": samples}
    curve = Degradation(0.9, (chips(None, 0.8, 0.6),))
    first_row = RowResult((0,), (curve,), (2.0,), **sizes)
    curve = Degradation(0.9, (chips(0.0, 0.9), chips(0.1, 0.8)))
    wvat = RowResult((0,), (curve,), (3.0,), **sizes)
    assert cells(first_row) == ["90.0", "70.0", "20.0", "14.1", "60.0", "-"]
    text = (suite / "suite.toml").read_text()
    other = '[[setups]]\nname = "other"\nrows = [{ method = "WVAT", recipe = "wvat.toml" }]\n'
    text = text[: text.rindex("    {")] + "]\n" + other
    (suite / "suite.toml").write_text(text.replace('"CNN"', '"CNN"\nbaseline = "plain"'))
    tables = read_suite(suite)
    first, second, note = markdown(tables, {"plain": first_row, "wvat": wvat}).split("\n\n")
    assert "| no variation | on chips | drop | spread" in first
    assert first.splitlines()[-1].startswith("| CNN | plain | 90.0 (98.0, -8.0) | 70.0 (80.0,")
    assert first.splitlines()[-1].endswith("| - | 1.00 |")
    assert "| σ = 0 % | σ = 10 % | drop at 10 % |" in second
    assert second.splitlines()[-1] == "| other | WVAT | 90.0 | 80.0 | 10.0 | - | 80.0 | - |"
    assert "Training time is in units of the first method's: 2 s." in note
    # Set-ups without any result yet are shown in the first table.
    first, note = markdown(tables, {"wvat": wvat}).split("\n\n")
    assert "| CNN | plain | - |" in first


def test_a_row_that_looks_around_the_weights(suite, tmp_path):
    text = (suite / "suite.toml").read_text()
    rows = """rows = [
    { method = "chips", recipe = "wvat.toml" },
    { method = "around", recipe = "wvat.toml", landscape = "few" },
]
"""
    (suite / "suite.toml").write_text(text[: text.index("rows = [")] + rows)
    table = "[landscape]\nsigma = 0.1\npoints = 3\n[landscape.variant.few]\ndirections = 3\n"
    (suite / "wvat.toml").write_text(RECIPE + table)
    arguments = ["bench", suite, "--out", tmp_path / "runs", "--jobs", 1, "--seeds", "0"]
    call(*arguments, "--override", "landscape.chips=2")
    chips = read(tmp_path / "runs" / "tiny" / "wvat.json", RowResult)
    around = read(tmp_path / "runs" / "tiny" / "wvat-few.json", RowResult)
    # A line leads to the chip of its number.
    assert around.sigmas == chips.sigmas == (0.0, 0.1)
    ours, theirs = (found.curves[0][1] for found in (around, chips))
    assert torch.equal(ours.accuracies, theirs.accuracies)
    assert len(ours.losses) == 3
    (found,) = around.landscape
    assert found.lines.losses.shape == (3, 3)
    assert found.sharpness.report.chips == 2
    assert around.recipe["landscape"]["directions"] == 3
    assert (tmp_path / "runs" / "tiny" / "landscape1-lines.png").stat().st_size > 10_000
    assert chips.landscape == ()
    line = error(*arguments, "--override", "landscape.device=gausian")
    assert "landscape.device = 'gausian' is unknown. Did you mean 'gaussian'" in line


def test_missing_data_is_skipped_not_failed(suite, tmp_path, monkeypatch):
    monkeypatch.delenv("SPIKEWVAT_DATA", raising=False)
    real = '[data]\nname = "nmnist"\ntime_steps = 2\n'
    (suite / "plain.toml").write_text('extends = "wvat.toml"\nmethod = "plain"\n' + real)
    arguments = ["bench", suite, "--out", tmp_path / "runs", "--jobs", 1, "--seeds", "0"]
    done = call(*arguments)
    assert done.stderr.count("the data set 'nmnist' needs") == 1
    assert "skipped: plain: the data set 'nmnist' needs" in done.stderr
    assert "error:" not in done.stderr
    line = error(*arguments, "--rows", "plain", "--seeds", "0,1")  # nothing is left
    assert line.startswith("error: the data set 'nmnist' needs a folder. Pass --data-root")
    assert "there is no folder" in error(*arguments, "--data-root", tmp_path / "gone")


def test_a_full_disk_at_the_end_is_one_line(suite, tmp_path, monkeypatch):
    arguments = ["bench", suite, "--out", tmp_path / "runs", "--jobs", 1, "--seeds", "0"]
    call(*arguments)
    real = files.write_atomic

    def full(path, content):
        if path.name == "plain.json":
            raise CheckpointError(f"cannot write {str(path)!r}: No space left on device.")
        real(path, content)

    monkeypatch.setattr(files, "write_atomic", full)
    done = call(*arguments, code=1)
    (line,) = (text for text in done.stderr.splitlines() if text.startswith("error"))
    assert "No space left" in line
    assert "WVAT" in done.stdout


def test_a_cell_that_was_cut_off_goes_on(suite, tmp_path, monkeypatch):
    (job,) = jobs_of(read_suite(suite).chosen(["wvat"]), preset=None, seeds=[0])
    straight = run_suite([job], tmp_path / "straight").rows["wvat"]
    real, calls = torch.optim.Adam.step, []

    def dies(self, *arguments, **options):
        calls.append(None)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            run_suite([job], tmp_path / "cut")
    assert (job.training.folder(tmp_path / "cut") / "checkpoint.safetensors").is_file()
    names = trained(monkeypatch)
    resumed = run_suite([job], tmp_path / "cut").rows["wvat"]
    assert names == [("wvat", 0)]
    assert curves_of(resumed) == curves_of(straight)


def curves_of(result):
    return [plain(curve) for curve in result.curves]


def report(sigma, accuracies):
    return ChipReport(
        "d", sigma, torch.tensor(accuracies, dtype=torch.float64), (0, 1), 10, target=0.8
    )


def test_cells_of_a_table(suite):
    curves = (
        Degradation(0.98, (report(0.0, [0.98, 0.98]), report(0.1, [0.7, 0.9]))),
        Degradation(0.96, (report(0.0, [0.96, 0.96]), report(0.1, [0.8, 0.6]))),
    )
    result = RowResult((0, 1), curves)
    row = read_suite(suite).rows[0]
    assert cells(result, row) == [
        "97.0 ± 1.4 (98.0, -1.0)",
        "75.0 ± 7.1 (80.0, -5.0)",
        "22.0 (18.0, +4.0)",
        "14.1",
        "60.0",
        "2 of 4 ≥ 80 %",
    ]
    assert cells(RowResult((0,), curves[:1]))[:2] == ["98.0", "80.0"]


def test_published_figures_with_and_without_ideal_weights():
    result = RowResult((0,), (Degradation(0.98, (report(0.05, [0.7, 0.9]),)),))
    without = Row(method="a", recipe="a.toml", paper=((85.0,),))
    both = Row(method="a", recipe="a.toml", paper=((97.0,), (85.0,)))
    assert cells(result, without)[:3] == ["98.0", "80.0 (85.0, -5.0)", "18.0"]
    found = ["98.0 (97.0, +1.0)", "80.0 (85.0, -5.0)", "18.0 (12.0, +6.0)"]
    assert cells(result, both)[:3] == found
    assert published(without, result) == published(both, result) == 85.0
    assert published(Row(method="a", recipe="a.toml"), result) is None


@pytest.mark.parametrize(
    ("device", "relative_to"),
    [
        ("Gaussian(sigma=0.1, range=SixSigma(per_channel=False))", "the 6-sigma width"),
        ("Gaussian(sigma=0.1, range=HalfWidth(per_channel=True))", "half of the 6-sigma width"),
        ("Quantized(bits=4) >> Gaussian(sigma=0.1, range=AbsMax())", "the largest magnitude"),
        ("Lognormal(sigma=0.1)", "the logarithm of each weight"),
    ],
)
def test_the_note_says_what_sigma_is_relative_to(device, relative_to):
    found = dataclasses.replace(report(0.1, [0.7, 0.9]), device=device)
    note = sizes_note([RowResult((0,), (Degradation(0.98, (found,)),))])
    assert note.startswith(f"σ relative to {relative_to}")


def test_errors_are_told_in_every_convention():
    report = ChipReport(repr(Gaussian(0.1)), 0.1, torch.ones(2).double(), (0, 1), 9)
    curves = (Degradation(1.0, (report,)),) * 2
    sizes = (ErrorSize(0.1, 0.3, 2.0), ErrorSize(0.1, 0.4, 2.0))
    row = RowResult((0, 1), curves, errors=sizes)
    assert errors_note([row]) == (
        "errors at σ = 10 % are 10.0 % of the 6-sigma width = 35.4 % of the largest weight = 2 in "
        "units of conductance"
    )
    assert errors_note([RowResult((0, 1), curves)]) == ""
    with pytest.raises(ValueError, match="errors are 1, expected one for each seed"):
        RowResult((0, 1), curves, errors=sizes[:1])


def test_a_result_file_is_read_back(suite, tmp_path):
    (job,) = jobs_of(read_suite(suite).chosen(["wvat"]), preset=None, seeds=[1])
    result = run_suite([job], tmp_path / "runs").rows["wvat"]
    write(tmp_path / "row.json", result)
    again = read(tmp_path / "row.json", RowResult)
    assert cells(again) == cells(result)
    (tmp_path / "row.json").write_text("{}")
    with pytest.raises(DataError, match="holds 'no named kind of result', expected 'RowResult 1'"):
        read(tmp_path / "row.json", RowResult)
    with pytest.raises(DataError, match="no row of 'Tiny' has a result yet"):
        markdown(read_suite(suite), {})


def test_wrong_input_is_one_line(suite, tmp_path):
    out = ("--out", tmp_path / "runs")
    assert "there is no suite 'demmo'" in error("bench", "demmo", *out)
    assert "'demo'" in error("bench", "demmo", *out)
    assert "there is no row 'wvatt'" in error("bench", suite, "--rows", "wvatt", *out)
    assert "no preset 'huge'" in error("bench", suite, "--preset", "huge", *out)
    assert "--seeds '0,x': expected whole" in error("bench", suite, "--seeds", "0,x", *out)
    assert "a number is repeated" in error("bench", suite, "--seeds", "0,0", *out)
    assert "unknown key 'lrr'" in error("bench", suite, "--override", "training.lrr=1", *out)
    (suite / "suite.toml").write_text(SUITE.replace("plain.toml", "wvat.toml"))
    assert "has two rows named wvat" in error("bench", suite, *out)
    named = SUITE.replace('name = "CNN"', 'name = "CNN"\nbaseline = "plan"')
    (suite / "suite.toml").write_text(named)
    assert "names an unknown row or method 'plan'. Did you mean 'plain'?" in error(
        "bench", suite, *out
    )
    evaluated = SUITE.replace('recipe = "wvat.toml"', 'recipe = "wvat.toml", evaluation = "x"')
    (suite / "suite.toml").write_text(evaluated)
    assert "has no [evaluation.variant.x]" in error("bench", suite, *out)
    assert "which SUITE? There are" in error("bench")
    (suite / "suite.toml").write_text(SUITE.replace("[[setups]]", "[[setup]]"))
    assert "setup" in error("bench", suite, *out)
    (suite / "suite.toml").write_text(SUITE.replace('method = "WVAT"', "method = 3"))
    assert "setups.0.rows.1.method" in error("bench", suite, *out)


@pytest.mark.parametrize("folder", sorted(p.parent for p in suites_folder().glob("*/suite.toml")))
def test_every_recipe_of_the_suites_is_sound(folder):
    suite = read_suite(folder)
    for preset, seeds in suite.seeds.items():
        assert jobs_of(suite, preset=preset, seeds=seeds[:1])
    named = {row.recipe for row in suite.rows if not row.recipe.startswith("../")}
    assert named == {path.name for path in folder.glob("*.toml")} - {"suite.toml"}


def test_the_suites_are_listed():
    listed = call("bench", "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == suite_names()
    assert "Embedded event digits" in next(line for line in listed if line.startswith("demo "))
    assert all(name in error("bench") for name in suite_names())


def test_a_missing_recipe_is_an_error(suite):
    (suite / "plain.toml").unlink()
    with pytest.raises(RecipeError, match="plain.toml"):
        jobs_of(read_suite(suite), preset=None, seeds=[0])
