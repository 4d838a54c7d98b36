"""Convert the network of a run: calibrate, fine-tune, test over time and on chips."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn
from torch.utils.data import DataLoader, Subset

from spikewvat import files, serialisation
from spikewvat.conversion import (
    SpikingNetwork,
    convert,
    sweep_time,
)
from spikewvat.data import make_loader
from spikewvat.errors import CheckpointError, RecipeError
from spikewvat.lab.recipes.conversion import KEY, ConversionPlan
from spikewvat.lab.recipes.evaluation import (
    converters,
    errors_on_chips,
    on_chips,
    run_result,
)
from spikewvat.lab.recipes.finetune import fine_tuned
from spikewvat.lab.recipes.loaders import Data, open_data, spread
from spikewvat.lab.recipes.lock import alone_in
from spikewvat.lab.recipes.registry import construct
from spikewvat.lab.recipes.resolve import Resolved
from spikewvat.lab.recipes.results import RunResult, Training
from spikewvat.lab.recipes.saved import CONVERTED, RECIPE, RESULT, load_model
from spikewvat.lab.recipes.schema import PRECISE, Recipe
from spikewvat.lab.trainer import CHECKPOINT, FINAL
from spikewvat.lab.trainer.checkpoint import check_identity
from spikewvat.lab.trainer.console import Tracked
from spikewvat.lab.trainer.loop import derived_seed
from spikewvat.results import Converted
from spikewvat.robustness import Evaluator

_BALANCING = "balancing-{}.safetensors"  # half-way results, named after all they depend on


def find(source: Path | str) -> tuple[Path, str]:
    """Return the folder of a run and the weights file to use.

    Args:
        source: Folder written by ``train``, or a weights file in it.

    Raises:
        CheckpointError: If ``source`` is neither.
    """
    path = Path(source)
    if path.is_dir():
        return path, FINAL
    if path.is_file() and (path.parent / RECIPE).is_file():
        return path.parent, path.name
    raise CheckpointError(
        f"{str(path)!r} is neither a run nor a weights file in one. "
        "Pass the --out folder of spikewvat train, or a weights file in it."
    )


def convert_run(
    source: Path | str,
    out: Path | str,
    resolved: Resolved,
    *,
    data_root: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> RunResult:
    """Convert a trained network, fine-tune it if the recipe asks for it, and test it.

    Writes ``recipe.toml``, ``snn.safetensors`` and ``result.json``, and ``checkpoint.safetensors``
    during fine-tuning.

    Args:
        source: Folder written by ``train``, or a weights file in it.
        out: Folder for the files.
        resolved: The run's recipe, including its ``conversion``.
        data_root: Folder of the recipe's data set; its usual location by default.
        resume: Resume an interrupted conversion in ``out``.
        progress: Show progress bars.

    Returns:
        The content of ``result.json``.

    Raises:
        RecipeError: If the recipe has no conversion, or a value is invalid.
        UnsupportedModelError: If the network cannot be converted.
        DataError: If the data is missing or malformed.
        CheckpointError: If there is no trained network, files cannot be written or belong to
            another run, or another process is at work in ``out``.
        DivergedError: If the fine-tuning loss is no longer finite.
    """
    folder, weights = find(source)
    with alone_in(out):
        return _convert_run(folder, weights, Path(out), resolved, data_root, resume, progress)


def _convert_run(
    folder: Path,
    weights: str,
    out: Path,
    resolved: Resolved,
    data_root: Path | str | None,
    resume: bool,
    progress: bool,
) -> RunResult:
    """Convert the network of a folder into another one that nobody else works in."""
    conversion = resolved.conversion
    if conversion is None:
        raise RecipeError("the recipe lacks 'conversion'. Add a table [conversion].")
    plan = conversion.table
    resolved = resolved.evaluated(batch_size=plan.batch_size, precision=PRECISE)
    data = open_data(resolved, data_root)
    resolved = resolved.with_input_shape(data.input_shape)
    ann = load_model(folder, resolved, weights=weights)
    if plan.images is not None:
        resolved = resolved.evaluated(images=plan.images)
    recipe, tested = resolved.recipe, resolved.recipe.evaluation
    _claim(out, folder, recipe, resume=resume)
    content = (folder / weights).read_bytes()
    digest = hashlib.sha256(content + repr(recipe.content()).encode()).hexdigest()[:8]
    half_way = out / _BALANCING.format(digest)
    began = time.monotonic()
    snn = _converted(ann, data, recipe, conversion, half_way, progress=progress)
    balanced = time.monotonic() - began
    history = fine_tuned(
        snn, data, recipe, conversion, out, digest, resume=resume, progress=progress
    )
    files.save(out / CONVERTED, snn.state_dict())

    test = data.part(tested.split).dataset
    loader = make_loader(test, plan.batch_size, workers=recipe.training.workers)
    seed = derived_seed(recipe.seed, "balancing")
    calibration = _calibration(data, recipe, conversion)
    fit = None if history else conversion.fitting(calibration, seed)  # tuned weights suit one T
    over_time = sweep_time(
        snn,
        Tracked(loader, "over time", enabled=progress),
        conversion.steps(snn.time_steps),
        fit=fit,
    )
    some = spread(test, plan.images)
    with converters(recipe, snn, data):
        found = on_chips(
            snn,
            make_loader(some, plan.batch_size, workers=recipe.training.workers),
            resolved,
            data,
            progress=progress,
        )
    result = run_result(
        resolved,
        found,
        is_converted=True,
        converted=Converted(
            ann=Evaluator(ann, loader, time="network").accuracy,
            over_time=over_time,
            thresholds={name: t.tolist() for name, t in snn.thresholds().items()},
            seconds=balanced,
        ),
        run=str(folder),
        weights=weights,
        errors=errors_on_chips(snn, resolved, found),
        training=Training(
            epochs=len(history),
            samples={**data.samples, tested.split: len(some)},
            history=tuple(history),
        ),
    )
    serialisation.write(out / RESULT, result)
    half_way.unlink(missing_ok=True)
    return result


def _claim(out: Path, source: Path, recipe: Recipe, *, resume: bool) -> None:
    """Write the recipe into a new folder, or one in which the same conversion has started."""
    if out.resolve() == source.resolve():
        raise CheckpointError(
            f"--out {str(out)!r} is the folder of the run to convert. Choose another one."
        )
    files.check_writable(out)
    path = out / RECIPE
    begun = [CHECKPOINT, FINAL, CONVERTED, RESULT, _BALANCING.format("*")]
    if any(any(out.glob(name)) for name in begun):
        if not resume:
            raise CheckpointError(
                f"{str(out)!r} holds an earlier run. "
                "Pass --resume to go on, choose another folder, or delete this one."
            )
        check_identity(files.read_toml(path), recipe.content(), path)
    files.write_toml(path, recipe.content())


def _converted(
    ann: nn.Module,
    data: Data,
    recipe: Recipe,
    plan: ConversionPlan,
    half_way: Path,
    *,
    progress: bool,
) -> SpikingNetwork:
    """Convert, with thresholds from training images selected by the seed."""
    table = plan.table
    snn: SpikingNetwork = construct(
        convert,
        plan.network,
        KEY,
        ann=ann,
        loader=Tracked(_calibration(data, recipe, plan), "calibrating", enabled=progress),
        time_steps=table.time_steps,
        balancing=plan.balancing,
        starts=plan.starts,
        variation=plan.variation,
        checkpoint=half_way,
        generator=_generator(recipe, "balancing"),
    )
    return snn


def _calibration(data: Data, recipe: Recipe, plan: ConversionPlan) -> DataLoader[Any]:
    """Return the training images that thresholds are chosen with."""
    samples: Any = data.train.dataset
    table = plan.table
    if table.calibration > len(samples):
        raise RecipeError(
            f"conversion.calibration = {table.calibration}: there are only {len(samples)} training "
            "samples. Take fewer."
        )
    chosen = torch.randperm(len(samples), generator=_generator(recipe, "calibration"))
    return make_loader(
        Subset(samples, sorted(chosen[: table.calibration].tolist())), table.batch_size
    )


def _generator(recipe: Recipe, purpose: str) -> Generator:
    return Generator().manual_seed(derived_seed(recipe.seed, purpose))
