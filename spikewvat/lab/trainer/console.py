"""What a terminal shows: progress of a training run, tables of results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Self, TextIO

from spikewvat.errors import require

_BETWEEN_LOOKS = 0.5  # seconds between two looks at the loss: a look waits for the GPU


class Bar:
    """A bar of rich while a ``with`` statement runs, redrawn in place; on a terminal only.

    Args:
        before: Text in front of the bar.
        *texts: Texts behind it, in front of the remaining time.
        enabled: Show anything at all; otherwise rich is not needed.
        console: A ``rich.console.Console``; by default standard error.
        elapsed: Show the time since the start, too.
        **task: Total and fields at the start.
    """

    def __init__(
        self,
        before: str,
        *texts: str,
        enabled: bool,
        console: Any,
        elapsed: bool = False,
        **task: Any,
    ) -> None:
        self._bar: Any = None
        self._task = task
        if not enabled:
            return
        rich = require("rich.progress", extra="cli", purpose="a progress bar")
        self._console = _on_stderr(console)
        columns = [rich.TextColumn(before), rich.BarColumn(), *map(rich.TextColumn, texts)]
        columns += [rich.TimeElapsedColumn()] if elapsed else []
        self._bar = rich.Progress(
            *columns,
            rich.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
            self._id = self._bar.add_task("", **self._task)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()

    def _update(self, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._id, **fields)


class TrainingProgress(Bar):
    """A bar with epoch, loss, accuracy and the remaining time of the whole run.

    On a terminal the bar is redrawn in place; elsewhere (a log file) each epoch is one line.

    Args:
        epochs: Epochs of the whole run.
        done: Epochs that an earlier, interrupted run has finished.
        batches: Batches of an epoch.
        enabled: Show anything at all.
        console: A ``rich.console.Console``; by default standard error.
    """

    def __init__(
        self, epochs: int, done: int, batches: int, *, enabled: bool = True, console: Any = None
    ) -> None:
        self._epochs = epochs
        fields: dict[str, Any] = {"epoch": done + 1, "loss": "-", "accuracy": "-", "watched": ""}
        super().__init__(
            f"epoch {{task.fields[epoch]}}/{epochs}",
            "loss {task.fields[loss]}  accuracy {task.fields[accuracy]}",
            "{task.fields[watched]}",
            enabled=enabled,
            console=console,
            total=(epochs - done) * batches,
            **fields,
        )

    def batch(self, epoch: int, totals: Totals) -> None:
        """Move on by one batch of an epoch (counted from 0)."""
        if self._bar is None:
            return
        fields: dict[str, Any] = {"epoch": epoch + 1}
        if self._console.is_terminal and totals.is_due():
            fields |= {"loss": f"{totals.loss:.4f}", "accuracy": f"{100 * totals.accuracy:.1f} %"}
        self._update(advance=1, **fields)

    def epoch(self, epoch: int, row: dict[str, Any]) -> None:
        """Note the results of an epoch (counted from 0)."""
        if self._bar is None:
            return
        watched = ""
        if row.get("watched") is not None:
            watched = f"{row['watching']} {100 * row['watched']:.1f} %"
        self._update(watched=watched)
        if not self._console.is_terminal:
            self._console.print(
                f"epoch {epoch + 1}/{self._epochs}  loss {row['loss']:.4f}  "
                f"accuracy {100 * row['accuracy']:.1f} %  {watched}  {row['seconds']:.1f} s",
                highlight=False,
            )


class ChipsProgress(Bar):
    """A bar over simulated chips; call it with chips done, chips in all, and an accuracy.

    Args:
        what: What is counted.
        enabled: Show anything; on a terminal only.
        console: A ``rich.console.Console``; by default standard error.
    """

    def __init__(self, what: str = "chip", *, enabled: bool = True, console: Any = None) -> None:
        count, accuracy = "{task.completed}/{task.total}", "accuracy {task.fields[accuracy]}"
        super().__init__(
            f"{what} {count}", accuracy, enabled=enabled, console=console, total=None, accuracy="-"
        )

    def __call__(self, done: int, total: int, accuracy: float) -> None:
        """Note a chip."""
        self._update(completed=done, total=total, accuracy=f"{100 * accuracy:.1f} %")


def _count(batches: Iterable[Any]) -> int | None:
    return len(batches) if isinstance(batches, Sized) else None


class Tracked:
    """Batches with a bar over them, at every pass; on a terminal only.

    Args:
        batches: What is passed on.
        what: Name of the bar.
        enabled: Show anything.
        console: A ``rich.console.Console``; by default standard error.
    """

    def __init__(
        self, batches: Iterable[Any], what: str, *, enabled: bool = True, console: Any = None
    ) -> None:
        self._rich = require("rich.progress", extra="cli", purpose="a progress bar")
        self._console = _on_stderr(console)
        self._enabled = enabled and self._console.is_terminal
        self._batches, self._what = batches, what

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of a pass."""
        if not self._enabled:
            yield from self._batches
            return
        yield from self._rich.track(
            self._batches, self._what, total=_count(self._batches), console=self._console
        )


def _on_stderr(console: Any) -> Any:
    """Return the console, or one on standard error."""
    rich_console = require("rich.console", extra="cli", purpose="a progress bar")
    return console or rich_console.Console(stderr=True)


def console_to(file: TextIO) -> Any:
    """Return a ``rich.console.Console`` that writes lines of any length to a file."""
    rich_console = require("rich.console", extra="cli", purpose="a progress bar")
    return rich_console.Console(file=file, width=1000, force_terminal=False)


class Totals:
    """Sums of an epoch, kept as tensors so that nothing waits for a GPU at every step."""

    def __init__(self) -> None:
        self.loss_sum: Any = 0.0
        self.correct: Any = 0
        self.samples = 0
        self._looked = 0.0

    def add(self, loss: Any, correct: Any, samples: int) -> None:
        """Add a batch: its mean loss, the number of right answers, its size."""
        self.loss_sum = self.loss_sum + loss * samples
        self.correct = self.correct + correct
        self.samples += samples

    def is_due(self) -> bool:
        """Return whether it is time to look again."""
        now = time.monotonic()
        if now - self._looked < _BETWEEN_LOOKS:
            return False
        self._looked = now
        return True

    @property
    def loss(self) -> float:
        """Mean loss per sample so far."""
        return float(self.loss_sum) / max(self.samples, 1)

    @property
    def accuracy(self) -> float:
        """Share of correct answers so far."""
        return float(self.correct) / max(self.samples, 1)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, console: Any = None
) -> None:
    """Print a table; the first column is left-aligned, numbers are to the right.

    Args:
        title: Line above the table.
        columns: Headings.
        rows: Cells as text, as many as there are headings.
        console: A ``rich.console.Console``; by default standard output.
    """
    rich_console = require("rich.console", extra="cli", purpose="a table")
    rich_table = require("rich.table", extra="cli", purpose="a table")
    table = rich_table.Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", min_width=5)
    for row in rows:
        table.add_row(*row)
    console = console or rich_console.Console()
    if not console.is_terminal:  # a file has no width to keep to
        console.width = max(console.width, 120)
    console.print(table)
