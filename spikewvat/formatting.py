"""Format numbers for tables, pages and the console."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

MISSING = "-"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Format a fraction in percent, without the sign; a dash if it is undefined.

    Example:
        >>> percent(0.956), percent(None), percent(math.nan)
        ('95.6', '-', '-')
    """
    if fraction is None or math.isnan(fraction):
        return MISSING
    return f"{100 * fraction:.{digits}f}"


def points(difference: float) -> str:
    """Format a difference of fractions in percentage points."""
    return f"{percent(difference)} points"


def interval(low: float, high: float, form: str = ".2f") -> str:
    """Format an interval; ``form`` is the format of its bounds.

    Example:
        >>> interval(-0.5, 1.25), interval(-0.5, 1.25, "+.1f"), interval(math.nan, math.nan)
        ('-0.50 .. 1.25', '-0.5 .. +1.2', '-')
    """
    return MISSING if math.isnan(low) else f"{low:{form}} .. {high:{form}}"


def within(middle: float, low: float, high: float, form: str = ".2f") -> str:
    """Format a number with its interval or quartiles in brackets.

    Example:
        >>> within(1.5, 1.25, 2)
        '1.50 (1.25 .. 2.00)'
    """
    return f"{middle:{form}} ({interval(low, high, form)})"


def working(chips: int, of: int, low: float, high: float) -> str:
    """Format a number of working chips with the interval of their share, in fractions.

    Example:
        >>> working(97, 100, 0.915, 0.994)
        '97 of 100 (92 .. 99 %)'
    """
    return f"{chips} of {of} ({interval(100 * low, 100 * high, '.0f')} %)"


def count(number: float) -> str:
    """Format a mean count, to three significant digits or the nearest whole number."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


class Markdown(str):
    """A cell that is Markdown already: it is not escaped. Never for text from a file."""


def markdown_row(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(c if isinstance(c, Markdown) else escaped(c) for c in cells) + " |"


def escaped(text: str) -> str:
    r"""Return a text that Markdown shows as it is, on one line: no HTML, links, marks or cells.

    Example:
        >>> print(escaped("a|b <script> [x](y) keep_mean"))
        a\|b &lt;script&gt; \[x\](y) keep_mean
    """
    line = " ".join(text.split())
    line = re.sub(r"([\\`*\[\]|])|(?<!\w)_|_(?!\w)", lambda mark: f"\\{mark.group()}", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"^(#+|[-+]|\d+[.)])(?= )", r"\\\1", line)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """Return a Markdown table.

    Args:
        heads: Headings of the columns.
        rows: Texts, one per column.
        names: Number of leading text columns, aligned to the left; the others hold numbers.

    Example:
        >>> print(markdown_table(["", "accuracy"], [["wvat", "95.6"]]))
        |  | accuracy |
        | --- | --: |
        | wvat | 95.6 |
    """
    align = ["---"] * names + ["--:"] * (len(heads) - names)
    return "\n".join(map(markdown_row, (heads, align, *rows)))


_UNITS = {"y": 365 * 86400.0, "d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3}


def duration(seconds: float) -> str:
    """Format a time in the largest unit that it holds once.

    Example:
        >>> duration(86400), duration(90), duration(0), duration(0.02)
        ('1 d', '1.5 min', '0 s', '20 ms')
    """
    unit = next((name for name, size in _UNITS.items() if seconds >= size), "s")
    return f"{seconds / _UNITS[unit]:.4g} {unit}"


def seconds_of(text: str) -> float:
    """Return the seconds that a duration such as ``"1h"``, ``"20 ms"`` or ``"30"`` stands for.

    Raises:
        ValueError: If it is no duration.

    Example:
        >>> seconds_of("1d"), seconds_of("0.5 h"), seconds_of("30")
        (86400.0, 1800.0, 30.0)
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e[-+]?[0-9]+)?)\s*([a-z]*)\s*", text)
    try:
        if found is None:
            raise ValueError
        return float(found[1]) * _UNITS[found[2] or "s"]
    except (ValueError, KeyError):
        raise ValueError(
            f"{text!r} is no duration, expected such as 1s, 20ms, 1h, 1d or 1y."
        ) from None
