"""``compare``: methods, devices and corruptions on the user's own network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from spikewvat.cli import objects
from spikewvat.cli.base import interruptible, numbers, typer, whole_numbers
from spikewvat.cli.runs import Target
from spikewvat.cli.tables import show
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spikewvat.comparison import Comparison, Failure, Row
    from spikewvat.comparison.run import DeviceAt
    from spikewvat.robustness.timing import Time


def compare(
    model: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="Makes the network.", show_default=False)
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION", help="Makes the test loader, or a pair (training, test)."
        ),
    ],
    train: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Trains the network in place: called with (model, loader, method).",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="swa, wvat:alpha=0.05+swa, sam, ...; plain, SWA and WVAT by default.",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Device models: lognormal, quantized:bits=4>>gaussian, ..., or all.",
        ),
    ] = None,
    corruption: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="Corruptions of spikes: deletion, jitter, ..., or all."),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(metavar="0,0.05,0.1", help="Sizes of the variation; these by default."),
    ] = None,
    severities: Annotated[
        str | None,
        typer.Option(
            metavar="0,0.1", help="Severities of each --corruption; 0 and three levels by default."
        ),
    ] = None,
    chips: Annotated[int, typer.Option(min=1, help="Chips at each size.")] = 25,
    target: Target = None,
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Training seeds.")] = "0",
    time: Annotated[
        str | None,
        typer.Option(
            metavar="network|steps|N",
            help="Who goes through time: the network itself, or one call for each step of the "
            "inputs, or N calls with the same input; found out by default.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; runs/MODULE.FUNCTION of --model by default."),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Compare methods, devices and corruptions on your own network.

    With --device or --corruption, only those are tested. Without --train, the network is tested as
    it is.
    """
    from spikewvat import comparison
    from spikewvat.lab.suites.compared import ComparisonFolder
    from spikewvat.lab.suites.progress import JobsProgress

    if method and train is None:
        raise RecipeError("--method needs --train MODULE:FUNCTION, which trains the network.")
    devices, corruptions = objects.tests(device or (), corruption or ())
    if sigma is not None and not devices:
        raise RecipeError(f"--sigma {sigma} needs a device. Add --device.")
    sigmas = comparison.SIGMAS if sigma is None else _sizes(sigma, "--sigma")
    for at in devices.values():
        if callable(at):
            _check_sizes(at, sigmas)
        elif sigma is not None:
            raise RecipeError(f"--sigma {sigma}: {at} has a size of its own. Leave out --sigma.")
    if severities is not None and corruptions == {}:
        raise RecipeError(f"--severities {severities} need a corruption. Add --corruption.")
    count = len(devices) + len(comparison.CORRUPTIONS if corruptions is None else corruptions)
    compared = {text: objects.method(text) for text in method or ()}
    if train is not None:
        count *= len(compared or comparison.METHODS)
    folder = ComparisonFolder(out or Path("runs") / model.replace(":", "."), title=model)

    def on_row(found: Comparison, new: Row | Failure | None) -> None:
        folder(found, new)
        if new is not None:
            bar.job(str(new))

    def on_epoch(method: str, seed: int, epoch: int, epochs: int) -> None:
        bar.epoch(f"{method}, seed {seed}", epoch + 1, epochs)

    def kept() -> str:
        done, where = len(folder.results), folder.path
        if not done:
            return "before the first result, so nothing was kept."
        shown = f"To see them: spikewvat report {where}"
        return f"{done} of {count} results are kept in {where}. {shown}"

    with objects.current_folder_first(), interruptible(kept):
        make, make_loaders = objects.imported(model, "--model"), objects.imported(data, "--data")
        trains = None if train is None else objects.imported(train, "--train")
        with JobsProgress(count, enabled=progress) as bar:
            found = comparison.compare(
                make,
                make_loaders(),
                trains,
                methods=compared or None,
                devices=devices,
                corruptions=corruptions,
                sigmas=sigmas,
                severities=None if severities is None else _sizes(severities, "--severities"),
                chips=chips,
                target=target,
                seeds=whole_numbers(seeds, "--seeds"),
                time=_time(time),
                on_row=on_row,
                on_epoch=on_epoch,
            )
    show(folder.suite(found), folder.results, folder.path)
    _print_yields(found, target)
    for name, why in found.skipped:
        typer.echo(f"skipped: {name}: {' '.join(why.split())}", err=True)
    for failure in found.failures:
        typer.echo(f"error: {failure}", err=True)
    if found.failures:
        raise typer.Exit(1)


def _print_yields(found: Comparison, target: float | None) -> None:
    """Print how many chips work, by method, at the largest size of each test."""
    from spikewvat.formatting import percent, working
    from spikewvat.lab.trainer.console import print_table

    if target is None:
        typer.echo("How many chips work? Say what a chip must reach, such as --target 0.9.")
        return
    rows = []
    for row in found.rows:
        curve, count = row.pooled, row.yield_at(target)
        size = curve.heading(-1)
        works = working(count.working, count.chips, *count.model)
        rows.append([f"{row.test}, {size}", row.method, percent(row.mean(-1)), works])
    title = f"Chips that reach {100 * target:g} %, with the 95 % CI {found.covered}"
    print_table(title, ["", "method", "accuracy %", "working chips"], rows)


def _time(text: str | None) -> Time:
    """Return how the network meets time.

    Raises:
        RecipeError: If it cannot be that.
    """
    if text is None:
        return None
    if text == "network":
        return "network"
    if text == "steps":
        return "steps"
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise RecipeError(f"--time {text}: expected network, steps or a number of steps.")


def _check_sizes(at: DeviceAt, sigmas: Sequence[float]) -> None:
    """Raise RecipeError unless a device can be made at all sizes."""
    try:
        for sigma in sigmas:
            at(sigma)
    except ValueError as error:
        raise RecipeError(f"--sigma: {error}") from error


def _sizes(text: str, option: str) -> list[float]:
    """Parse sizes of variation, or severities.

    Raises:
        RecipeError: If an item is not a number of at least 0.
    """
    found = numbers(text, option)
    if not all(0 <= size < math.inf for size in found):
        raise RecipeError(f"{option} {text}: expected numbers of at least 0.")
    return found
