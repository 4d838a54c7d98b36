"""The swept quantity: the size of variation, the severity of a corruption, or another setting."""

from __future__ import annotations

from dataclasses import dataclass

from spikewvat.formatting import duration


@dataclass(frozen=True)
class Axis:
    """How the sizes of a sweep are written.

    Args:
        name: Name of the swept corruption or setting; None for weight variation, whose size is
            sigma.
        unit: Meaning of its size.
    """

    name: str | None = None
    unit: str = ""

    def size(self, value: float) -> str:
        """Return a size, such as ``"5 %"`` of sigma, ``"1 d"`` of age, ``"0.1"`` of others."""
        if self == AGE:
            return duration(value)
        return f"{100 * value:g} %" if self.name is None else f"{value:g}"

    def heading(self, value: float) -> str:
        """Return a size with its name, for the heading of a column.

        Example:
            >>> Axis().heading(0.05), Axis("deletion", "share of events lost").heading(0.1)
            ('σ = 5 %', 'deletion 0.1')
        """
        return f"{'σ =' if self.name is None else self.name} {self.size(value)}"

    def note(self, range_label: str) -> str:
        """Return a clause that explains the sizes, for the note under a table.

        Args:
            range_label: The range that sigma is relative to.
        """
        if self.name is None:
            return f"σ relative to {range_label}"
        what = self.name if self in SETTINGS else f"severity of {self.name}"
        return f"{what}: {self.unit}"


AGE = Axis("age", "time since programming")
"""Time since chips were programmed, in seconds."""
VERIFIED = Axis("verified", "share of the weights that are verified")
"""Share of the weights that are written again until they are right."""
SETTINGS = (AGE, VERIFIED)
"""What can be swept beside variation and corruptions."""


@dataclass(frozen=True)
class Setting:
    """Where in a sweep over something else than variation a report belongs.

    Args:
        axis: What is swept.
        value: Its value.
    """

    axis: Axis
    value: float
