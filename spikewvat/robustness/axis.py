"""The swept quantity: the size of the weight variation, or the severity of a corruption."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """How the sizes of a sweep are written.

    Args:
        name: Name of the swept corruption; None for weight variation, whose size is sigma.
        unit: Meaning of the size of a corruption.
    """

    name: str | None = None
    unit: str = ""

    def size(self, value: float) -> str:
        """Return a size, such as ``"5 %"`` of sigma or ``"0.1"`` of a corruption."""
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
        return f"severity of {self.name}: {self.unit}"
