"""What a finished run leaves in its folder, and the network that it trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from spikewvat import files
from spikewvat.errors import CheckpointError
from spikewvat.lab.recipes import conversion
from spikewvat.lab.recipes.reading import recipe_from
from spikewvat.lab.recipes.resolve import Resolved
from spikewvat.lab.recipes.schema import Recipe
from spikewvat.lab.trainer import FINAL

RECIPE = "recipe.toml"
RESULT = "result.json"
CONVERTED = "snn.safetensors"


def read_run(out: Path | str) -> Recipe:
    """Return the recipe of a finished run.

    Raises:
        CheckpointError: If the folder holds no run.
    """
    path = Path(out) / RECIPE
    if not path.is_file():
        raise CheckpointError(
            f"{str(out)!r} holds no run: there is no {RECIPE}. "
            "Pass the --out folder of spikewvat train."
        )
    return recipe_from(files.read_toml(path))


def final_weights(out: Path | str) -> str:
    """Return the weights file of a run's final network, the converted one if there is one."""
    return CONVERTED if (Path(out) / CONVERTED).is_file() else FINAL


def load_model(out: Path | str, resolved: Resolved, *, weights: str = FINAL) -> nn.Module:
    """Make the recipe's network with the weights of a run, in evaluation mode.

    Args:
        out: Folder of the run.
        resolved: The run's recipe.
        weights: File in ``out``: a checkpoint, or the network of a conversion.

    Raises:
        CheckpointError: If the weights are missing, damaged or belong to another model.
    """
    path = Path(out) / weights
    model = resolved.build_model()
    if weights == CONVERTED and resolved.conversion is not None:
        model = conversion.restored(model, resolved.conversion, path)
    else:
        state = files.load(path)
        state = state["model"] if "position" in state else state  # of a checkpoint
        files.load_state(model, state, source=f"{str(path)!r}")
    on_gpu = resolved.recipe.training.accelerator != "cpu" and torch.cuda.is_available()
    return model.to("cuda" if on_gpu else "cpu").eval()
