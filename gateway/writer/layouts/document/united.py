"""Readings of one key, united: each is decoded once, and what they come to is encoded once.

Values stay the JSON that they are: two are the same when their bytes are, so that ``true`` is not ``1``. Time and
memory are linear in the bytes of the readings, however many meet.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.writer import rows
from gateway.writer.layouts.document.encoding import DocumentRow

Fields = dict[str, msgspec.Raw]
"""By name, each value encoded."""

_fields = msgspec.json.Decoder(Fields).decode
_BETWEEN = 2
"""A field's colon, and the comma before the next."""


class UnitedDocuments:
    """See :class:`gateway.writer.layouts.base.United`: what the readings of one key come to so far.

    Attributes:
        size: bytes of data and metadata, as JSON.
        merged: it is more than one reading.
    """

    __slots__ = ("_data", "_metadata", "_row", "_values", "merged", "size")

    def __init__(self, row: DocumentRow) -> None:
        self._row = row
        self._data: Fields | None = None
        self._metadata: Fields = {}
        self._values: dict[str, Any] = {}
        self.size = len(row.data) + len(row.metadata or b"")
        self.merged = False

    @property
    def row(self) -> DocumentRow:
        """The one reading that they are now."""
        if self.merged:
            self._row.data = rows.to_json(self._data)
            self._row.metadata = rows.to_json(self._metadata) if self._metadata else None
        return self._row

    def move(self, time_us: int) -> None:
        """Another time, µs since the Unix epoch."""
        self._row = self._row.at(time_us)

    def is_like(self, later: UnitedDocuments) -> bool:
        """Whether the two are the same, as can be told without a look inside."""
        return self._same_data(later) and self._row.metadata == later._row.metadata

    def overwritten_by(self, later: UnitedDocuments) -> bool:
        """Whether some field has another value in the later one; 2.0 is 2."""
        if self._same_data(later):
            return False
        ours = self._decoded()
        return any(
            name in ours and ours[name] != raw and self._value(name) != msgspec.json.decode(raw)
            for name, raw in later._decoded().items()
        )

    def adds(self, later: UnitedDocuments) -> bool:
        """Whether a merge with the later one changes anything."""
        if self.is_like(later):
            return False
        ours, theirs = self._decoded(), later._decoded()
        return bool(_changed(ours, theirs) or _changed(self._metadata, later._metadata))

    def grown(self, later: UnitedDocuments) -> int:
        """The size after a merge with the later one."""
        ours, theirs = self._decoded(), later._decoded()
        return self.size + _growth(ours, theirs) + _growth(self._metadata, later._metadata)

    def merge(self, later: UnitedDocuments) -> None:
        """The later one's fields win, and its receive time."""
        self.size, self.merged = self.grown(later), True
        for name, raw in _changed(self._decoded(), later._decoded()).items():
            self._decoded()[name] = raw
            self._values.pop(name, None)
        self._metadata.update(later._metadata)
        self._row.received = later._row.received

    def _same_data(self, later: UnitedDocuments) -> bool:
        return not (self.merged or later.merged) and self._row.data == later._row.data

    def _decoded(self) -> Fields:
        if self._data is None:
            self._data = _fields(self._row.data)
            self._metadata = _fields(self._row.metadata) if self._row.metadata else {}
        return self._data

    def _value(self, name: str) -> Any:
        """Decoded once, however many are compared with it."""
        if name not in self._values:
            self._values[name] = msgspec.json.decode(self._decoded()[name])
        return self._values[name]


def _changed(ours: Fields, theirs: Fields) -> Fields:
    return {name: raw for name, raw in theirs.items() if name not in ours or ours[name] != raw}


def _growth(ours: Fields, theirs: Fields) -> int:
    """Bytes that a merge adds."""
    return sum(
        len(memoryview(raw)) - len(memoryview(ours[name]))
        if name in ours
        else len(rows.to_json(name)) + len(memoryview(raw)) + _BETWEEN
        for name, raw in theirs.items()
    )
