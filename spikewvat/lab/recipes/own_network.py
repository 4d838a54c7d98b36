"""Convert a user's own network: calibrate, fine-tune, test over time and on chips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from spikewvat import files, serialisation
from spikewvat.comparison.batches import pair_of
from spikewvat.conversion import SpikingNetwork, convert, finetune, sweep_time
from spikewvat.conversion.balance import images_of
from spikewvat.conversion.finetune import finetuning_optimizer
from spikewvat.errors import CheckpointError, RecipeError
from spikewvat.lab.recipes import conversion as conversions
from spikewvat.lab.recipes.conversion import KEY, ConversionPlan
from spikewvat.lab.recipes.devices import read_device
from spikewvat.lab.recipes.registry import construct, validated
from spikewvat.lab.recipes.results import RunResult, Training
from spikewvat.lab.recipes.saved import CONVERTED, RESULT
from spikewvat.lab.recipes.schema import Conversion
from spikewvat.lab.trainer.console import Tracked
from spikewvat.provenance import provenance
from spikewvat.results import Converted
from spikewvat.robustness import Evaluator

OWN = "own"
"""The scale of a user's network in result files."""


@dataclass(frozen=True)
class Chips:
    """The chips that a converted network is tested on.

    Args:
        device: Text of the device, such as ``"gaussian"``.
        sigmas: Sizes of the variation.
        count: Number of chips at each size.
        target: Accuracy that a chip must reach to work, or None.
    """

    device: str = "gaussian"
    sigmas: tuple[float, ...] = (0.05, 0.1)
    count: int = 25
    target: float | None = None


def convert_network(
    make_model: Callable[[], nn.Module],
    loaders: Any,
    out: Path | str,
    table: Mapping[str, Any],
    *,
    weights: Path | str | None = None,
    chips: Chips = Chips(),
    seed: int = 0,
    progress: bool = True,
) -> RunResult:
    """Convert a network that was trained anywhere, and test it.

    Writes ``snn.safetensors`` and ``result.json``.

    Args:
        make_model: Makes the ANN.
        loaders: A pair of training and test batches ``(images, labels)``.
        out: Folder for the files.
        table: The table ``[conversion]`` of a recipe.
        weights: File of the ANN's weights; None leaves them as they are made.
        chips: The chips to test on.
        seed: Seed of balancing and fine-tuning.
        progress: Show progress bars.

    Returns:
        The content of ``result.json``.

    Raises:
        RecipeError: If a key is unknown or a value invalid, or there is no pair of loaders.
        UnsupportedModelError: If the network cannot be converted.
        CheckpointError: If the weights do not fit, or files cannot be written.
    """
    plan = conversions.read(validated(Conversion, dict(table), KEY))
    device = read_device(chips.device, "--device")
    out = Path(out)
    files.check_writable(out)
    if (out / RESULT).exists():
        raise CheckpointError(
            f"{str(out)!r} holds an earlier conversion. Choose another --out, or delete it."
        )
    ann = make_model().eval()
    if weights is not None:
        files.load_state(ann, files.load_weights(weights), source=repr(str(weights)))
    training, test = pair_of(loaders, wanted=True)
    calibration = list(_first(training, plan.table.calibration, ann))

    began = time.monotonic()
    snn: SpikingNetwork = construct(
        convert,
        plan.network,
        KEY,
        ann=ann,
        loader=Tracked(calibration, "calibrating", enabled=progress),
        time_steps=plan.table.time_steps,
        balancing=plan.balancing,
        starts=plan.starts,
        variation=plan.variation,
        generator=Generator().manual_seed(seed),
    )
    seconds = time.monotonic() - began
    history = _tuned(snn, training, plan, seed, progress=progress)
    files.save(out / CONVERTED, snn.state_dict())

    fit = None if history else plan.fitting(calibration, seed)  # tuned weights suit one T
    tests = Tracked(test, "over time", enabled=progress)
    over_time = sweep_time(snn, tests, plan.steps(snn.time_steps), fit=fit)
    evaluator = Evaluator(snn, test)
    curve = evaluator.sweep(device, chips.sigmas, chips=chips.count, target=chips.target)
    result = RunResult(
        recipe={KEY: plan.table.model_dump(mode="json", exclude_none=True)},
        seed=seed,
        scale=OWN,
        method="converted, STDB" if history else "converted",
        split="test",
        device=device.label,
        curve=curve,
        weights="" if weights is None else str(weights),
        training=Training(
            epochs=len(history),
            samples={"calibration": sum(map(len, calibration)), "test": over_time.images},
            history=tuple(history),
        ),
        converted=Converted(
            ann=Evaluator(ann, test, time="network").accuracy,
            over_time=over_time,
            thresholds={name: t.tolist() for name, t in snn.thresholds().items()},
            seconds=seconds,
        ),
        **provenance(),
    )
    serialisation.write(out / RESULT, result)
    return result


def _first(loader: Iterable[Any], count: int, model: nn.Module) -> Iterator[Tensor]:
    """Yield so many images, or all if there are fewer."""
    for batch in loader:
        images = images_of(batch, model)[:count]
        count -= len(images)
        yield images
        if count <= 0:
            return


def _tuned(
    snn: SpikingNetwork, loader: Iterable[Any], plan: ConversionPlan, seed: int, *, progress: bool
) -> list[dict[str, Any]]:
    """Fine-tune as the plan says, and return the loss and the time of each epoch."""
    settings = plan.table.finetune
    if settings.epochs == 0:
        return []
    if settings.images is not None:
        raise RecipeError(
            f"conversion.finetune.images = {settings.images}: the loader of --data says which "
            "images. Leave it out."
        )
    snn.learn(thresholds=settings.thresholds, leak=settings.leak)
    optimizer = finetuning_optimizer(snn, lr=settings.lr, weight_decay=settings.weight_decay)
    history: list[dict[str, Any]] = []
    began = [time.monotonic()]

    def on_epoch(epoch: int, loss: float) -> None:
        began.append(time.monotonic())
        history.append({"epoch": epoch, "loss": loss, "seconds": began[-1] - began[-2]})

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        finetune(
            snn,
            Tracked(loader, "fine-tuning", enabled=progress),
            epochs=settings.epochs,
            method=plan.method(snn, optimizer, seed=seed),
            optimizer=optimizer,
            on_epoch=on_epoch,
        )
    snn.eval()
    return history
