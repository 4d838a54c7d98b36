"""The tables of a suite: rows, set-ups, the choice of settings, claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from spikewvat.lab.recipes.schema import VARIED, Positive, Size, Table
from spikewvat.validation import Field, field_validator, model_validator


class Row(Table):
    """One method on one set-up."""

    method: str
    recipe: str
    """File of the recipe, relative to the suite's, or the name of one of the package."""
    name: str = ""
    """Name of the row's files; by default that of the recipe, with the names of the variants."""
    overrides: tuple[str, ...] = ()
    """Overrides of the recipe for this row, such as ``"method.w_th=0.25"``."""
    settings: tuple[tuple[str, ...], ...] = ()
    """Overrides to choose from, see :class:`Selection`; one that is a single override is text."""
    averaged: bool = True
    """Test the averaged weights, if the training averages; else those after its last step."""
    evaluation: str | None = None
    """Test the trained network according to ``[evaluation.variant.<name>]``."""
    conversion: str | None = None
    """Convert the trained network according to ``[conversion.variant.<name>]``."""
    landscape: str | None = None
    """Evaluate the loss around its weights according to ``[landscape.variant.<name>]``."""
    paper: tuple[tuple[float] | tuple[float, float], ...] = ()
    """Published accuracy in % and, if available, its standard deviation, for each sigma."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "name" in value or "recipe" not in value:
            return value
        variants = [str(value[key]) for key in VARIED if value.get(key) is not None]
        return {**value, "name": "-".join([Path(str(value["recipe"])).stem, *variants])}

    @field_validator("settings", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [(one,) if isinstance(one, str) else one for one in value]

    @property
    def variants(self) -> dict[str, str]:
        """The selected variants of the recipe's tables."""
        chosen = {key: getattr(self, key) for key in VARIED}
        return {key: name for key, name in chosen.items() if name is not None}


class Group(Table):
    """A kind of chips that rows are tested on, for set-ups with ``crossed``."""

    name: str
    """Behind the set-up's name."""
    key: str
    """In names of files."""
    overrides: tuple[str, ...] = ()
    """Such as ``"evaluation.device=pcm"``."""


class Test(Table):
    """What is done to the chips of a group before they are tested."""

    key: str
    """In names of files."""
    method: str
    """Behind the row's method."""
    overrides: tuple[str, ...] = ()
    """Such as ``"evaluation.calibrate=scale"``."""
    groups: tuple[str, ...] = ()
    """Keys of the groups that it is for; all by default."""


class Setup(Table):
    """One network on one data set, and the methods compared on it."""

    name: str
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    presets: tuple[str, ...] = ()
    """Presets that include it; all by default."""
    baseline: str | None = None
    """Row whose training time is the unit; without it, times are not shown."""
    recipe: str | None = None
    """Recipe of a set-up that has a row for each of the suite's ``methods`` and names no others."""
    published: bool = True
    """Whether published results of the methods are those of this set-up."""
    without: tuple[str, ...] = ()
    """Names of methods that cannot be run here."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Test each seed on these folds of the data, ``data.fold`` from 0 on, and join the results.

    Every fold has trainings of its own: folds share most of their training data, so equal seeds
    would make nearly equal networks.
    """
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """Training seeds; the suite's by default."""
    choosing: tuple[str, ...] = ()
    """Further overrides of its recipes while settings are chosen."""
    crossed: bool = False
    """Whether every row goes through all groups and tests of the suite."""
    columns: tuple[str, ...] | None = None
    """Names of the suite's ``columns`` that can be tested here; all by default."""

    def parts(self, seeds: Iterable[int]) -> list[tuple[int, int | None, int]]:
        """Return seed, fold (None without folds) and the seed of its training, fold by fold.

        Args:
            seeds: Seeds of the rows, unless the set-up has its own.
        """
        seeds = self.seeds or tuple(seeds)
        if self.folds is None:
            return [(seed, None, seed) for seed in seeds]
        return [
            (seed, fold, seed * self.folds + fold) for seed in seeds for fold in range(self.folds)
        ]


class Selection(Table):
    """Choice of each row's setting by its accuracy on chips, on data held out from training.

    All rows try the same number of settings, on the same seeds. The chosen setting is then trained
    anew on the suite's own seeds, which no choice has seen, and those networks alone meet the test
    data, once.
    """

    validation: Annotated[float, Field(gt=0, lt=1)]
    """Share of the training data that is held out, in the choice and afterwards."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    """Training seeds of each setting."""
    sigmas: Annotated[tuple[Size, ...], Field(min_length=1)] = (0.05, 0.10)
    """The score of a setting is its mean accuracy over chips and these sizes of the variation."""
    chips: Positive = 10


class Claim(Table):
    """A published statement in a form that can be checked against results."""

    text: str
    better: Annotated[tuple[str, ...], Field(min_length=1)]
    """One or more rows, each above all rows of ``worse`` (for drop and rise: below)."""
    worse: Annotated[tuple[str, ...], Field(min_length=1)]
    sigma: Annotated[float, Field(ge=0)] | None = None
    """Size of the variation; 0 means no variation. None is for devices without a size."""
    of: Literal["accuracy", "drop", "rise"] = "accuracy"
    """The compared quantity: the mean over chips, its drop from the accuracy without variation, or
    the rise of the loss over that without variation."""
    margin: float = 0.0
    """Required lead in points; a negative value is an allowed deficit."""

    @field_validator("better", "worse", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value
