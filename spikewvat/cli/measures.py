"""``plan``: what to do to chips after programming."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from spikewvat.cli.base import check_writable, durations, numbers, save_figure, typer
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from spikewvat.robustness.measures import Measures


def plan(
    run: Annotated[
        str,
        typer.Argument(
            help="Folder written by train; or digits-swa, digits-wvat or digits-momentum."
        ),
    ],
    device: Annotated[
        str, typer.Option(metavar="SPEC", help="pcm, gaussian:sigma=0.1, or a device.toml.")
    ],
    target: Annotated[
        float, typer.Option(help="Accuracy that a chip must reach to work, a fraction.")
    ] = 0.9,
    share: Annotated[float, typer.Option(help="Share of the chips that must work.")] = 0.9,
    age: Annotated[str | None, typer.Option(metavar="1d", help="Time since programming.")] = None,
    crossbar: Annotated[
        str | None,
        typer.Option(metavar="rows=128,adc_bits=8", help="What stands around the devices."),
    ] = None,
    verify: Annotated[
        str, typer.Option(metavar="0.05,0.1,0.2", help="Shares of the weights to verify; 0: none.")
    ] = "0.05,0.1,0.2",
    readable: Annotated[bool, typer.Option(help="Whether the cells of a chip can be read.")] = True,
    chips: Annotated[int, typer.Option(help="Number of chips.")] = 25,
    seed: Annotated[int, typer.Option(help="Seed of the chips.")] = 0,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder with the recipe's data set.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Plot all chips to this file.")] = None,
    progress: Annotated[bool, typer.Option(help="Say what is tried.")] = True,
) -> None:
    """Find the cheapest measures after programming with which enough chips work.

    Tries nothing, a factor a layer, offsets, gains, distillation and verified weights on the same
    chips.
    """
    from spikewvat import serialisation
    from spikewvat.lab import loading
    from spikewvat.lab.recipes.measures import plan_measures

    folder = loading.run_folder(run)
    check_writable(json, plot)
    for name, value in (("--target", target), ("--share", share)):
        if not 0 <= value <= 1:
            raise RecipeError(f"{name} {value:g}: expected a fraction, such as 0.9 for 90 %.")
    shares = [part for part in numbers(verify, "--verify") if part]
    if any(not 0 < part <= 1 for part in shares):
        raise RecipeError(f"--verify {verify}: expected fractions, such as 0.05,0.1.")
    if chips < 1:
        raise RecipeError(f"--chips {chips}: expected at least 1.")
    found = plan_measures(
        folder,
        device=device,
        age=None if age is None else durations(age, "--age")[0],
        crossbar=crossbar,
        target=target,
        share=share,
        verify=sorted(shares),
        cells_readable=readable,
        chips=chips,
        seed=seed,
        data_root=data_root,
        told=(lambda name: typer.echo(f"trying: {name}", err=True)) if progress else None,
    )
    _print(f"{run}, {device}{'' if age is None else f', {age} old'}", found)
    if json is not None:
        serialisation.write(json, found)
    if plot is not None:
        from spikewvat.robustness.measures import draw_measures

        save_figure(draw_measures(found), plot)


def _print(title: str, found: Measures) -> None:
    from spikewvat.formatting import percent
    from spikewvat.lab.trainer.console import print_table

    rows = []
    for outcome in found.outcomes:
        report, cost = outcome.report, outcome.cost
        works = report.yield_at(found.target)
        rows.append(
            [
                outcome.name,
                percent(report.mean),
                percent(report.worst),
                f"{works.working} of {works.chips}",
                *(str(n) for n in (cost.samples, cost.labels, cost.numbers, round(cost.pulses))),
                str(cost.reads),
            ]
        )
    columns = ["after programming", "accuracy %", "worst", "working chips", "samples", "labels"]
    columns += ["stored numbers", "pulses", "reads of cells"]
    print_table(f"{title}; no variation {percent(found.clean)} %", columns, rows)
    typer.echo(str(found))
