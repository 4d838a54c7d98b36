"""Errors that users can act on: each is named after its remedy and says the next move."""

from __future__ import annotations

import importlib
from types import ModuleType


class UnsupportedModelError(ValueError):
    """The model holds something that no adapter knows how to handle."""


class DataError(ValueError):
    """Data on disk is missing, incomplete or malformed."""


class MissingDataError(DataError):
    """Data that a user has to bring is not there."""


class CheckpointError(ValueError):
    """A saved file cannot be written, read, or does not belong to this run."""


class RecipeError(ValueError):
    """A recipe has an unknown key or an impossible value."""


class DivergedError(ArithmeticError):
    """Loss or weights are no longer finite; the last good checkpoint is kept."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed."""


class TrainingStalledWarning(UserWarning):
    """Training under variation does not learn; the message names the remedy."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency or say how to install it.

    Args:
        module: Dotted module name, for example ``"snntorch"``.
        extra: The extra of this package that brings it.
        purpose: What it is needed for, the start of the error's sentence.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the dependency is there but broken: its own error says more
        raise MissingExtraError(
            f'{purpose} needs {module}. Run: pip install "spikewvat[{extra}]".'
        ) from error
