"""Long commands along the way: epochs inside jobs, Ctrl-C, yields with intervals."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from test_cli import RECIPE, _tiny_data, call  # noqa: F401  (the fixture serves here too)

from spikewvat import Gaussian, compare
from spikewvat.lab.suites.progress import Epochs, JobsProgress
from spikewvat.lab.trainer import checkpoint
from spikewvat.robustness.intervals import share_interval

BATCHES = [(torch.eye(2), torch.arange(2))]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(recipe, tmp_path, monkeypatch):
    real, saved = checkpoint.save, []

    def interrupted(path, loop, state, identity):
        if len(saved) == 2:
            raise KeyboardInterrupt
        real(path, loop, state, identity)
        saved.append(path)

    command = ["train", recipe, "--no-progress", "--out"]
    monkeypatch.setattr(checkpoint, "save", interrupted)
    done = call(*command, tmp_path / "run", code=130)
    assert done.stderr == (
        f"interrupted: 2 of 4 epochs are kept in {tmp_path / 'run'}. "
        "To go on, run the same command with --resume.\n"
    )
    monkeypatch.setattr(checkpoint, "save", real)
    call(*command, tmp_path / "run", "--resume")
    call(*command, tmp_path / "straight")
    weights = [tmp_path / name / "model.safetensors" for name in ("run", "straight")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_ctrl_c_in_the_first_epoch(recipe, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikewvat.lab.trainer.loop.Loop.epoch", interrupted)
    done = call("train", recipe, "--no-progress", "--out", tmp_path / "run", code=130)
    assert done.stderr == "interrupted: before the end of the first epoch, so nothing was kept.\n"


def test_ctrl_c_elsewhere(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikewvat.lab.recipes.evaluation.evaluate", interrupted)
    (tmp_path / "run").mkdir()
    done = call("evaluate", tmp_path / "run", code=130)
    assert done.stderr == "interrupted: nothing was kept.\n"


def test_epochs_are_read_from_logs_line_by_line(tmp_path):
    log, seen = tmp_path / "log.txt", []
    log.write_text("epoch 1/9  of an earlier run\n")
    with Epochs({"a": log, "b": tmp_path / "never.txt"}, lambda *epoch: seen.append(epoch)) as all_:
        with log.open("a") as file:
            file.write("epoch 2/9  loss 1.5\nsomething else\nepoch 3/")
            file.flush()
            all_.ended("unknown")
            all_._look("a")
            assert seen == [("a", 2, 9, "  loss 1.5")]
            file.write("9  loss 1.25\n")
        all_.ended("a")
    assert seen == [("a", 2, 9, "  loss 1.5"), ("a", 3, 9, "  loss 1.25")]


def lines_of(terminal):
    """Return what is shown of a job with two epochs."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with JobsProgress(2, console=console) as bar:
        bar.epoch("job", 1, 2, "  loss 1.5")
        bar.epoch("job", 2, 2, "  loss 1.0")
        shown = [task.fields["text"] for task in bar._bar.tasks]
        bar.job("job: done", name="job")
        bar.job()
        left = [task.fields["text"] for task in bar._bar.tasks]
    return shown, left, console.file.getvalue().splitlines()


def test_epochs_inside_jobs():
    shown, left, _ = lines_of(terminal=True)
    assert shown == ["0 of 2 done", "job: epoch 2/2"]
    assert left == ["2 of 2 done"]
    _, _, printed = lines_of(terminal=False)
    assert printed[:3] == ["job: epoch 1/2  loss 1.5", "job: epoch 2/2  loss 1.0", "job: done"]


def test_yields_of_a_comparison_have_intervals():
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 2)
    options = {"corruptions": {}, "chips": 8, "target": 0.9}
    found = compare(network, BATCHES, devices={"G": Gaussian, "fixed": Gaussian(0.5)}, **options)
    for name in ("G", "fixed"):
        count = found.row(name, "as it is").yield_at(0.9)
        low, high = share_interval(count.working, 8)
        assert f"{count.working} of 8 ({100 * low:.0f} .. {100 * high:.0f} %) at 90 %" in str(found)
    assert "with the 95 % CI over chips of this training" in str(found)
    assert len(found.row("fixed", "as it is").curves[0]) == 1


MINE = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.Linear(2, 2)
def loaders():
    batches = [(torch.eye(2), torch.arange(2))]
    return batches, batches
def train(model, loader, method):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        for inputs, labels in loader:
            optimizer.zero_grad()
            method.backward(lambda: torch.nn.functional.cross_entropy(model(inputs), labels))
            optimizer.step()
        method.epoch_ended(epoch, 2)
"""


def test_the_command_shows_epochs_and_yields(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own.py").write_text(MINE)
    command = ("compare", "--model", "my_own:make", "--data", "my_own:loaders", "--chips", 4)
    command += ("--device", "gaussian", "--device", "gaussian:sigma=0.3", "--out", "out")
    done = call(*command, "--train", "my_own:train", "--target", "0.9")
    assert "SWA, seed 0: epoch 2/2" in done.stderr.splitlines()
    assert "Chips that reach 90 %, with the 95 % CI" in done.stdout
    assert done.stdout.count(" of 4 (") == 2 * 3  # devices, methods
    assert "Say what a chip must reach, such as --target 0.9" in call(*command).stdout
