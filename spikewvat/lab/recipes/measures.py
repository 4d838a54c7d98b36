"""What to do to the chips of a trained network, for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spikewvat.devices import DeviceModel, at_age
from spikewvat.devices.aging import changes_with_age
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.crossbars import read_crossbar, standing_in
from spikewvat.lab.recipes.devices import build_device
from spikewvat.lab.recipes.evaluation import converters
from spikewvat.lab.recipes.loaders import open_data
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.saved import final_weights, load_model, read_run
from spikewvat.robustness.measures import Measures, Told, find_measures


def plan_measures(
    out: Path | str,
    *,
    device: str,
    age: float | None = None,
    crossbar: str | None = None,
    target: float,
    share: float = 0.9,
    verify: Sequence[float] = (0.05, 0.1, 0.2),
    cells_readable: bool = True,
    chips: int = 25,
    seed: int = 0,
    data_root: Path | str | None = None,
    told: Told | None = None,
) -> Measures:
    """Try measures after programming on a trained network (see :func:`find_measures`).

    Args:
        out: Folder of a training run.
        device: The device, see :func:`spikewvat.lab.recipes.devices.stages`.
        age: Time since programming, in seconds; that of the device by default.
        crossbar: What stands around the devices; by default that of the run's recipe.
        target: Accuracy that a chip must reach to work.
        share: Share of the chips that must work.
        verify: Shares of the weights to verify.
        cells_readable: Whether the cells of a chip can be read.
        chips: Number of chips.
        seed: Seed of the chips.
        data_root: Folder of the data set; its usual location by default.
        told: Called with the name of each set before it is tried.

    Raises:
        CheckpointError: If ``out`` holds no run.
        RecipeError: If device or crossbar cannot be made, or the device does not know that age.
        DataError: If the data is missing or malformed.
    """
    made = _aged(build_device(device, "--device"), device, age)
    around = read_crossbar(crossbar, "--crossbar")
    resolved = resolve(read_run(out))
    data = open_data(resolved, data_root)
    tested = data.part(resolved.recipe.evaluation.split)
    resolved = resolved.with_input_shape(data.input_shape)
    model = load_model(out, resolved, weights=final_weights(out))
    samples = data.samples["train"]
    around = around or resolved.crossbar
    with converters(resolved.recipe, model, data):
        if around is not None:
            made = standing_in(made, around.on(model, data.calibration))
        return find_measures(
            model,
            tested,
            data.calibration,
            made,
            target=target,
            share=share,
            verify=verify,
            samples=min(64, max(1, samples // 4)),
            fisher_samples=min(400, samples),
            cells_readable=cells_readable,
            chips=chips,
            seed=seed,
            told=told,
            time="network",
        )


def _aged(device: DeviceModel, label: str, age: float | None) -> DeviceModel:
    if age is None:
        return device
    if not changes_with_age(device):
        raise RecipeError(f"--age {age:g} s: {label!r} does not change with time. Leave it out.")
    try:
        return at_age(device, age)
    except ValueError as error:
        raise RecipeError(f"--age: {error}") from error
