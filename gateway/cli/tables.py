"""Rows as a table: printed as they come, narrow enough for the terminal, one line a row in a pipe.

The first rows, a sample, decide the widths; a later cell that is wider moves the rest of its row and nothing else, so
a table of any length starts at once. On a terminal columns that do not fit are left out, and only free text is cut.
A pipe gets all columns, with a tab between them.
"""

from __future__ import annotations

import datetime as dt
import itertools
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import typer

_SAMPLE = 200
_GAP = "  "
_LEAST = 16
"""Free text is not worth its place with less room than this."""
_WIDEST = 40
"""No column is made wider for the sake of a few cells: those move the rest of their row."""

Clean = Callable[[str], str]


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None: a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class Columns(NamedTuple):
    """What a table shows.

    Attributes:
        names: all columns, in the order in which they are shown.
        always: those that are shown on the narrowest terminal; empty: the first one.
        then: the others, the most important first; empty: in their order.
        free: the last column when it is free text, which may be cut to the room that is left.
    """

    names: Sequence[str]
    always: Sequence[str] = ()
    then: Sequence[str] = ()
    free: str = ""


def lines(
    columns: Columns, rows: Iterable[Sequence[object]], clean: Clean, *, width: int | None
) -> Iterator[str]:
    """The table, line by line.

    Args:
        columns: what is shown.
        rows: a cell for each column; None is shown as nothing.
        clean: makes foreign text fit for a terminal, on one line.
        width: columns of the terminal; None: a pipe.
    """
    cells = ([text(cell, clean) for cell in row] for row in rows)
    if width is None:
        yield "\t".join(columns.names)
        yield from ("\t".join(row) for row in cells)
        return
    sample = list(itertools.islice(cells, _SAMPLE))
    widths = _widths([columns.names, *sample])
    kept = _kept(columns, widths, width)
    shown = [widths[place] for place in kept]
    bound = width if columns.names[kept[-1]] == columns.free else None
    yield typer.style(_line([columns.names[place] for place in kept], shown, bound), bold=True)
    for row in itertools.chain(sample, cells):
        yield _line([row[place] for place in kept], shown, bound)
    if left_out := [name for place, name in enumerate(columns.names) if place not in kept]:
        yield _no_room_for(left_out, width)


def _no_room_for(names: Sequence[str], width: int) -> str:
    told = f"(no room for {', '.join(names)}: a wider terminal, a pipe or --json has all)"
    return typer.style("\n".join(textwrap.wrap(told, width)), dim=True)


def _widths(sample: Sequence[Sequence[str]]) -> list[int]:
    """Of each column."""
    return [min(max(_width(cell) for cell in column), _WIDEST) for column in zip(*sample, strict=True)]


def _kept(columns: Columns, widths: Sequence[int], width: int) -> list[int]:
    """The places of the columns that are shown, in their order."""
    names = list(columns.names)
    kept = [names.index(name) for name in columns.always or names[:1]]
    room = width - sum(widths[place] + len(_GAP) for place in kept)
    for name in columns.then or names:
        place = names.index(name)
        needed = widths[place] + len(_GAP)
        if name == columns.free:
            needed = min(needed, max(room, _LEAST))
        if place not in kept and needed <= room + len(_GAP):
            kept.append(place)
            room -= needed
    return sorted(kept)


def _line(cells: Sequence[str], widths: Sequence[int], bound: int | None) -> str:
    """Cells side by side; the last one cut where the line would be wider than ``bound``."""
    padded = [cell + " " * (least - _width(cell)) for cell, least in zip(cells[:-1], widths, strict=False)]
    head = "".join(cell + _GAP for cell in padded)
    last = cells[-1] if bound is None else _cut(cells[-1], max(bound - _width(head), _LEAST))
    return (head + last).rstrip()


def _cut(text: str, room: int) -> str:
    if _width(text) <= room:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, room - 1).rstrip() + "…"


def text(cell: object, clean: Clean) -> str:
    """One cell; None is nothing, and a time is in UTC, to the second."""
    if cell is None:
        return ""
    if isinstance(cell, dt.datetime):
        return cell.astimezone(dt.UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
    return clean(str(cell))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
