"""``bench SUITE``: run the jobs of a suite, print and save the results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from spikewvat.cli.base import check_writable, save_figure, typer, whole_numbers
from spikewvat.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from spikewvat.lab.suites import Found, Job, JobFailed, RowJob, Suite
    from spikewvat.lab.suites.overhead import Timed
    from spikewvat.results import RowResult


def bench(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="SUITE", help="One of --list, or a folder with suite.toml."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="quick|paper", help="Scale; quick by default.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only these rows; * is a wildcard.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Training seeds; the preset's by default.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override a key in every recipe.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder with the data sets; their usual locations by default."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs"),
    results: Annotated[
        Path | None, typer.Option(help="Folder for one result file per row; in --out by default.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Number of processes; one per core by default.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run jobs on the workers of this Dask scheduler."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the suites and exit.")] = False,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Run all rows of a suite with all seeds and print its table.

    The table shows published results next to the measured ones. Finished jobs are kept in --out and
    not run again; a failed job does not stop the others.
    """
    from spikewvat.lab.places import suite_names
    from spikewvat.lab.suites import jobs_of, read_suite, run_suite, trainings_of
    from spikewvat.lab.trainer.console import JobsProgress

    if list_:
        for name in suite_names():
            typer.echo(f"{name:<14} {read_suite(name).title}")
        return
    if suite is None:
        raise RecipeError(
            f"which SUITE? There are {', '.join(suite_names())}, or a folder with suite.toml. "
            "For a network of your own: spikewvat compare."
        )
    chosen = read_suite(suite).chosen([] if rows is None else rows.split(",")).at(preset)
    folder = out / chosen.folder.name
    kept = results or folder
    check_writable(folder / "table.md", kept / "row.json")
    if chosen.measures == "step-time":
        given = {"--seeds": seeds, "--jobs": jobs, "--dask": dask}
        if named := [option for option, value in given.items() if value is not None]:
            raise RecipeError(
                f"{', '.join(named)}: {suite!r} times training steps, one after the other in this "
                f"process, with the preset's seed. Leave out {' and '.join(named)}."
            )
        _bench_steps(chosen, preset, override or (), data_root, folder, kept, progress=progress)
        return
    numbers = chosen.seeds_of(preset) if seeds is None else whole_numbers(seeds, "--seeds")
    tests = jobs_of(chosen, preset=preset, seeds=numbers, overrides=override or ())
    done = 0

    def ended(job: Job, found: Found) -> None:
        nonlocal done
        done += 1
        bar.job(f"{job}: {_ended(found)}")

    total = len(tests) + len(trainings_of(tests, out))
    try:
        with JobsProgress(total, enabled=progress) as bar:
            found = run_suite(
                tests,
                out,
                data_root=data_root,
                processes=jobs or os.cpu_count() or 1,
                dask=dask,
                on_job=ended,
            )
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted: {done} of {total} trainings and tests are done and kept in {out}. "
            "Run the same command again to go on.",
            err=True,
        )
        raise typer.Exit(130) from None
    _finish(chosen, found.rows, found.failed, folder, kept)


def _bench_steps(
    suite: Suite,
    preset: str | None,
    overrides: Sequence[str],
    data_root: Path | None,
    folder: Path,
    kept: Path,
    *,
    progress: bool,
) -> None:
    """Time training steps of each method in turn.

    Raises:
        Exit: If a row failed.
    """
    from spikewvat.lab.suites import overhead
    from spikewvat.lab.trainer.console import JobsProgress, print_table
    from spikewvat.serialisation import write

    with JobsProgress(len(suite.rows), enabled=progress) as bar:
        found = overhead.run_step_times(
            suite,
            folder,
            preset=preset,
            overrides=overrides,
            data_root=data_root,
            on_row=lambda row, what: bar.job(f"{row.name}: {_timed(what)}"),
        )
    if found.times is not None:
        columns = ["", "time of a step", "quartile", "quartile", "ms"]
        for name, rows in found.times.by_setup.items():
            table = [
                [row.method, *(f"{x:.2f}" for x in (row.ratio, *row.quartiles)), f"{row.ms:.1f}"]
                for row in rows.values()
            ]
            print_table(f"{suite.title}: {name}", columns, table)
        write(kept / overhead.FILE, found.times)
        typer.echo(f"Written: {kept / overhead.FILE}")
    for name, failure in found.failed.items():
        word = "skipped" if failure.skipped else "error"
        typer.echo(f"{word}: {name}: {failure.message} (see {failure.log})", err=True)
    failures = found.failed.values()
    if found.times is None or not all(failure.skipped for failure in failures):
        raise typer.Exit(1)


