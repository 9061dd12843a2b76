"""What a layout is: how readings lie in a table. What follows from it, the writer does alike for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, Self

import msgspec

from gateway.storage.identifiers import quoted
from gateway.writer.rows import Row


class United(Protocol):
    """Rows of one key that meet in one batch, in the order of receipt, and what they come to.

    Attributes:
        size: bytes of what the device sent, as encoded.
        merged: it is more than one reading.
    """

    size: int
    merged: bool

    @property
    def row(self) -> Row:
        """The one row that they are now."""

    def move(self, time_us: int) -> None:
        """Another time, µs since the Unix epoch."""

    def is_like(self, later: Self) -> bool:
        """Whether the two are the same, as can be told without a look inside."""

    def overwritten_by(self, later: Self) -> bool:
        """Whether some metric has another value in the later one."""

    def adds(self, later: Self) -> bool:
        """Whether a merge with the later one changes anything."""

    def grown(self, later: Self) -> int:
        """The size after a merge with the later one."""

    def merge(self, later: Self) -> None:
        """The later one's metrics win, and its receive time."""


class Encode(Protocol):
    """From a reading to its encoded rows."""

    def __call__(
        self,
        time_us: int,
        columns: bytes,
        metrics: dict[str, Any],
        metadata: dict[str, Any] | None,
        received_us: int | None = None,
    ) -> bytes:
        """The rows of one reading.

        Args:
            time_us: µs since the Unix epoch.
            columns: of the device, from :func:`gateway.writer.rows.device_columns`.
            metrics: values msgspec can write as JSON.
            metadata: likewise, or None.
            received_us: µs since the Unix epoch; of two readings with one key the later received is the newer.
        """


class Statements(msgspec.Struct, frozen=True):
    """What the writer asks of one table, when rows are staged in the layout's temporary table.

    Attributes:
        inserts: by ``on_conflict``; each returns the keys (time, device_id) under which something new is kept now.
        overwritten: keys under which another reading has other values, and 0 as size.
        merged: the same, and the size of rows that a merge makes larger than ``$1`` bytes.
        taken: keys that any reading holds.
        taken_by_others: keys that another reading holds.
    """

    inserts: Mapping[str, str]
    overwritten: str
    merged: str
    taken: str
    taken_by_others: str


class Layout(msgspec.Struct, frozen=True):
    """One way to lay readings down.

    Attributes:
        name: as configuration calls it.
        columns: name and type, in the order in which rows are encoded; time, device_id and tenant_id come first.
        staged: the temporary table in which its rows are staged.
        content: SQL: of a row in ``staged`` or in the table, a bigint that is the same for the same content.
        encode: readings to rows.
        take_apart: the rows of a message, from its encoded bytes.
        united: what a row is, when others of its key may follow.
        statements: of a table, by its identifier.
    """

    name: str
    columns: Mapping[str, str]
    staged: str
    content: str
    encode: Encode
    take_apart: Callable[[bytes], Iterator[Row]]
    united: Callable[[Any], United]
    statements: Callable[[str], Statements]

    @property
    def typed_columns(self) -> str:
        """The columns with their types, for a table of the same shape."""
        return ", ".join(f"{name} {type_}" for name, type_ in self.columns.items())


class StreamTarget:
    """Where the readings of a stream go.

    Attributes:
        table: its name.
        layout: how they lie in it.
        identifier: the name as statements have it.
        sql: what is asked of it.
    """

    __slots__ = ("identifier", "layout", "sql", "table")

    def __init__(self, table: str, layout: Layout) -> None:
        self.table, self.layout = table, layout
        self.identifier = quoted(table)
        self.sql = layout.statements(self.identifier)
