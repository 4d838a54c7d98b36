"""What all commands share: errors as one line, numbers, pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
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
    "numbers",
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
    """Prints the package's own errors and wrong calls as one line; other errors stay as they are.

    Both end with exit code 2.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what comes before the command's name."""
        with _one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        keep_freed_memory()
        with _one_line(), _stalls_in_one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    """Print errors that the user can act on as one line.

    Raises:
        Exit: With 2, if there was one.
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
        message = f"{words[:1].lower()}{words[1:]}. See {context.command_path} --help."
        cause = error
    else:
        return
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(2) from cause


@contextmanager
def _stalls_in_one_line() -> Iterator[None]:
    """Print warnings that training does not learn as one line; others stay as they are."""
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
    """Notice files that cannot be written before the work is done.

    Raises:
        CheckpointError: If the folder of one cannot be written to.
    """
    from spikewvat import files

    for path in paths:
        if path is not None:
            files.check_writable(path.parent)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure and say so.

    Raises:
        CheckpointError: If it cannot be written, or the ending names no format.
    """
    from spikewvat.robustness import plots

    try:
        plots.save(figure, path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot draw {str(path)!r}: {error}") from error
    typer.echo(f"Drawn: {path}")


def numbers(text: str, option: str) -> list[float]:
    """Return the numbers of an option such as ``0,0.05,0.10``.

    Raises:
        RecipeError: If one is none.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"{option} {text!r}: expected numbers such as 0,0.05,0.10.") from None


def whole_numbers(text: str, option: str) -> list[int]:
    """Return the different whole numbers of an option such as ``0,1,2``.

    Raises:
        RecipeError: If one is none, or is there twice.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"{option} {text!r}: expected whole numbers such as 0,1,2.") from None
    if len(set(found)) < len(found):
        raise RecipeError(f"{option} {text!r}: a number is there twice.")
    return found