def _timed(found: Timed) -> str:
    """Return the time of a step as one line."""
    from spikewvat.lab.suites import JobFailed

    if isinstance(found, JobFailed):
        return _ended(found)
    return f"{found.ms:.1f} ms, {found.ratio:.2f} of the baseline"


def _finish(
    suite: Suite,
    results: Mapping[str, RowResult],
    failed: Sequence[tuple[RowJob, JobFailed]],
    folder: Path,
    kept: Path,
) -> None:
    """Save and print the results; the exit code tells whether they are complete.

    Raises:
        Exit: If a job failed, other than being skipped.
    """
    from spikewvat.lab.suites import verdicts
    from spikewvat.lab.suites.claims import FILE, write_verdicts
    from spikewvat.serialisation import write

    unwritten = []
    found = verdicts(suite.claims, results)
    try:
        for name, result in results.items():
            write(kept / f"{name}.json", result)
        if found:
            write_verdicts(found, kept / FILE)
    except CheckpointError as error:  # the jobs have files of their own: nothing is lost
        unwritten.append(str(error))
    if results:
        try:
            show(suite, results, folder)
        except CheckpointError as error:
            unwritten.append(str(error))
    for verdict in found:
        typer.echo(str(verdict))
    for job, failure in failed:
        word = "skipped" if failure.skipped else "error"
        typer.echo(f"{word}: {job}: {failure.message} (see {failure.log})", err=True)
    for text in unwritten:
        typer.echo(f"error: {text}", err=True)
    if unwritten or not results or not all(failure.skipped for _, failure in failed):
        raise typer.Exit(1)
    if suite.hint:
        typer.echo(f"\n{suite.hint.strip()}")


def _ended(found: Found) -> str:
    """Return the outcome of a job as one line."""
    from spikewvat.lab.suites import JobFailed

    if isinstance(found, JobFailed):
        return f"{'skipped' if found.skipped else 'failed'}: {found.message}"
    curve = found.curve
    reports = [str(curve.reports[-1])] if curve.reports else []
    return ", ".join([f"no variation {100 * curve.clean:.1f} %", *reports])


def show(suite: Suite, results: Mapping[str, RowResult], folder: Path) -> None:
    """Print, save and plot the results."""
    from spikewvat import files
    from spikewvat.formatting import MISSING
    from spikewvat.lab.recipes.landscape import figures
    from spikewvat.lab.suites import markdown
    from spikewvat.lab.suites.table import cells, header, times
    from spikewvat.lab.trainer.console import print_table
    from spikewvat.robustness import plots

    for number, setup in enumerate(suite.setups, start=1):
        found = {row.method: (row, results[row.name]) for row in setup.rows if row.name in results}
        if not found:
            continue
        columns, taken = header(result for _, result in found.values()), times(setup, results)
        columns += ["training time"] if taken else []
        rows = []
        for method, (row, result) in found.items():
            last = [taken.get(row.name, MISSING)] if taken else []
            rows.append([method, *cells(result, row), *last])
        print_table(f"{suite.title}: {setup.name}", ["", *columns], rows)
        kinds = dict.fromkeys(r.axis for _, r in found.values() if r.sized)
        for place, axis in enumerate(kinds):
            curves = {m: r.pooled for m, (_, r) in found.items() if r.sized and r.axis == axis}
            name = f"accuracy{number if len(suite.setups) > 1 else ''}{'-' * place}.png"
            save_figure(plots.accuracy_against_sigma(curves, title=setup.name), folder / name)
        around = {
            method: result.landscape[0]  # of the first seed
            for method, (_, result) in found.items()
            if result.landscape
        }
        for part, figure in (figures(around, title=setup.name) if around else {}).items():
            save_figure(figure, folder / f"landscape{number}-{part}.png")
    files.write_atomic(folder / "table.md", markdown(suite, results) + "\n")
    typer.echo(f"Written: {folder / 'table.md'}")
