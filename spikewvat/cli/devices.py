"""``devices fit`` and ``devices show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from spikewvat.cli.base import check_writable, numbers, save_figure, typer
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from spikewvat.devices import Empirical

app = typer.Typer(no_args_is_help=True, help="Device models fitted to measurements.")

Table = Annotated[Path, typer.Argument(help="CSV or TSV of measurements, optionally gzipped.")]
LevelColumn = Annotated[str, typer.Option(help="Target level: header name or 0-based number.")]
ValueColumn = Annotated[str, typer.Option(help="Measured value, such as a conductance.")]
TimeColumn = Annotated[str | None, typer.Option(help="Time since programming, in seconds.")]
Time = Annotated[
    float | None, typer.Option(help="Time to model, in seconds; the latest by default.")
]
TargetColumn = Annotated[str | None, typer.Option(help="Target value.")]
DeviceColumn = Annotated[
    str | None, typer.Option(help="Device id; separates inter- from intra-device variation.")
]
ValueRange = Annotated[
    str | None,
    typer.Option(metavar="LOW,HIGH", help="Values a device can hold; from the table by default."),
]
Plot = Annotated[Path | None, typer.Option(help="Plot device and measurements to this file.")]


@app.command()
def fit(
    file: Table,
    level_column: LevelColumn,
    value_column: ValueColumn,
    out: Annotated[Path, typer.Option(help="Device file to write, TOML.")],
    time_column: TimeColumn = None,
    time: Time = None,
    target_column: TargetColumn = None,
    device_column: DeviceColumn = None,
    value_range: ValueRange = None,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Sample a smoothed density, not measured errors.")
    ] = False,
    range_rule: Annotated[
        str, typer.Option("--range", help="Range of the weights: six-sigma, absmax, ...")
    ] = "six-sigma",
    plot: Plot = None,
) -> None:
    """Fit a device model to measured conductances."""
    from spikewvat.devices import save_device
    from spikewvat.lab.recipes.devices import build_range

    check_writable(out, plot)
    device = _fit(
        file,
        level_column=level_column,
        value_column=value_column,
        time_column=time_column,
        time=time,
        target_column=target_column,
        device_column=device_column,
        value_range=_bounds(value_range),
        smooth=smooth,
        range=build_range(range_rule, "--range"),
    )
    save_device(device, out)
    _report(device, device, str(out), plot)
    typer.echo(f"Written to {out}. Try it: spikewvat evaluate RUN --device {out}")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="Device file written by fit.")],
    data: Annotated[
        Path | None, typer.Option(help="Compare with a table other than the fitted one.")
    ] = None,
    level_column: Annotated[str | None, typer.Option(help="Target level, with --data.")] = None,
    value_column: Annotated[str | None, typer.Option(help="Measured value, with --data.")] = None,
    time_column: TimeColumn = None,
    time: Time = None,
    target_column: TargetColumn = None,
    value_range: ValueRange = None,
    plot: Plot = None,
) -> None:
    """Compare a fitted device with its measurements, level by level."""
    from spikewvat.devices import load_device

    check_writable(plot)
    device = measured = load_device(file)
    if data is not None:
        if level_column is None or value_column is None:
            raise RecipeError("--data needs --level-column and --value-column too.")
        measured = _fit(
            data,
            level_column=level_column,
            value_column=value_column,
            time_column=time_column,
            time=time,
            target_column=target_column,
            value_range=_bounds(value_range),
        )
    _report(device, measured, str(file), plot)


def _fit(table: Path, **options: Any) -> Empirical:
    from spikewvat.devices import Empirical

    try:
        return Empirical.fit(table, **options)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise RecipeError(f"cannot fit {str(table)!r}: {error}") from error


def _bounds(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    found = numbers(text, "--value-range")
    if len(found) != 2:
        raise RecipeError(f"--value-range {text!r}: expected LOW,HIGH, such as 0,128e-6.")
    return found[0], found[1]


def _report(device: Empirical, measured: Empirical, name: str, plot: Path | None) -> None:
    """Print measured and modelled errors by level, and draw them."""
    import torch

    from spikewvat.lab.trainer.console import print_table

    drawn = [_draws(device, level.position) for level in measured.levels]
    rows = []
    for level, errors in zip(measured.levels, drawn, strict=True):
        real = torch.tensor(measured.errors_at(level), dtype=torch.float64)
        figures = (level.position, real.mean(), real.std(), errors.mean(), errors.std())
        rows.append(
            [f"{level.level:g}", str(level.count), *(f"{100 * float(x):.2f}" for x in figures)]
        )
    columns = ["level", "count", "place %", "mean %", "std %", "model mean %", "model std %"]
    when = "" if device.time is None else f", {device.time:g} s after programming"
    print_table(f"{name}{when}: errors in % of the value range", columns, rows)
    if plot is not None:
        from spikewvat.robustness import plots

        real_errors = [measured.errors_at(level) for level in measured.levels]
        positions = [100 * level.position for level in measured.levels]
        pairs = list(zip(positions, real_errors, strict=True))
        figure = plots.device_fit(
            [position for position, errors in pairs for _ in errors],
            [error for _, errors in pairs for error in errors],
            [p for p, errors in zip(positions, drawn, strict=True) for _ in errors],
            torch.cat(drawn).tolist(),
            level_label="target (% of the value range)",
            title=f"{name}{when}",
        )
        save_figure(figure, plot)


def _draws(device: Empirical, position: float, count: int = 2000) -> Any:
    """Return errors of the device at a level, clipped to the ends of its range."""
    import dataclasses

    import torch

    from spikewvat.devices import Fixed

    unit = dataclasses.replace(device, range=Fixed(0.0, 1.0))
    weights = {"w": torch.full((count,), position, dtype=torch.float64)}
    return unit.errors(weights, generator=torch.Generator().manual_seed(0))["w"]
