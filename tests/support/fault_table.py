"""What the fault matrix found: one row a cell, as text, as Markdown and as JSON lines.

    python -m tests.support.fault_table [--by-fault] .cache/faults.jsonl

prints the rows of some sessions as a table of ``docs/reliability.md``, a cell or a fault a row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

REPORT = Path(os.environ.get("GATEWAY_FAULTS_REPORT", ".cache/faults.jsonl"))
"""Where the rows of the last session are, as JSON lines."""


@dataclasses.dataclass(frozen=True)
class FaultCellRow:
    """One cell as it ended.

    Attributes:
        messages: published, each once as the publisher sees it.
        stored: rows of ``telemetry``.
        duplicates: redeliveries and copies that left no second row.
        lost: published and found nowhere.
        twice: rows and dead letters beyond one a message.
        recovery: seconds from the mending to ready and settling again, the longest of the cell; None: nothing to mend.
        seconds: that the cell took, servers and proof included.
        note: what else was measured.
        destroyed: of those lost, how many the fault destroyed on a disk after they were durable: its very purpose.
    """

    fault: str
    engine: str
    protocol: str
    timestamps: str
    messages: int
    stored: int
    duplicates: int
    dead_letters: int
    lost: int
    twice: int
    recovery: float | None
    seed: int
    seconds: float
    note: str = ""
    destroyed: int = 0


HEADINGS = (
    "fault", "engine", "protocol", "timestamps", "messages", "stored", "duplicates", "dead letters", "lost", "twice",
    "recovery s", "seed", "note",
)  # fmt: skip


BY_FAULT = (
    "fault", "cells", "messages", "stored", "duplicates", "dead letters", "lost", "twice", "recovery s", "at most",
)  # fmt: skip
COUNTS = ("messages", "stored", "duplicates", "dead_letters", "lost", "twice")


def cells_of(row: FaultCellRow) -> list[str]:
    """The row as text, under ``HEADINGS``."""
    recovery = "" if row.recovery is None else f"{row.recovery:.1f}"
    return [
        *(row.fault, row.engine, row.protocol, row.timestamps),
        *(f"{number:,}".replace(",", " ") for number in (row.messages, row.stored, row.duplicates)),
        *(f"{row.dead_letters:,}".replace(",", " "), str(row.lost), str(row.twice)),
        *(recovery, str(row.seed), row.note),
    ]


def aligned(rows: Sequence[FaultCellRow]) -> list[str]:
    """The table for a terminal."""
    lines = [list(HEADINGS), *map(cells_of, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEADINGS))]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def by_fault(rows: Iterable[FaultCellRow]) -> Iterator[list[str]]:
    """The cells of each fault in sum, under ``BY_FAULT``."""
    faults: dict[str, list[FaultCellRow]] = {}
    for row in rows:
        faults.setdefault(row.fault, []).append(row)
    return map(_sum, faults.values())


def _sum(rows: Sequence[FaultCellRow]) -> list[str]:
    recoveries = [row.recovery for row in rows if row.recovery is not None]
    times = [statistics.median(recoveries), max(recoveries)] if recoveries else []
    return [
        *(rows[0].fault, str(len(rows))),
        *(f"{sum(getattr(row, name) for row in rows):,}".replace(",", " ") for name in COUNTS),
        *([f"{seconds:.1f}" for seconds in times] or ["", ""]),
    ]


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A table for a page."""
    ruled = [headings, ["---"] * len(headings), *lines]
    return [f"| {' | '.join(line)} |" for line in ruled]


def summary(rows: Sequence[FaultCellRow]) -> str:
    """All rows in one line."""
    recoveries = [row.recovery for row in rows if row.recovery is not None]
    recovery = f"{statistics.median(recoveries):.1f} s (median)" if recoveries else "none to measure"
    destroyed = sum(row.destroyed for row in rows)
    return (
        f"{len(rows)} cells, {sum(row.messages for row in rows)} messages: "
        f"lost {sum(row.lost for row in rows) - destroyed}"
        f"{f' (and {destroyed} destroyed on disk by their cells)' if destroyed else ''}, "
        f"twice {sum(row.twice for row in rows)}, duplicates absorbed {sum(row.duplicates for row in rows)}; "
        f"recovery {recovery}"
    )


def machine() -> str:
    """On what it was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs {platform.machine()}, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}"
    )


def save(rows: Iterable[DataclassInstance], file: Path = REPORT) -> None:
    """Write the rows as JSON lines, replacing what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) for row in rows]
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def load(*files: Path) -> list[FaultCellRow]:
    """The rows of these files."""
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return [FaultCellRow(**json.loads(line)) for line in lines]


def main() -> None:
    """The rows of the named files as Markdown."""
    parser = argparse.ArgumentParser(description="The rows of fault sessions as Markdown.")
    parser.add_argument("files", nargs="*", type=Path, default=[REPORT], help="JSON lines (%(default)s)")
    parser.add_argument("--by-fault", action="store_true", help="the cells of a fault in sum")
    asked = parser.parse_args()
    rows = load(*asked.files)
    table = markdown(BY_FAULT, by_fault(rows)) if asked.by_fault else markdown(HEADINGS, map(cells_of, rows))
    sys.stdout.write("\n".join([*table, "", summary(rows), ""]))


if __name__ == "__main__":
    main()
