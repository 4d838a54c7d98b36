"""A suite: the set-ups and methods of one table as recipes, with published results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from spikewvat import files
from spikewvat.errors import RecipeError
from spikewvat.lab.places import SUITE as FILE
from spikewvat.lab.places import shown, suite_names, suites_folder
from spikewvat.lab.recipes import Recipe, read_recipe
from spikewvat.lab.recipes.reading import check_preset, recipe_file
from spikewvat.lab.recipes.registry import check_keys, nearest, validated
from spikewvat.lab.recipes.schema import Table
from spikewvat.lab.suites.schema import Claim, Group, Row, Selection, Setup, Test
from spikewvat.validation import Field, model_validator

__all__ = [
    "FILE",
    "TRAINED",
    "Claim",
    "Group",
    "Row",
    "Selection",
    "Setup",
    "Suite",
    "Test",
    "read_suite",
    "suites_folder",
]


TRAINED = "trained"
"""Folder of the trained networks, which all suites share."""


class Suite(Table):
    """The content of a table."""

    title: str
    source: str = ""
    """Source of the published results."""
    seeds: dict[str, tuple[int, ...]]
    """Training seeds of each preset."""
    hint: str = ""
    """A hint on the next step, shown at the end."""
    groups: tuple[Group, ...] = ()
    """Kinds of chips for set-ups with ``crossed``; each makes a set-up of its own."""
    tests: tuple[Test, ...] = ()
    """What is done to them; each makes rows of its own."""
    setups: Annotated[tuple[Setup, ...], Field(min_length=1)]
    claims: tuple[Claim, ...] = ()
    """Statements about the rows."""
    published: bool = True
    """Whether the claims were published elsewhere; otherwise they are the suite's own."""
    measures: Literal["accuracy", "step-time"] = "accuracy"
    """Train the rows and test them on chips, or only time their training steps."""
    rounds: Annotated[int, Field(gt=0)] = 30
    """Number of rounds for measuring step times."""
    methods: tuple[dict[str, Any], ...] = ()
    """Rows of every set-up with a ``recipe``, named after it and the method's own name."""
    selection: Selection | None = None
    """How the setting of each row is chosen; by default rows have none to choose from."""
    columns: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Other chips that the networks are tested on: changes of the table ``[evaluation]`` by name.
    """
    folder: Path = Path()

    @model_validator(mode="before")
    @classmethod
    def _crossed(cls, value: Any) -> Any:
        """Give each set-up that has a recipe instead of rows one row for each method."""
        if not isinstance(value, Mapping) or not value.get("methods"):
            return value
        setups = []
        for setup in value.get("setups", ()):
            recipe = setup.get("recipe") if isinstance(setup, Mapping) else None
            if isinstance(recipe, str) and "rows" not in setup:
                left_out = () if setup.get("published", True) else ("paper",)
                rows = [
                    {key: one[key] for key in one if key not in left_out}
                    | {"recipe": recipe, "name": f"{Path(recipe).stem}-{one.get('name')}"}
                    for one in value["methods"]
                    if one.get("name") not in setup.get("without", ())
                ]
                setup = {**setup, "rows": rows}
            setups.append(setup)
        return {**value, "setups": setups}

    def check_fresh(self, seeds: Iterable[int], key: str) -> None:
        """Raise RecipeError if settings are chosen on one of the seeds that are named by a key."""
        used = sorted(set(seeds) & set(self.selection.seeds if self.selection else ()))
        if used:
            raise RecipeError(
                f"{key}: settings are chosen on seeds {used}, so they cannot be compared on them. "
                "Use others."
            )

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, set-up by set-up."""
        return tuple(row for setup in self.setups for row in setup.rows)

    def seeds_of(self, preset: str | None) -> tuple[int, ...]:
        """Return the training seeds of a preset, ``"quick"`` by default.

        Raises:
            RecipeError: If the suite has no such preset.
        """
        name = preset or "quick"
        check_preset(name, self.seeds, f"the suite {self.title!r}")
        return self.seeds[name]

    def on_seeds(self, seeds: Iterable[int]) -> Suite:
        """Return the suite with these training seeds for every set-up."""
        setups = [setup.model_copy(update={"seeds": tuple(seeds)}) for setup in self.setups]
        return self.model_copy(update={"setups": tuple(setups)})

    def at(self, preset: str | None) -> Suite:
        """Return the suite with only the set-ups of a preset, ``"quick"`` by default.

        Raises:
            RecipeError: If the preset has none.
        """
        name = preset or "quick"
        setups = tuple(s for s in self.setups if not s.presets or name in s.presets)
        if not setups:
            raise RecipeError(
                f"no selected set-up of {self.title!r} belongs to the preset {name!r}. "
                f"Pass --preset {self.setups[0].presets[0]}."
            )
        return self.model_copy(update={"setups": setups})

    def recipe(
        self, row: Row, *, preset: str | None, seed: int, overrides: Iterable[str] = ()
    ) -> Recipe:
        """Read the recipe of a job.

        Args:
            row: A row of the suite.
            preset: See :func:`spikewvat.lab.recipes.read_recipe`.
            seed: Seed of the training.
            overrides: Such as ``"training.lr=1e-4"``, for all jobs; applied after the row's own.

        Raises:
            RecipeError: If the recipe is missing or malformed.
        """
        recipe = read_recipe(
            recipe_file(row.recipe, self.folder),
            preset=preset,
            variants=row.variants,
            overrides=(*row.overrides, *overrides),
            seed=seed,
        )
        unasked = {"conversion": row.conversion, "landscape": row.landscape}
        dropped = {key: None for key, variant in unasked.items() if variant is None}
        return recipe.model_copy(update=dropped)

    def chosen(self, patterns: Sequence[str]) -> Suite:
        """Return the suite with only the rows that match one of the patterns.

        Args:
            patterns: Row names with ``*`` as wildcard; without patterns all rows are kept.

        Raises:
            RecipeError: If a pattern matches no row.
        """
        if not patterns:
            return self
        names = [row.name for row in self.rows]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RecipeError(f"there is no row {pattern!r}. {nearest(pattern, names)}")
        setups = []
        for setup in self.setups:
            rows = tuple(r for r in setup.rows if any(fnmatchcase(r.name, p) for p in patterns))
            if rows:
                setups.append(setup.model_copy(update={"rows": rows}))
        return self.model_copy(update={"setups": tuple(setups)})


