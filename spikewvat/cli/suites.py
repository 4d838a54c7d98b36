"""``bench SUITE``: run the jobs of a suite, print and save the results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from spikewvat.cli.base import (
    check_writable,
    interruptible,
    typer,
    whole_numbers,
)
from spikewvat.cli.runs import Preset
from spikewvat.cli.tables import show
from spikewvat.errors import CheckpointError, MissingDataError, RecipeError

if TYPE_CHECKING:
    from spikewvat.lab.suites import Found, Job, JobFailed, RowJob, Suite, SuiteResult
    from spikewvat.lab.suites.overhead import Timed
    from spikewvat.results import RowResult


def bench(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="SUITE", help="One of --list, or a folder with suite.toml."),
    ] = None,
    preset: Preset = None,
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
        int | None, typer.Option(min=1, help="Number of processes; one per core by default.")
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
    from spikewvat.lab.recipes.loaders import check_root
    from spikewvat.lab.suites import jobs_of, read_suite, run_suite, trainings_of
    from spikewvat.lab.suites.progress import LOG, Epochs, JobsProgress
    from spikewvat.lab.suites.selection import run_selected

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
    kept_in = results or folder
    if data_root is not None:
        check_root(data_root)
    check_writable(folder / "table.md", kept_in / "row.json")
    if chosen.measures == "step-time":
        given = {"--seeds": seeds, "--jobs": jobs, "--dask": dask}
        if named := [option for option, value in given.items() if value is not None]:
            raise RecipeError(
                f"{', '.join(named)}: {suite!r} times training steps, one after the other in this "
                f"process, with the preset's seed. Leave out {' and '.join(named)}."
            )
        _bench_steps(chosen, preset, override or (), data_root, folder, kept_in, progress=progress)
        return
    numbers = chosen.seeds_of(preset)
    if seeds is not None:
        numbers = tuple(whole_numbers(seeds, "--seeds"))
        chosen = chosen.on_seeds(numbers)

    def run(tests: Sequence[RowJob]) -> SuiteResult:
        trainings = trainings_of(tests, out)
        names = _names([*trainings, *tests])
        done = 0

        def ended(job: Job, found: Found) -> None:
            nonlocal done
            done += 1
            epochs.ended(names[job])
            bar.job(_ended(names[job], found), name=names[job])

        def kept() -> str:
            return (
                f"{done} of {len(names)} trainings and tests are done and kept in {out}. "
                "Run the same command again to go on."
            )

        logs = {names[training]: training.folder(out) / LOG for training in trainings}
        with (
            interruptible(kept),
            JobsProgress(len(names), enabled=progress) as bar,
            Epochs(logs, bar.epoch) as epochs,
        ):
            return run_suite(
                tests,
                out,
                data_root=data_root,
                processes=jobs or os.cpu_count() or 1,
                dask=dask,
                on_job=ended,
            )

    options: dict[str, Any] = {"preset": preset, "overrides": override or ()}
    if chosen.selection is None:
        found = run(jobs_of(chosen, seeds=numbers, **options))
        _finish(chosen, found.rows, found.failed, folder, kept_in)
        return
    found = run_selected(chosen, run, kept_in, seeds=numbers, told=typer.echo, **options)
    _finish(chosen, found.rows, found.failed, folder, kept_in)


def _names(jobs: Sequence[Job]) -> dict[Job, str]:
    """Return a name for each job; where only a detail differs, with the digest of its folder."""
    count = Counter(map(str, jobs))
    return {
        job: f"{job}" if count[f"{job}"] == 1 else f"{job} ({job.folder(Path()).name[-8:]})"
        for job in jobs
    }


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
    from spikewvat.lab.suites.progress import JobsProgress
    from spikewvat.lab.trainer.console import print_table
    from spikewvat.serialisation import write

    with JobsProgress(len(suite.rows), enabled=progress) as bar:
        found = overhead.run_step_times(
            suite,
            folder,
            preset=preset,
            overrides=overrides,
            data_root=data_root,
            on_row=lambda row, what: bar.job(_timed(row.name, what)),
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
    if not _only_missing(found.failed.items(), ran=found.times is not None):
        raise typer.Exit(1)


def _timed(name: str, found: Timed) -> str:
    """Return the time of a row's step as one line."""
    from spikewvat.lab.suites import JobFailed

    if isinstance(found, JobFailed):
        return _ended(name, found)
    return f"{name}: {found.ms:.1f} ms, {found.ratio:.2f} of the baseline"


def _only_missing(failed: Iterable[tuple[str, JobFailed]], *, ran: bool) -> bool:
    """Print what failed, data that is missing once, and return whether nothing else is wrong.

    Args:
        failed: Rows with what happened to them.
        ran: Whether any row has a result.

    Raises:
        MissingDataError: If data is missing, and therefore nothing ran.
    """
    lacking: dict[str, list[str]] = {}
    others = []
    for name, failure in failed:
        if failure.skipped:
            rows = lacking.setdefault(failure.message, [])
            rows += [name] if name not in rows else []
        else:
            others.append(f"error: {name}: {failure.message} (see {failure.log})")
    if lacking and not ran and not others:
        raise MissingDataError(" ".join(lacking))
    for message, rows in lacking.items():
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        others.insert(0, f"skipped: {', '.join(rows[:5])}{more}: {message}")
    for line in others:
        typer.echo(line, err=True)
    return ran and len(others) == len(lacking)


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
    names = ((job.row if why.skipped else f"{job}", why) for job, why in failed)
    complete = _only_missing(names, ran=bool(results))
    for text in unwritten:
        typer.echo(f"error: {text}", err=True)
    if unwritten or not complete:
        raise typer.Exit(1)
    if suite.hint:
        typer.echo(f"\n{suite.hint.strip()}")


def _ended(name: str, found: Found) -> str:
    """Return the outcome of a job as one line, none for data that is missing: told at the end."""
    from spikewvat.lab.suites import JobFailed

    if isinstance(found, JobFailed):
        return "" if found.skipped else f"{name}: failed: {found.message}"
    curve = found.curve
    reports = [str(curve.reports[-1])] if curve.reports else []
    return ", ".join([f"{name}: no variation {100 * curve.clean:.1f} %", *reports])
