"""Installed as a user would: from a wheel, into new environments, outside of the checkout.

Downloads packages and takes minutes; ``make test-install`` runs it. For a part of it:
``pytest -m slow tests/test_install.py -k "core or README"``.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from page_runner import examples

ROOT = Path(__file__).parent.parent
RUNNER = Path(__file__).parent / "page_runner.py"
TORCH = re.findall(r"^torch==.*", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NEEDS_CHECKOUT = {"gallery"}  # it draws the results of the benchmarks
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*"))]
    if page.suffix in (".md", ".ipynb") and page.stem not in NEEDS_CHECKOUT and examples(page)
]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without a trace of this environment."""
    kept = ("PATH", "HOME", "LANG", "OMP_NUM_THREADS", "SPIKEWVAT_CACHE")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**environment, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", ROOT, folder=folder)
    (file,) = folder.glob("spikewvat-*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Return a function that makes an environment with some extras, each once."""

    @functools.cache
    def made(extras: str, source: str = f"file://{wheel}") -> Path:
        folder = tmp_path_factory.mktemp("environment")
        run(sys.executable, "-m", "venv", folder, folder=folder)
        pip = (folder / "bin" / "pip", "install", "-q", "-c", ROOT / "constraints.txt")
        run(*pip, TORCH, folder=folder)
        wanted = f"spikewvat[{extras}]" if extras else "spikewvat"
        run(*pip, f"{wanted} @ {source}", folder=folder)
        return folder / "bin"

    return made


LOOP = """
import torch
from spikewvat import WVAT, Evaluator, Gaussian
{network}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
wvat = WVAT(model, Gaussian(sigma=0.1))
spikes, labels = (torch.rand(5, 8, *shape) < 0.3).float(), torch.arange(8) % 4
loss = wvat.backward(lambda: torch.nn.functional.cross_entropy(model(spikes).sum(0), labels))
optimizer.step()
print(Evaluator(model, [(spikes, labels)]).chips(Gaussian(sigma=0.1), chips=3, target=0.1))
"""
LAYERS = "shape = (6,)\nmodel = torch.nn.Sequential(torch.nn.Linear(6, 4))"
CNN = "shape = (2, 34, 34)\nfrom spikewvat.lab.models.{} import SpikingCNN\nmodel = SpikingCNN()"
COMMAND = """
import sys
from spikewvat.__main__ import main
small = "data.per_class=2 training.epochs=1 evaluation.chips=2 evaluation.images=50 {more}"
words = "train demo/adam model=lif-fc --out run --no-progress " + small
sys.argv = ["spikewvat", *words.split()]
main()
"""
WORKS = {
    "": LOOP.format(network=LAYERS),
    "snntorch": LOOP.format(network=CNN.format("snntorch")),
    "spikingjelly": LOOP.format(network=CNN.format("spikingjelly")),
    "digits": "from spikewvat.data import embedded_root; print(embedded_root())",
    "cli": COMMAND.format(more=""),
    "tensorboard": COMMAND.format(more="training.tensorboard=true"),
    "dask": "import spikewvat.lab.suites, distributed; print(distributed.__version__)",
    "vision": "from spikewvat.lab.models.vision import mobilenet_v2; print(type(mobilenet_v2()))",
    "tonic": """
import torch
from spikewvat.data import NMNIST
from spikewvat.data.saccades import write_recordings
images, labels, generator = torch.rand(10, 28, 28), list(range(10)), torch.Generator()
write_recordings("NMNIST/Test", images, labels, range(10), generator=generator)
print(NMNIST(".", "test", time_steps=2, denoise_us=10_000, stabilize=True)[0][0].shape)
""",
}


def test_every_extra_for_users_is_tried():
    assert set(WORKS) - {""} == set(EXTRAS) - {"all", "dev", "docs"}


@pytest.mark.parametrize("extra", WORKS, ids=lambda extra: extra or "core")
def test_an_extra_alone(extra, environment, tmp_path):
    python = environment(extra) / "python"
    assert run(python, "-I", "-c", WORKS[extra], folder=tmp_path).stdout
    assert run(python, "-m", "spikewvat", "--version", folder=tmp_path).stdout.startswith("spike")


def test_from_git(environment, tmp_path):
    python = environment("snntorch", f"git+file://localhost{ROOT}") / "python"
    assert "yield" in run(python, "-I", "-c", WORKS["snntorch"], folder=tmp_path).stdout


def test_commands_in_an_empty_folder(environment, tmp_path):
    bin_ = environment("all")
    names = run(bin_ / "spikewvat", "recipes", folder=tmp_path).stdout
    assert "  demo/wvat " in names
    small = ["data.per_class=2", "training.epochs=2", "evaluation.chips=2", "evaluation.images=50"]
    train = (bin_ / "spikewvat", "train", "--no-progress")
    run(*train, "demo/wvat", "--out", "run", *small, folder=tmp_path)
    run(bin_ / "spikewvat", "recipes", "copy", "demo/swa", ".", folder=tmp_path)
    run(*train, "swa.toml", *small, folder=tmp_path)
    assert (tmp_path / "runs" / "demo-swa-seed0" / "result.json").is_file()
    packages = run(bin_ / "pip", "list", folder=tmp_path).stdout.lower()
    assert not re.search(r"^(pytest|mypy|ruff|hypothesis)\b", packages, re.MULTILINE)


def masked(text: str) -> str:
    """Return a text without its figures."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs_and_shows_what_it_says(page, environment, tmp_path):
    """A page to begin with needs what its install line brings, any other may need ``all``."""
    first = page.name == "README.md" or page.parent.name == "tutorials"
    lines = re.findall(r"spikewvat\[([a-z,]+)\]", page.read_text(encoding="utf-8"))
    python = environment(lines[0] if first and lines else "all") / "python"
    done = run(python, "-I", RUNNER, page, folder=tmp_path)
    for example in json.loads(done.stdout.splitlines()[-1]):
        if example["said"] is not None:
            assert masked(example["printed"]) == masked(example["said"])
