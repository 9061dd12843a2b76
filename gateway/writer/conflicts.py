"""Rows whose key may be taken: staged in a temporary table, inserted as the stream's ``on_conflict`` says.

``merge`` unites the JSON objects, the newer value wins; ``replace`` takes the newer, ``keep`` the older reading. The
newer is the later received, whichever is written first. ``distinct`` is for readings that got their receive time as
key: two of them are never the same reading.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

import msgspec

from gateway import clock
from gateway.outcomes import OnConflict, Outcome
from gateway.writer import rows
from gateway.writer.layouts.base import Layout, StreamTarget, United
from gateway.writer.rows import Row

_STAGE = "CREATE TEMPORARY TABLE IF NOT EXISTS {0.staged} ({0.typed_columns}) ON COMMIT {1}"
LIFT_DECOMPRESSION_LIMIT = "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0"


def stage(layout: Layout, *, pooled: bool) -> str:
    """Makes the temporary table of this layout.

    Args:
        pooled: the session is shared, and may have the table of another release of the gateway.
    """
    if pooled:
        return f"DROP TABLE IF EXISTS pg_temp.{layout.staged}; {_STAGE.format(layout, 'DROP')}"
    return _STAGE.format(layout, "DELETE ROWS")


Policy = OnConflict | Literal["distinct"]
"""What is done about a key that is taken; ``distinct``: the reading that comes gives way."""


class RowTooLargeError(Exception):
    """Merging makes rows that are too large: these messages must not be merged.

    Attributes:
        sizes: bytes that a row of theirs would have, by index.
    """

    def __init__(self, sizes: Mapping[int, int]) -> None:
        super().__init__(f"{len(sizes)} messages make rows that are too large")
        self.sizes = sizes


class Contribution(msgspec.Struct):
    """What one message adds to one key. ``new``: it is no repetition of an earlier one in the batch."""

    index: int
    key: bytes
    new: bool


class Staging:
    """The rows of one ``on_conflict`` for one table, one per key, and which messages contributed to each.

    Args:
        target: the table.
        most_bytes: a message that would make a row larger by merging is left out.

    Attributes:
        never_stored: of ``distinct``, the keys of readings that are surely not in the table, though equal ones may be.
        overwritten: messages with a reading that met another of its key with other values, one index a reading.
        too_large: the messages left out, by index: how large the row would be, bytes.
    """

    def __init__(self, target: StreamTarget, on_conflict: Policy, most_bytes: int) -> None:
        self.target, self.on_conflict, self._most_bytes = target, on_conflict, most_bytes
        self._unite = target.layout.united
        self.never_stored: set[bytes] = set()
        self.contributions: list[Contribution] = []
        self.overwritten: list[int] = []
        self.too_large: dict[int, int] = {}
        self._united: dict[bytes, United] = {}
        self._given: defaultdict[bytes, dict[int, int]] = defaultdict(dict)

    @property
    def keys(self) -> Collection[bytes]:
        """The keys of all rows."""
        return self._united.keys()

    @property
    def rows(self) -> dict[bytes, Row]:
        """The rows, by key."""
        return {key: united.row for key, united in self._united.items()}

    def add(self, index: int, blob: bytes, never_stored_from: int | None = None) -> None:
        """Add the rows of the message with this index.

        Args:
            never_stored_from: µs; of ``distinct``, the readings that were dated from then on, a microsecond each, are
                surely not in the table.
        """
        if self.on_conflict == "distinct":
            self._add_apart(index, blob, never_stored_from)
        else:
            self._add_united(index, blob)

    def _add_apart(self, index: int, blob: bytes, never_stored_from: int | None) -> None:
        """Each reading at a key of its own."""
        found = list(self.target.layout.take_apart(blob))
        dated = (
            range(0)
            if never_stored_from is None
            else range(never_stored_from, never_stored_from + len(found))
        )
        for row in found:
            own = row.at(self._free_from(row))
            if row.time_us in dated:
                self.never_stored.add(own.key)
            self.contributions.append(Contribution(index, own.key, True))
            self._united[own.key] = self._unite(own)

    def _free_from(self, row: Row) -> int:
        """The first microsecond of the device that no other row here has; it is given away."""
        given, time_us = self._given[rows.device_of(row.key)], row.time_us
        passed = []
        while time_us in given:
            passed.append(time_us)
            time_us = given[time_us]
        given.update(dict.fromkeys((*passed, time_us), time_us + 1))
        return time_us

    def _add_united(self, index: int, blob: bytes) -> None:
        """The message's own readings of one key united first: it is taken whole or left out."""
        own: dict[bytes, United] = {}
        overwritten = 0
        for row in self.target.layout.take_apart(blob):
            later, earlier = self._unite(row), own.get(row.key)
            if earlier is not None:
                overwritten += earlier.overwritten_by(later)
                later = self._joined(earlier, later) or earlier
            own[row.key] = later
        too_large = max((self._size(key, later) for key, later in own.items()), default=0)
        if too_large > self._most_bytes:
            self.too_large[index] = too_large
            return
        for key, later in own.items():
            earlier = self._united.get(key)
            overwritten += earlier is not None and earlier.overwritten_by(later)
            united = later if earlier is None else self._joined(earlier, later)
            self.contributions.append(Contribution(index, key, united is not None))
            if united is not None:
                self._united[key] = united
        self.overwritten += [index] * overwritten

    def _size(self, key: bytes, later: United) -> int:
        """Of the row that this one makes by merging; 0: it merges nothing."""
        earlier = self._united.get(key)
        if self.on_conflict != "merge":
            return 0
        if earlier is None or earlier.is_like(later):
            return later.size if later.merged else 0
        largest = max(earlier.size, later.size)
        if largest > self._most_bytes:  # no look inside
            return largest
        return earlier.grown(later) if earlier.adds(later) else 0

    def _joined(self, earlier: United, later: United) -> United | None:
        """What the two of one key are, in the order of receipt; None: the earlier one as it is."""
        if self.on_conflict == "keep" or earlier.is_like(later):
            return None
        if self.on_conflict == "replace":
            return later
        if not earlier.adds(later):
            return None
        earlier.merge(later)
        return earlier

    def move(self, places: Mapping[bytes, int], *, never_stored: Collection[bytes]) -> None:
        """Give rows other times, µs, by key; ``never_stored``: those of them that are surely not in the table there."""
        moving = {key: self._united.pop(key) for key in places}
        moved: dict[bytes, bytes] = {}
        for key, united in moving.items():
            united.move(places[key])
            moved[key] = united.row.key
            self._united[moved[key]] = united
        self.never_stored = {moved.get(key, key) for key in self.never_stored.union(never_stored)}
        for one in self.contributions:
            one.key = moved.get(one.key, one.key)

    def contributors(self, sizes: Mapping[bytes, int]) -> dict[int, int]:
        """The messages with readings of these keys, and the largest number at any of them."""
        found: dict[int, int] = {}
        for one in self.contributions:
            if one.key in sizes:
                found[one.index] = max(found.get(one.index, 0), sizes[one.key])
        return found

    def met(self, keys_met: set[bytes]) -> None:
        """Under these keys the table has readings with other values."""
        last = {one.key: one.index for one in self.contributions if one.key in keys_met}
        self.overwritten += last.values()

    def outcomes(self, kept: set[bytes]) -> dict[int, Outcome]:
        """How each message ended, given the keys under which something new is kept."""
        found: dict[int, Outcome] = {}
        for one in self.contributions:
            if one.new and one.key in kept:
                found[one.index] = Outcome.STORED
            else:
                found.setdefault(one.index, Outcome.DUPLICATE)
        return found


def keys(records: Iterable[Any]) -> set[bytes]:
    """The keys of returned records ``(time, device_id)``."""
    return {rows.key_of(clock.from_datetime(record["time"]), record["device_id"].bytes) for record in records}
