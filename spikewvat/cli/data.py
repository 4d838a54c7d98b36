"""``data embedded``, ``data check`` and ``data simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from spikewvat.cli.base import check_writable, typer
from spikewvat.errors import DataError

app = typer.Typer(no_args_is_help=True, help="Event data sets: generate, check, simulate.")


@app.command()
def embedded(
    cache: Annotated[
        Path | None, typer.Option(help="Folder; $SPIKEWVAT_CACHE or ~/.cache/spikewvat by default.")
    ] = None,
) -> None:
    """Generate the embedded event digits and print their folder.

    Existing files are kept.
    """
    from spikewvat.data import embedded_root

    typer.echo(str(embedded_root(cache)))


@app.command()
def check(
    root: Annotated[Path, typer.Argument(help="Folder that holds NMNIST/{Train,Test}.")],
    split: Annotated[str | None, typer.Option(metavar="train|test", help="Only this one.")] = None,
) -> None:
    """Read and summarise all recordings in a folder laid out like N-MNIST."""
    from spikewvat.data.nmnist import NMNIST
    from spikewvat.data.summary import summarize
    from spikewvat.lab.trainer.console import print_table

    if split not in (None, "train", "test"):
        raise DataError(f"--split {split!r}: expected train or test.")
    rows = []
    for part in ("train", "test") if split is None else (split,):
        found = summarize(NMNIST(root, part, time_steps=1, cache=False))
        per_class, events, last = found.per_class, found.events, found.last_us
        rows.append(
            [
                part,
                str(found.recordings),
                f"{per_class.low} .. {per_class.high}",
                f"{events.mean:.0f} ({events.low} .. {events.high})",
                f"{100 * found.on_share:.1f}",
                f"{last.mean / 1000:.0f} ({last.low / 1000:.0f} .. {last.high / 1000:.0f})",
            ]
        )
    columns = ["split", "recordings", "per class", "events each", "ON %", "last event, ms"]
    print_table(str(root), columns, rows)


@app.command()
def simulate(
    images: Annotated[Path, typer.Argument(help="28 x 28 images, idx file, optionally gzipped.")],
    labels: Annotated[Path, typer.Argument(help="Labels, idx file.")],
    out: Annotated[Path, typer.Option(help="Root of the recordings: OUT/NMNIST/Train/...")],
    split: Annotated[
        str, typer.Option(metavar="train|test", help="Which part to write.")
    ] = "train",
    skip: Annotated[int, typer.Option(min=0, help="Number of images to skip at the start.")] = 0,
    first: Annotated[
        int | None, typer.Option(min=1, help="Number of images to simulate after those.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the camera's noise.")] = 0,
) -> None:
    """Simulate recordings of images with a saccade camera: MNIST to N-MNIST.

    Recording i + 1 shows image i, as in N-MNIST.
    """
    import torch

    from spikewvat.data.images import read_idx
    from spikewvat.data.saccades import write_recordings

    folders = {"train": "Train", "test": "Test"}
    if split not in folders:
        raise DataError(f"--split {split!r}: expected train or test.")
    pictures, digits = read_idx(images), read_idx(labels)
    if len(pictures) != len(digits):
        raise DataError(
            f"{str(images)!r} holds {len(pictures)} images, {str(labels)!r} {len(digits)} labels. "
            "Pass the two files of the same set."
        )
    end = len(pictures) if first is None else min(skip + first, len(pictures))
    if skip >= end:
        raise DataError(f"--skip {skip} leaves none of the {len(pictures)} images.")
    folder = out / "NMNIST" / folders[split]
    check_writable(folder / "x")
    generator = torch.Generator().manual_seed(seed)
    write_recordings(
        folder,
        pictures[skip:end],
        digits[skip:end].tolist(),
        range(skip + 1, end + 1),
        generator=generator,
    )
    typer.echo(f"Written: {end - skip} recordings in {folder}")