def read_suite(name: str | Path) -> Suite:
    """Read a suite.

    Args:
        name: Name of a suite in the package, or a folder with a ``suite.toml``.

    Raises:
        RecipeError: If there is no such suite, a key is unknown, two rows share a name, or a claim
            or baseline names an unknown row.
    """
    ours = suite_names()
    # Resolved: results lie in a folder of its last part's name, which is not to be "..".
    folder = suites_folder() / name if str(name) in ours else Path(name).resolve()
    if not (folder / FILE).is_file():
        raise RecipeError(
            f"there is no suite {str(name)!r}, and no file {str(folder / FILE)!r}. "
            f"{nearest(str(name), ours)}"
        )
    content = files.read_toml(folder / FILE)
    where = shown(folder / FILE)
    check_keys(content, [key for key in Suite.model_fields if key != "folder"], where)
    try:
        suite = validated(Suite, {**content, "folder": folder}, "the suite")
    except RecipeError as error:
        raise RecipeError(f"{where!r}: {error}") from error
    suite = suite.model_copy(update={"setups": tuple(_on_groups(suite, folder / FILE))})
    _check_names(suite, folder / FILE)
    _check_fair(suite, folder / FILE)
    return suite


def _check_fair(suite: Suite, path: Path) -> None:
    """Raise RecipeError unless all rows choose from equally many settings, and on other seeds."""
    counts = {row.name: len(row.settings) for row in suite.rows}
    if suite.selection is None:
        given = [name for name, count in counts.items() if count]
        if given:
            raise RecipeError(
                f"{str(path)!r}: row {given[0]!r} has settings to choose from. Add [selection]."
            )
        return
    if 0 in counts.values() or len(set(counts.values())) > 1:
        raise RecipeError(
            f"{str(path)!r}: rows have settings {counts}, expected equally many for all, at least "
            "one: a method that chooses from more has an advantage."
        )
    for preset, seeds in suite.seeds.items():
        suite.check_fresh(seeds, f"{str(path)!r}: seeds.{preset}")
    for setup in suite.setups:
        suite.check_fresh(setup.seeds or (), f"{str(path)!r}: seeds of {setup.name!r}")


def _on_groups(suite: Suite, path: Path) -> Iterator[Setup]:
    """Yield the set-ups, each crossed one as one for every group, with a row for every test."""
    keys = [group.key for group in suite.groups]
    for test in suite.tests:
        for key in test.groups:
            if key not in keys:
                raise RecipeError(f"{str(path)!r} has no group {key!r}. {nearest(key, keys)}")
    for setup in suite.setups:
        if not setup.crossed:
            yield setup
            continue
        for group in suite.groups:
            rows = [
                row.model_copy(
                    update={
                        "method": f"{row.method}: {test.method}",
                        "name": f"{row.name}-{group.key}-{test.key}",
                        "overrides": (*row.overrides, *group.overrides, *test.overrides),
                    }
                )
                for row in setup.rows
                for test in suite.tests
                if not test.groups or group.key in test.groups
            ]
            changes = {"name": f"{setup.name}: {group.name}", "rows": tuple(rows)}
            yield setup.model_copy(update=changes)


def _check_names(suite: Suite, path: Path) -> None:
    """Raise RecipeError unless row names are unique and all references to rows are valid."""
    names = [row.name for row in suite.rows]
    for name in names:
        files.check_name(name, f"{str(path)!r}: row")
    files.check_name(suite.folder.resolve().name, "suite")
    if suite.folder.resolve().name == TRAINED:
        raise RecipeError(
            f"{str(suite.folder)!r}: {TRAINED!r} is the folder of trained networks. "
            "Give the suite's folder another name."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"{str(path)!r} has two rows named {', '.join(twice)}.")
    wanted = [(name, names) for claim in suite.claims for name in (*claim.better, *claim.worse)]
    for setup in suite.setups:
        if setup.baseline is not None:
            wanted.append((setup.baseline, [row.name for row in setup.rows]))
        for method in setup.without:
            wanted.append((method, [str(one.get("name")) for one in suite.methods]))
        for column in setup.columns or ():
            if column not in suite.columns:
                raise RecipeError(
                    f"{str(path)!r} names an unknown column {column!r}. "
                    f"{nearest(column, list(suite.columns))}"
                )
    for name, known in wanted:
        if name not in known:
            raise RecipeError(
                f"{str(path)!r} names an unknown row or method {name!r}. {nearest(name, known)}"
            )
