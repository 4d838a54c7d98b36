"""The loss landscape of a trained run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikewvat import serialisation
from spikewvat.devices.base import DeviceModel
from spikewvat.lab.recipes.devices import Sized
from spikewvat.lab.recipes.evaluation import evaluated_otherwise, method_label
from spikewvat.lab.recipes.loaders import open_data
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.saved import CONVERTED, final_weights, load_model, read_run
from spikewvat.lab.recipes.schema import Component, Spec
from spikewvat.lab.trainer.console import ChipsProgress
from spikewvat.provenance import provenance
from spikewvat.results import Landscape
from spikewvat.robustness import Evaluator
from spikewvat.robustness.landscape import weight_histograms

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def landscape_run(
    run: Path | str,
    out: Path | str | None = None,
    *,
    data_root: Path | str | None = None,
    split: str | None = None,
    device: Spec | None = None,
    sigma: float = 0.15,
    directions: int = 10,
    points: int = 13,
    chips: int = 25,
    ascent_points: int = 5,
    surface: int = 0,
    histograms: bool = False,
    images: int | None = None,
    loss: str | None = None,
    seed: int | None = None,
    weights: str | None = None,
    progress: bool = True,
) -> Landscape:
    """Evaluate the loss around the weights of a run.

    Lines and chips have the same seeds: line i leads to chip i. Samples are not corrupted, and
    passes have the precision of the weights, whatever the recipe's ``[evaluation]`` says.

    Args:
        run: Folder of a training run.
        out: File for the result, JSON; none is written by default.
        data_root: Folder of its data set; its usual location by default.
        split: ``"train"``, ``"validation"`` or ``"test"``; split, device and seed default to the
            recipe's.
        device: The device, see :func:`spikewvat.lab.recipes.devices.stages`.
        sigma: Size of the variation at the ends of the lines, if the device leaves it open.
        directions: Number of lines, at least 1.
        points: Positions on each line, at least 2.
        chips: Number of chips for the sharpness, at least 1.
        ascent_points: Positions on the steepest ascent; 0 computes no gradient.
        surface: Positions along each side of a plane; 0 evaluates none.
        histograms: Count the weights of each layer.
        images: Number of images to evaluate, evenly spaced over the split; all by default.
        loss: Name of a loss; by default the training loss.
        seed: Seed of the chips.
        weights: Weights file in ``run``; by default the converted network of a conversion.
        progress: Show a progress bar.

    Returns:
        Lines, sharpness, plane and histograms, with provenance.

    Raises:
        CheckpointError: If ``run`` holds no run, its weights do not fit its recipe, or ``out``
            cannot be written.
        RecipeError: If the device or the loss cannot be made, or a number is invalid.
        DataError: If the data is missing or malformed.
    """
    recipe = evaluated_otherwise(
        read_run(run), split=split, device=device, images=images, seed=seed
    )
    uncorrupted = recipe.evaluation.model_copy(update={"corruption": None})
    recipe = recipe.model_copy(update={"evaluation": uncorrupted})
    if loss is not None:
        training = recipe.training.model_copy(update={"loss": Component(name=loss)})
        recipe = recipe.model_copy(update={"training": training})
    resolved, plan = resolve(recipe), recipe.evaluation
    chip = resolved.device(sigma)
    weights = weights or final_weights(run)
    model = load_model(run, resolved, weights=weights)
    data = open_data(resolved, data_root)
    loader = data.part(plan.split)
    around = Evaluator(model, loader, time="network", loss=resolved.loss).landscape

    def tracked(what: str, measure: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with ChipsProgress(what, enabled=progress) as bar:
            return measure(*arguments, progress=bar, seed=plan.seed, **options)

    found = Landscape(
        method=method_label(recipe, converted=weights == CONVERTED),
        device=_named(resolved.device, sigma),
        split=plan.split,
        loss=recipe.training.loss.name,
        lines=tracked("place", around.lines, chip, lines=directions, points=points),
        sharpness=tracked("chip", around.sharpness, chip, chips=chips, ascent_points=ascent_points),
        surface=tracked("place", around.surface, points=surface) if surface else None,
        histograms=weight_histograms(model) if histograms else (),
        scale=recipe.scale,
        seed=recipe.seed,
        run=str(run),
        weights=weights,
        recipe=recipe.content(),
        **provenance(),
    )
    if out is not None:
        serialisation.write(out, found)
    return found


def figures(methods: Mapping[str, Landscape], *, title: str = "") -> dict[str, Figure]:
    """Draw the loss landscapes of several runs.

    Args:
        methods: Results of :func:`landscape_run` by method.
        title: Title of the pictures.

    Returns:
        Figures by name: ``"lines"``, and ``"surface"`` and ``"histograms"`` if all runs have them.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    from spikewvat.robustness.landscape import plots

    drawn = {"lines": plots.draw_lines({n: f.lines for n, f in methods.items()}, title=title)}
    planes = {name: found.surface for name, found in methods.items() if found.surface is not None}
    if len(planes) == len(methods):
        drawn["surface"] = plots.draw_surfaces(planes, title=title)
    layers = {name: found.histograms for name, found in methods.items()}
    if all(layers.values()):
        drawn["histograms"] = plots.draw_histograms(layers, title=title)
    return drawn


def _named(device: Sized[DeviceModel], sigma: float) -> str:
    """Describe a device, with its size if that was open."""
    return f"{device.label}, sigma {sigma:g}" if device.is_open else device.label
