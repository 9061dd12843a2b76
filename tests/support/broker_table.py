"""What the broker matrix found: one row a cell, as a table of brokers and cells, and as JSON lines.

    python -m tests.support.broker_table .cache/brokers.jsonl

prints the tables of ``docs/brokers.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.support.fault_table import machine, markdown

REPORT = Path(os.environ.get("GATEWAY_BROKERS_REPORT", ".cache/brokers.jsonl"))
"""Where the rows of the last session are, as JSON lines."""
PROTOCOLS = {4: "3.1.1", 5: "5"}


@dataclasses.dataclass(frozen=True)
class BrokerCellRow:
    """One cell as it ended.

    Attributes:
        level: of the protocol; 4 is MQTT 3.1.1.
        rows: of ``telemetry``.
        lost: messages without a row.
        twice: rows beyond one a message.
        reference_lost: messages that the plain consumer never got.
        reference_again: messages that the plain consumer got again after it had acknowledged them.
        note: what else was seen; of cells without messages, all of it.
        habits: what the broker does, by name; of the cell ``habits``.
    """

    broker: str
    version: str
    level: int
    cell: str
    messages: int = 0
    rows: int = 0
    lost: int = 0
    twice: int = 0
    reference_lost: int = 0
    reference_again: int = 0
    seconds: float = 0
    note: str = ""
    habits: dict[str, str] = dataclasses.field(default_factory=dict)


def said(row: BrokerCellRow) -> str:
    """The cell of a table."""
    if not row.messages:
        return row.note
    parts = []
    if row.lost or row.reference_lost:
        parts.append(f"lost {row.lost} (consumer {row.reference_lost})")
    if row.twice or row.reference_again:
        parts.append(
            f"twice {row.twice}" + (f" (consumer {row.reference_again})" if row.reference_again else "")
        )
    return "; ".join([*(parts or [f"{row.messages}"]), *([row.note] if row.note else [])])


def by_broker(rows: Sequence[BrokerCellRow]) -> list[list[str]]:
    """A broker and protocol a line, a cell a column; the first line is the head."""
    cells = list(dict.fromkeys(row.cell for row in rows if not row.habits))
    lines = [["broker", "MQTT", *cells]]
    for (broker, version, level), found in _grouped(rows):
        at = {row.cell: said(row) for row in found}
        lines.append([f"{broker} {version}", PROTOCOLS[level], *(at.get(cell, "-") for cell in cells)])
    return lines


def habits(rows: Sequence[BrokerCellRow]) -> list[list[str]]:
    """A broker and protocol a line, a habit a column."""
    told = [row for row in rows if row.habits]
    names = list(dict.fromkeys(name for row in told for name in row.habits))
    lines = [["broker", "MQTT", *names]]
    return lines + [
        [f"{row.broker} {row.version}", PROTOCOLS[row.level], *(row.habits.get(name, "-") for name in names)]
        for row in told
    ]


def _grouped(rows: Iterable[BrokerCellRow]) -> Iterator[tuple[tuple[str, str, int], list[BrokerCellRow]]]:
    groups: dict[tuple[str, str, int], list[BrokerCellRow]] = {}
    for row in rows:
        if not row.habits:
            groups.setdefault((row.broker, row.version, row.level), []).append(row)
    return iter(groups.items())


def summary(rows: Sequence[BrokerCellRow]) -> str:
    """All rows in one line."""
    brokers = {row.broker for row in rows}
    return (
        f"{len(brokers)} brokers, {len(rows)} cells, {sum(row.messages for row in rows)} messages: "
        f"lost {sum(max(row.lost - row.reference_lost, 0) for row in rows)} that the consumer got, "
        f"twice {sum(row.twice for row in rows)}"
    )


def load(*files: Path) -> list[BrokerCellRow]:
    """The rows of these files; a cell that was run again is there once, as it ended last."""
    found: dict[tuple[str, int, str], BrokerCellRow] = {}
    for line in (line for file in files for line in file.read_text("utf-8").splitlines()):
        row = BrokerCellRow(**json.loads(line))
        found[row.broker, row.level, row.cell] = row
    return list(found.values())


def report(rows: Sequence[BrokerCellRow]) -> list[str]:
    """Both tables as Markdown."""
    tables = [lines for lines in (by_broker(rows), habits(rows)) if len(lines) > 1]
    pages = [line for head, *lines in tables for line in [*markdown(head, lines), ""]]
    return [*pages, f"{summary(rows)}; on {machine()}"]


def main() -> None:
    """The tables of the named files."""
    parser = argparse.ArgumentParser(description="The rows of broker sessions as Markdown.")
    parser.add_argument("files", nargs="*", type=Path, default=[REPORT], help="JSON lines (%(default)s)")
    sys.stdout.write("\n".join([*report(load(*parser.parse_args().files)), ""]))


if __name__ == "__main__":
    main()
