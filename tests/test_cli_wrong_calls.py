"""Wrong calls of the command line: one right message, exit code 2, no traceback."""

from __future__ import annotations

import re
import shutil

import pytest
from test_cli import RECIPE, _tiny_data, call, error

MINE = """
import torch
def make():
    return torch.nn.Linear(2, 2)
def data():
    return [(torch.eye(2), torch.arange(2))]
"""
COMPARE = ("compare", "--model", "mine:make", "--data", "mine:data")
FIT = ("devices", "fit", "cells.csv", "--out", "d.toml", "--level-column", "level")

CALLS = [
    # Names that do not exist.
    ("tran", "no such command 'tran'. Did you mean 'train'?"),
    ("--foo", "no such option: --foo"),
    ("train demo/wavt", "'demo/wavt' is no file, .*Did you mean 'demo/wvat'?"),
    ("train benchmarks/recipes/demo/wvat.toml", "Did you mean 'demo/wvat'?"),
    ("train demo", "'demo' is a suite: spikewvat bench demo. Its recipes: demo/adam, "),
    ("train extends.toml", "in 'extends.toml', extends = 'nope' is no file"),
    ("train tiny.toml training.epoch=1", "unknown key 'epoch'.*Did you mean 'epochs'?"),
    ("train tiny.toml training.optimizer=adan", "Did you mean 'adam'?"),
    ("train tiny.toml --preset papr", "'tiny.toml' has no preset 'papr'. Did you mean 'paper'?"),
    ("evaluate run --device gaussian:sgma=0.1", "unknown key 'sgma'.*Did you mean 'sigma'?"),
    ("evaluate run --corruption delition", "Did you mean 'deletion'?"),
    ("evaluate run --split tets", "'train', 'validation' or 'test'"),
    ("recipes copy demo/wavt", "Did you mean 'demo/wvat'?"),
    ("recipes lst", "no such command 'lst'"),
    ("bench dmo", "there is no suite 'dmo'.*Did you mean 'demo'?"),
    ("bench demo --rows wvt", "there is no row 'wvt'. Did you mean 'wvat'?"),
    ("bench demo --preset papr", "has no preset 'papr'. Valid: 'quick'"),
    ((*COMPARE[:2], "mine.py:make", *COMPARE[3:]), "expected a module. Write mine:make."),
    ((*COMPARE[:2], "mine:mke", *COMPARE[3:]), "has no function 'mke'. Did you mean 'make'?"),
    # Files and folders that are missing, or in each other's place.
    ("train gone.toml", "'gone.toml' is no file, and no recipe has that name"),
    ("train folder", "'folder' is a folder, and no recipe has that name"),
    ("train tiny.toml --out file", "cannot write into folder 'file'"),
    ("train tiny.toml --out file/x", "cannot write into folder 'file/x'"),
    ("train tiny.toml --out new --data-root gone", "there is no folder 'gone'. Check --data-root"),
    ("train tiny.toml --out new training.start=gone.pt", "'gone.pt': there is no such file"),
    ("train nmnist/wvat --out new", "'nmnist' needs a folder. Pass --data-root"),
    ("evaluate folder", "'folder' holds no run"),
    ("evaluate run --json folder", "'folder' is a folder. Pass the name of a file"),
    ("evaluate run --device gone.toml", "there is no file 'gone.toml'"),
    ("landscape gone", "'gone' is neither a folder nor a network that comes with the package"),
    ("convert gone", "'gone' is neither a run nor a weights file in one"),
    ("convert file", "'file' is neither a run nor a weights file in one"),
    ("bench folder", "there is no suite 'folder'"),
    ("bench demo --data-root gone", "there is no folder 'gone'. Check --data-root"),
    ("bench nmnist", "'nmnist' needs a folder. Pass --data-root"),
    ("report gone", "there is no folder 'gone'"),
    ("report folder", "'folder' holds no results. Run spikewvat bench"),
    ("recipes copy demo/wvat .", "'wvat.toml' exists. Choose another folder"),
    ((*FIT[:2], "gone.csv", *FIT[3:], "--value-column", "g"), "there is no file 'gone.csv'"),
    ((*FIT, "--value-column", "h"), "has no column named 'h'"),
    ("devices show folder", "'folder' cannot be read"),
    ("data check folder", "there is no folder 'folder/NMNIST/Train'"),
    # Wrong units, wrong signs, wrong kinds.
    ("evaluate run --target 90", "90 is not a share: write 0.9 for 90 %"),
    ("evaluate run --target 90%", "90% is not a share: write 0.9 for 90 %"),
    ("evaluate run --target all", "all is not a share: expected a number such as 0.9"),
    ("evaluate run --sigma 10", "it is a share, no percentage. Write 0.1 for 10 %"),
    ("evaluate run --sigma 10%", "--sigma '10%': expected numbers such as"),
    ("evaluate run --sigma nan", "nan: Input should be a finite number"),
    ("evaluate run --chips -3", "evaluation.chips = -3: Input should be greater than 0"),
    ("evaluate run --chips many", "invalid value for '--chips'"),
    ("evaluate run --device gaussian:sigma=0.1 --sigma 0.1", "has a size of its own"),
    ("evaluate run --severities 0.1", "need a corruption. Pass --corruption"),
    ("train tiny.toml training.lr=fast", "training.lr = 'fast': Input should be a valid number"),
    ("train tiny.toml --out new training.devices=99", "training.devices = 99: this machine has"),
    ("train tiny.toml --out new training.accelerator=gpuu", "[training] cannot be run here"),
    ("train tiny.toml training.lr", "override 'training.lr': expected key=value"),
    ("bench demo --jobs 0", "invalid value for '--jobs'"),
    ("evaluate run --jobs 0", "invalid value for '--jobs'"),
    ("evaluate run --crossbar rows=0", "rows must be a whole number of at least 1, got 0"),
    ("evaluate run --crossbar adc=8", "unknown key 'adc' in [evaluation.crossbar]"),
    ("bench demo --seeds -1", "--seeds '-1': expected whole numbers such as"),
    ("bench overhead --seeds 1", "--seeds: 'overhead' times training steps"),
    ((*COMPARE, "--target", "90"), "write 0.9 for 90 %"),
    ((*COMPARE, "--sigma", "10"), "--sigma: sigma must be at most 1, got 10.0"),
    ((*COMPARE, "--device", "gaussian:sigma=0.1", "--sigma", "0.1"), "has a size of its own"),
    # Runs that are damaged, or not what they are taken for.
    ("train tiny.toml --out run", "holds a checkpoint of an earlier run. Pass --resume"),
    (
        "train tiny.toml --out run --resume training.epochs=9",
        "training.epochs was 1, is 9.*for more epochs.*training.start=run/checkpoint.safetensors",
    ),
    ("train empty.toml", "the recipe lacks 'name'"),
    ("train broken.toml", "'broken.toml' is not a TOML file"),
    ("evaluate cut", "'cut/model.safetensors' is damaged"),
    ("evaluate bit", "'bit/model.safetensors' is damaged.*its checksum is wrong"),
    ("evaluate bare", "there is no file 'bare/model.safetensors'"),
    ("evaluate unreadable", "'unreadable/recipe.toml' is not a TOML file"),
    ("train tiny.toml --out cut --resume", "'cut/checkpoint.safetensors' is damaged"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with everything that the calls name."""
    with pytest.MonkeyPatch.context() as patch:
        _tiny_data.__wrapped__(patch)
        here = tmp_path_factory.mktemp("calls")
        patch.chdir(here)
        short = RECIPE.replace("epochs = 4", "epochs = 1").replace("start = 0.5", "start = 0.0")
        written = {
            "tiny.toml": short,
            "extends.toml": 'extends = "nope"',
            "empty.toml": "",
            "broken.toml": "name = = 1",
            "file": "x",
            "wvat.toml": "",
            "mine.py": MINE,
            "cells.csv": "level,g\n1,2\n",
        }
        for name, text in written.items():
            (here / name).write_text(text)
        (here / "folder").mkdir()
        call("train", "tiny.toml", "--out", "run", "--no-progress", "evaluation.chips=1")
        for name in ("cut", "bit", "bare", "unreadable"):
            shutil.copytree(here / "run", here / name)
        weights = (here / "run" / "model.safetensors").read_bytes()
        for name in ("model", "checkpoint"):
            (here / "cut" / f"{name}.safetensors").write_bytes(weights[:50])
        (here / "bit" / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
        (here / "bare" / "model.safetensors").unlink()
        (here / "unreadable" / "recipe.toml").write_bytes(bytes(range(128, 256)))
    return here


@pytest.mark.parametrize(
    ("words", "message"),
    CALLS,
    ids=[words if isinstance(words, str) else " ".join(words) for words, _ in CALLS],
)
def test_one_right_message(words, message, folder, monkeypatch):
    monkeypatch.delenv("SPIKEWVAT_DATA", raising=False)
    monkeypatch.chdir(folder)
    line = error(*(words.split() if isinstance(words, str) else words))
    pattern = ".*".join(map(re.escape, message.split(".*")))
    assert re.search(pattern, line), line
