"""What the fault matrix found: one row a cell, as text, as Markdown and as JSON lines.

    python -m tests.support.fault_table .cache/faults.jsonl

prints the rows of some sessions as the table of ``docs/reliability.md``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

REPORT = Path(os.environ.get("GATEWAY_FAULTS_REPORT", ".cache/faults.jsonl"))
"""Where the rows of the last session are, as JSON lines."""


@dataclasses.dataclass(frozen=True)
class Row:
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
    transport: str
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
    "fault", "engine", "transport", "timestamps", "messages", "stored", "duplicates", "dead letters", "lost", "twice",
    "recovery s", "seed", "note",
)  # fmt: skip


def cells_of(row: Row) -> list[str]:
    """The row as text, under ``HEADINGS``."""
    recovery = "" if row.recovery is None else f"{row.recovery:.1f}"
    return [
        *(row.fault, row.engine, row.transport, row.timestamps),
        *(f"{number:,}".replace(",", " ") for number in (row.messages, row.stored, row.duplicates)),
        *(f"{row.dead_letters:,}".replace(",", " "), str(row.lost), str(row.twice)),
        *(recovery, str(row.seed), row.note),
    ]


def aligned(rows: Sequence[Row]) -> list[str]:
    """The table for a terminal."""
    lines = [list(HEADINGS), *map(cells_of, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEADINGS))]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def markdown(rows: Sequence[Row]) -> list[str]:
    """The table for a page."""
    return [
        f"| {' | '.join(HEADINGS)} |",
        f"|{' --- |' * len(HEADINGS)}",
        *(f"| {' | '.join(cells_of(row))} |" for row in rows),
    ]


def summary(rows: Sequence[Row]) -> str:
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


def save(rows: Iterable[Row], file: Path = REPORT) -> None:
    """Write the rows as JSON lines, replacing what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) for row in rows]
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def load(*files: Path) -> list[Row]:
    """The rows of these files."""
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return [Row(**json.loads(line)) for line in lines]


def main() -> None:
    """The rows of the named files as Markdown."""
    rows = load(*map(Path, sys.argv[1:]))
    sys.stdout.write("\n".join([*markdown(rows), "", summary(rows), ""]))


if __name__ == "__main__":
    main()
