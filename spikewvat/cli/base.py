"""Shared by all commands: one-line errors, options with numbers, pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from spikewvat.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    MissingExtraError,
    RecipeError,
    TrainingStalledWarning,
    UnsupportedModelError,
    require,
)
from spikewvat.memory import keep_freed_memory

require("typer", extra="cli", purpose="the command line")

import typer  # noqa: E402 -- after the check: the only file that imports it
from typer.core import TyperGroup  # noqa: E402

__all__ = [
    "Commands",
    "check_writable",
    "durations",
    "interruptible",
    "numbers",
    "share",
    "save_figure",
    "typer",
    "whole_numbers",
]

# Everything heavy is imported inside the commands: --help must not wait for torch.

_OURS = (
    *(CheckpointError, DataError, DivergedError, MissingExtraError),
    *(RecipeError, UnsupportedModelError),
)
_USAGE = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")


class Commands(TyperGroup):
    """Prints the package's own errors and usage errors as one line; others keep their traceback.

    Both end with exit code 2.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the name of the command."""
        with _one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        keep_freed_memory()
        with interruptible(lambda: "nothing was kept."), _one_line(), _stalls_in_one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    """Print errors that the user can act on as one line.

    Raises:
        Exit: With code 2, if there was an error.
    """
    try:
        yield
    except _OURS as error:
        message = str(error)
        cause: Exception = error
    except _USAGE as error:  # type: ignore[misc]
        if type(error).__name__ == "NoArgsIsHelpError":
            raise  # the help itself
        context = error.ctx
        words = error.format_message().removesuffix(".")
        end = "" if words.endswith("?") else "."
        message = f"{words[:1].lower()}{words[1:]}{end} See {context.command_path} --help."
        cause = error
    else:
        return
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(2) from cause


@contextmanager
def interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """Answer Ctrl-C within a block by one line.

    Args:
        kept: Returns what was kept and how to go on.

    Raises:
        Exit: With code 130, after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {kept()}", err=True)
        raise typer.Exit(130) from None


@contextmanager
def _stalls_in_one_line() -> Iterator[None]:
    """Print warnings about stalled training as one line; leave other warnings as they are."""
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, TrainingStalledWarning):
            typer.echo(f"warning: {message}", err=True)
        else:
            shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


def check_writable(*paths: Path | None) -> None:
    """Check before the work starts that files can be written.

    Raises:
        CheckpointError: If a file is a folder, or its folder is not writable.
    """
    from spikewvat import files

    for path in paths:
        if path is not None:
            if path.is_dir():
                raise CheckpointError(f"{str(path)!r} is a folder. Pass the name of a file.")
            files.check_writable(path.parent)


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure and print its path.

    Raises:
        CheckpointError: If it cannot be written, or its extension is not a known format.
    """
    from spikewvat.robustness import plots

    try:
        plots.save(figure, path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot draw {str(path)!r}: {error}") from error
    typer.echo(f"Drawn: {path}")


def share(text: str) -> float:
    """Parse a share such as ``0.9``, the accuracy that a chip must reach.

    Raises:
        BadParameter: If it is no number above 0 and up to 1; a percentage is told apart.
    """
    try:
        found = float(text.removesuffix("%"))
    except ValueError:
        found = -1.0
    percents = text.endswith("%") or found > 1
    if 0 < found <= (100 if percents else 1):
        if not percents:
            return found
        hint = f"write {found / 100:g} for {found:g} %"
    else:
        hint = "expected a number such as 0.9"
    raise typer.BadParameter(f"{text} is not a share: {hint}.")


def numbers(text: str, option: str) -> list[float]:
    """Parse the numbers of an option such as ``0,0.05,0.10``.

    Raises:
        RecipeError: If an item is not a number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"{option} {text!r}: expected numbers such as 0,0.05,0.10.") from None


def durations(text: str, option: str) -> list[float]:
    """Parse the durations of an option such as ``1s,1h,1d,1y``, in seconds.

    Raises:
        RecipeError: If an item is no duration.
    """
    from spikewvat.formatting import seconds_of

    try:
        return [seconds_of(part) for part in text.split(",")]
    except ValueError as error:
        raise RecipeError(f"{option}: {error}") from None


def whole_numbers(text: str, option: str) -> list[int]:
    """Parse the distinct whole numbers of an option such as ``0,1,2``.

    Raises:
        RecipeError: If an item is not a whole number of at least 0, or is repeated.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0:
        raise RecipeError(f"{option} {text!r}: expected whole numbers such as 0,1,2.")
    if len(set(found)) < len(found):
        raise RecipeError(f"{option} {text!r}: a number is repeated.")
    return found
