"""Errors that users can act on: each message states the next step."""

from __future__ import annotations

import importlib
from types import ModuleType


class UnsupportedModelError(ValueError):
    """The model contains something that no adapter can handle."""


class DataError(ValueError):
    """Data on disk is missing, incomplete or malformed."""


class MissingDataError(DataError):
    """Data that the user must provide is missing."""


class CheckpointError(ValueError):
    """A saved file cannot be written or read, or does not belong to this run."""


class RecipeError(ValueError):
    """A recipe has an unknown key or an impossible value."""


class DivergedError(ArithmeticError):
    """Loss or weights are no longer finite; the last good checkpoint is kept."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed."""


class TrainingStalledWarning(UserWarning):
    """Training under variation makes no progress; the message suggests a remedy."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or raise an error that says how to install it.

    Args:
        module: Dotted module name, for example ``"snntorch"``.
        extra: The extra of this package that installs it.
        purpose: Subject of the error message, the feature that needs the module.

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
