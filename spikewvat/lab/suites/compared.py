"""Store a comparison on the user's own network as a suite, which the report can read."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

from spikewvat import files, serialisation
from spikewvat.comparison import Comparison, Failure
from spikewvat.comparison import Row as Compared
from spikewvat.errors import RecipeError
from spikewvat.lab.suites.jobs import ERROR
from spikewvat.lab.suites.suite import FILE, Row, Setup, Suite
from spikewvat.provenance import provenance
from spikewvat.results import RowResult

SCALE = "own"
"""The scale of a comparison in result files."""


class ComparisonFolder:
    """Writes a comparison into a folder, row by row or at the end.

    Pass it to :func:`spikewvat.compare` as ``on_row`` to write each row as soon as it is available,
    or call it with the result of ``compare``. Rows of an earlier comparison with the same names are
    removed first.

    Args:
        folder: Folder to write to.
        title: Title of the comparison in tables and reports.

    Example:
        >>> from tempfile import mkdtemp
        >>> import torch
        >>> from spikewvat import Gaussian, compare
        >>> network, batches = torch.nn.Linear(2, 2), [(torch.eye(2), torch.arange(2))]
        >>> folder = ComparisonFolder(mkdtemp(), "Mine")
        >>> found = compare(network, batches, devices={"G": Gaussian}, corruptions={}, chips=2)
        >>> folder(found)
        >>> sorted(path.name for path in folder.path.iterdir())
        ['g-as-it-is.json', 'suite.toml']
    """

    def __init__(self, folder: Path | str, title: str) -> None:
        self.path = Path(folder)
        self.title = title
        self.results: dict[str, RowResult] = {}
        """The rows by name, in the form of the suite's tables."""
        self._provenance: dict[str, Any] = {}

    def __call__(self, found: Comparison, new: Compared | Failure | None = None) -> None:
        """Write the new part, or everything if it is None.

        Args:
            found: The results so far.
            new: The part of them that is not written yet.

        Raises:
            RecipeError: If two names give the same file name.
            CheckpointError: If the folder is not writable.
        """
        if new is not None:
            self._write(found, new)
            return
        suite = self.suite(found)
        files.check_writable(self.path)
        files.write_toml(self.path / FILE, _content(suite))
        for planned in suite.rows:
            (self.path / f"{planned.name}.json").unlink(missing_ok=True)
        for method in found.methods:
            self._log(method).unlink(missing_ok=True)
        self._provenance = provenance()
        for row in found.rows:
            self._write(found, row)
        for failure in found.failures:
            self._write(found, failure)

    def suite(self, found: Comparison) -> Suite:
        """Return the rows as those of a suite.

        Raises:
            RecipeError: If two names give the same file name.
        """
        for names in (found.tests, found.methods):
            if "" in map(slug, names) or len(set(map(slug, names))) < len(names):
                raise RecipeError(
                    f"names {list(names)} are used as file names. Expected names that differ in "
                    "letters or digits."
                )
        setups = tuple(
            Setup(
                name=test,
                rows=tuple(
                    Row(method=method, recipe=f"{_name(test, method)}.toml")
                    for method in found.methods
                ),
            )
            for test in found.tests
        )
        return Suite(title=self.title, seeds={SCALE: found.seeds}, setups=setups)

    def _write(self, found: Comparison, new: Compared | Failure) -> None:
        if isinstance(new, Failure):
            text = "".join(traceback.format_exception(new.error))
            files.write_atomic(self._log(new.method), text)
            return
        name = _name(new.test, new.method)
        self.results[name] = RowResult(
            seeds=new.seeds,
            curves=new.curves,
            seconds=new.seconds,
            samples={"train": found.training_samples, "test": new.curves[0][0].images},
            scale=SCALE,
            recipe={"network": self.title},
            **self._provenance,
        )
        serialisation.write(self.path / f"{name}.json", self.results[name])

    def _log(self, method: str) -> Path:
        return self.path / f"{slug(method)}-failed" / ERROR


def slug(name: str) -> str:
    """Convert a name for use in a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _name(test: str, method: str) -> str:
    """Return the name of a row."""
    return f"{slug(test)}-{slug(method)}"


def _content(suite: Suite) -> dict[str, Any]:
    """Return what the suite's file holds."""
    return suite.model_dump(
        mode="json",
        include={"title": True, "seeds": True, "setups": {"__all__": {"name", "rows"}}},
        exclude_defaults=True,
    )
