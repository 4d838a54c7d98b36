"""Parametrisation by rows and what they meet: all of both, and not their whole product."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import pytest


def spread(
    names: str, rows: Iterable[Any], *columns: Sequence[Any], each: int = 1
) -> pytest.MarkDecorator:
    """Parametrise so that every row runs, and every combination of the columns.

    Row after row takes the next ``each`` combinations, from the first one again after the last;
    the rows begin anew until all combinations have had their turn. A contract of 22 networks and
    2 x 2 x 4 ways to break runs 22 times.

    Args:
        names: Of the arguments: that of a row first, then one for each column.
        rows: The cases of a contract.
        columns: What else there is to try.
        each: How many combinations a row meets at least.
    """
    cases, combinations = list(rows), list(product(*columns))
    each = min(each, len(combinations))
    rounds = max(1, -(-len(combinations) // (len(cases) * each)))
    met = dict.fromkeys(
        (turn // each % len(cases), turn % len(combinations))
        for turn in range(rounds * len(cases) * each)
    )
    return pytest.mark.parametrize(
        [name.strip() for name in names.split(",")],
        [
            pytest.param(
                cases[row],
                *combinations[column],
                id="-".join(map(_name, (cases[row], *combinations[column]))),
            )
            for row, column in met
        ],
    )


def _name(value: Any) -> str:
    """Return the name that a case gives itself, or how it prints."""
    name = getattr(value, "name", None) or getattr(value, "__name__", None)
    return name if isinstance(name, str) else str(value)
