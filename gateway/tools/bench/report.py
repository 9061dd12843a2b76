"""The whole bench as text for people, and as a tree for programs. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.tools.bench.results import Ratio, Table


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found, and what must be known with it."""

    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    installation: str
    notes: Sequence[str]
    seed: int
    seconds: float
    tables: Sequence[Table]
    ratios: Sequence[Ratio]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what is not a number there is null."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "installation": self.installation,
            "notes": list(self.notes),
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "tables": [
                {
                    "scenario": table.scenario,
                    "title": table.title,
                    "rows": [
                        {name: _finite(cell) for name, cell in record.items()} for record in table.records()
                    ],
                    "notes": list(table.notes),
                }
                for table in self.tables
            ],
            "ratios": {ratio.name: _finite(ratio.value) for ratio in self.ratios},
        }

    def lines(self) -> Iterator[str]:
        """For a terminal, or a document."""
        yield from _about("machine", self.machine)
        yield from _about("versions", self.versions)
        yield f"seed      {self.seed}; {self.installation}; {self.seconds:.0f} s in all"
        yield from self.notes
        for table in self.tables:
            yield ""
            yield from _table(table)
        if self.ratios:
            yield ""
            yield "ratios"
            yield from (f"  {_cell(ratio.value):>8}  {ratio.name}" for ratio in self.ratios)


def _about(title: str, facts: Mapping[str, Any]) -> Iterator[str]:
    flat = [f"{name.replace('_', ' ')} {value}" for name, value in _flat(facts)]
    yield f"{title:<9} {', '.join(flat)}"


def _flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def _table(table: Table) -> Iterator[str]:
    yield f"{table.scenario}: {table.title}"
    cells = [list(table.columns), *([_cell(value) for value in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        first, *others = zip(line, widths, strict=True)
        yield "  " + "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
    yield from (f"  ({note})" for note in table.notes)


def _cell(value: Any) -> str:
    """Three figures that count, and no more: the rest is noise."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "no limit"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
