"""What was found: tables and ratios. Pure; how they are drawn is another matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Table(msgspec.Struct, frozen=True):
    """Figures of one scenario.

    Attributes:
        columns: names with their unit.
        notes: what a reader of the figures must know.
    """

    scenario: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()

    def records(self) -> list[dict[str, Any]]:
        """The rows by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Ratio(msgspec.Struct, frozen=True):
    """Two figures of one bench, divided."""

    name: str
    value: float


class Findings(msgspec.Struct, frozen=True):
    """What a scenario found."""

    tables: Sequence[Table] = ()
    ratios: Sequence[Ratio] = ()
