"""Tables: as they come, as wide as the terminal, one line a row in a pipe."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

import pytest

from gateway.cli import tables
from gateway.cli.tables import Columns

LETTERS = Columns(
    ("received", "device", "reason", "id", "stream", "topic", "detail"),
    always=("received", "device", "reason"),
    then=("id", "detail", "stream", "topic"),
    free="detail",
)
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
ROW = (NOON, "VIB-SN-001", "refused_by_database", "5b8f3a52-6c1e-4a52-9d53-0d6b8f6f0a11", "telemetry",
       "t/acme/VIB-SN-001", "value 17 of vibration is beyond what the column can hold, says the database")  # fmt: skip


def drawn(columns: Columns, rows: list[tuple[object, ...]], width: int | None) -> list[str]:
    """The lines, without styles."""
    return [re.sub("\x1b\\[[0-9;]*m", "", line) for line in tables.lines(columns, rows, str, width=width)]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_columns_are_dropped_not_wrapped(width: int) -> None:
    """Time, device and reason stand on the narrowest terminal, whole; no line is wider; what is left out is told."""
    lines = "\n".join(drawn(LETTERS, [ROW] * 3, width)).split("\n")
    assert max(map(len, lines)) <= width
    assert (
        sum(line.startswith("2026-11-20 12:00:00Z  VIB-SN-001  refused_by_database") for line in lines) == 3
    )
    assert ("detail" in lines[0]) == (width >= 80)
    assert (str(ROW[3]) in lines[1]) == (width >= 120)
    told = " ".join(lines[4:])
    assert all(name in lines[0] or name in told for name in LETTERS.names)


def test_a_pipe_gets_a_line_a_row() -> None:
    """All columns, whole, a tab between them, no padding; nothing is an empty field."""
    lines = drawn(LETTERS, [ROW, (*ROW[:4], None, *ROW[5:])], None)
    assert lines[0].split("\t") == list(LETTERS.names)
    assert lines[1].split("\t") == ["2026-11-20 12:00:00Z", *ROW[1:]]
    assert lines[2].split("\t")[4] == ""


@pytest.mark.parametrize("width", [80, None])
def test_rows_are_printed_as_they_come(width: int | None) -> None:
    """The first lines are there before the last rows are asked for; a cell wider than the sample breaks nothing."""
    asked = 0

    def rows() -> Iterator[tuple[object, ...]]:
        nonlocal asked
        for asked in range(1, 20_001):
            yield ("x" * (90 if asked == 5000 else 5), asked)

    lines = tables.lines(Columns(("name", "number")), rows(), str, width=width)
    next(lines)
    next(lines)
    assert asked <= 200
    assert sum(1 for _ in lines) == 19_999


def test_wide_letters_are_aligned() -> None:
    """Chinese characters take two columns, combining ones none."""
    lines = drawn(Columns(("name", "at")), [("泵一", 1), ("e\u0301", 2), ("abcd", 3)], 60)
    assert lines[1:] == ["泵一  1", "e\u0301     2", "abcd  3"]
