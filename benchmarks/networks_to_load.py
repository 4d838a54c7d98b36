"""Train the networks that come with the package, and put them into spikewvat/lab/networks.

    python benchmarks/networks_to_load.py [--out runs/networks]

Each is a recipe of the suite ``demo`` with its own seed: ``spikewvat.lab.load("digits-wvat")``
loads what ``spikewvat train`` wrote. Takes about a minute for each on one core.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from spikewvat.lab.loading import NETWORKS
from spikewvat.lab.places import suites_folder
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes import run as runs
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.saved import RECIPE, RESULT
from spikewvat.lab.trainer import FINAL

RECIPES = {"digits-swa": "swa", "digits-wvat": "wvat", "digits-momentum": "momentum"}


def main() -> None:
    """Train all networks; those that are finished are only copied."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/networks"))
    out = parser.parse_args().out
    for name, recipe in RECIPES.items():
        run = out / name
        if not (run / RESULT).exists():
            path = suites_folder() / "demo" / f"{recipe}.toml"
            runs.train(resolve(read_recipe(path)), run, resume=True)
    for name in RECIPES:  # after all trainings: each result names a commit without changes
        (NETWORKS / name).mkdir(parents=True, exist_ok=True)
        for file in (RECIPE, FINAL, RESULT):
            shutil.copy(out / name / file, NETWORKS / name)


if __name__ == "__main__":
    main()
