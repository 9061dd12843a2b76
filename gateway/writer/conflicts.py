"""Rows whose key may be taken: staged in a temporary table, inserted as the stream's ``on_conflict`` says.

``merge`` unites the JSON objects, the newer value wins; ``replace`` takes the newer, ``keep`` the older reading. The
newer is the later received, whichever is written first. ``distinct`` is for readings that got their receive time as
key: two of them are never the same reading.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from gateway import clock
from gateway.outcomes import Outcome
from gateway.writer import rows
from gateway.writer.rows import Row
from gateway.writer.united import United

_STAGE = """
CREATE TEMPORARY TABLE IF NOT EXISTS gateway_staged
(time timestamptz, device_id uuid, tenant_id uuid, data jsonb, metadata jsonb, received_at timestamptz)
ON COMMIT {at_commit}
"""
STAGE = _STAGE.format(at_commit="DELETE ROWS")
STAGE_ONCE = f"DROP TABLE IF EXISTS pg_temp.gateway_staged; {_STAGE.format(at_commit='DROP')}"
"""Behind a pooler: the session is everybody's, and may have the table of another release of the gateway."""
EMPTY_STAGE = "DELETE FROM gateway_staged"
LIFT_DECOMPRESSION_LIMIT = "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0"

_INSERT = """
INSERT INTO telemetry AS kept (time, device_id, tenant_id, data, metadata, received_at)
SELECT time, device_id, tenant_id, data, metadata, received_at FROM gateway_staged ORDER BY time, device_id
ON CONFLICT (device_id, time) {action}
RETURNING time, device_id
"""
# Sorted, so that two transactions never wait for each other in a circle.
_LATE = "coalesce(excluded.received_at < kept.received_at, false)"
"""It was received before the reading that is there."""
_NEWER = "greatest(kept.received_at, excluded.received_at)"
_UNITED = f"CASE WHEN {_LATE} THEN excluded.data || kept.data ELSE kept.data || excluded.data END"
_UNITED_METADATA = f"""
CASE WHEN {_LATE} THEN coalesce(excluded.metadata || kept.metadata, kept.metadata, excluded.metadata)
ELSE coalesce(kept.metadata || excluded.metadata, kept.metadata, excluded.metadata) END
"""
_MERGED = f"""
DO UPDATE SET data = {_UNITED}, metadata = {_UNITED_METADATA}, received_at = {_NEWER}
WHERE (kept.data, kept.metadata) IS DISTINCT FROM ({_UNITED}, {_UNITED_METADATA})
"""
_TAKEN_OVER = "data = excluded.data, metadata = excluded.metadata, received_at = excluded.received_at"
_OTHER = "(kept.data, kept.metadata) IS DISTINCT FROM (excluded.data, excluded.metadata)"
_REPLACED = f"DO UPDATE SET {_TAKEN_OVER} WHERE NOT {_LATE} AND {_OTHER}"
_KEPT = f"DO UPDATE SET {_TAKEN_OVER} WHERE {_LATE} AND {_OTHER}"
INSERTS = {
    "merge": _INSERT.format(action=_MERGED),
    "replace": _INSERT.format(action=_REPLACED),
    "keep": _INSERT.format(action=_KEPT),
    "distinct": _INSERT.format(action="DO NOTHING"),
}
"""By ``on_conflict``; each returns the keys under which something new is kept now."""

OVERWRITTEN = """
SELECT time, device_id, 0 AS size FROM gateway_staged AS staged JOIN telemetry AS kept USING (device_id, time)
WHERE staged.data || kept.data <> kept.data || staged.data
"""
"""Under which staged keys another reading has other values of the same fields."""
_SIZE = "pg_column_size({0}.data) + coalesce(pg_column_size({0}.metadata), 0)"
_KEPT_SIZE, _STAGED_SIZE, _UNITED_SIZE = (_SIZE.format(name) for name in ("kept", "staged", "united"))
_UNREAD = f"{_KEPT_SIZE} > $1 AND {_STAGED_SIZE} <= $1"
"""What is there is too large even as it lies on the disk, compressed, and is not the staged reading itself."""
MERGED = f"""
SELECT time, device_id, size FROM (
    SELECT time, device_id,
    CASE WHEN {_UNREAD} THEN {_KEPT_SIZE} ELSE (
        SELECT {_UNITED_SIZE}
        FROM (SELECT {_UNITED} AS data, {_UNITED_METADATA} AS metadata OFFSET 0) AS united
        WHERE {_UNITED_SIZE} > $1
        AND (united.data, united.metadata) IS DISTINCT FROM (kept.data, kept.metadata)
    ) END AS size,
    CASE WHEN {_UNREAD} THEN false ELSE staged.data || kept.data <> kept.data || staged.data END AS overwritten
    FROM gateway_staged AS staged JOIN telemetry AS kept USING (device_id, time)
) AS met
WHERE size > 0 OR overwritten
""".replace("excluded.", "staged.")
"""``OVERWRITTEN``, and under which keys a merge makes rows of more than ``$1`` bytes, as the database holds them."""

TAKEN_BY_OTHERS = """
SELECT staged.time, staged.device_id FROM gateway_staged AS staged JOIN telemetry AS kept USING (device_id, time)
WHERE (kept.data, kept.metadata) IS DISTINCT FROM (staged.data, staged.metadata)
"""
"""Which staged keys another reading holds."""
TAKEN = "SELECT time, device_id FROM gateway_staged JOIN telemetry USING (device_id, time)"
"""Which staged keys any reading holds."""


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
    """The rows of one ``on_conflict``, one per key, and who contributed to each.

    Args:
        most_bytes: a message that would make a row larger by merging is left out.

    Attributes:
        never_stored: of ``distinct``, the keys of readings that are surely not in the table, though equal ones may be.
        overwritten: messages with a reading that met another of its key with other values, one index a reading.
        too_large: the messages left out, by index: how large the row would be, bytes.
    """

    def __init__(self, on_conflict: str, most_bytes: int) -> None:
        self.on_conflict, self._most_bytes = on_conflict, most_bytes
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
        found = list(rows.take_apart(blob))
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
            self._united[own.key] = United(own)

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
        for row in rows.take_apart(blob):
            later, earlier = United(row), own.get(row.key)
            if earlier is not None:
                overwritten += earlier.overwritten_by(later)
                later = self._unite(earlier, later) or earlier
            own[row.key] = later
        too_large = max((self._size(key, later) for key, later in own.items()), default=0)
        if too_large > self._most_bytes:
            self.too_large[index] = too_large
            return
        for key, later in own.items():
            earlier = self._united.get(key)
            overwritten += earlier is not None and earlier.overwritten_by(later)
            united = later if earlier is None else self._unite(earlier, later)
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

    def _unite(self, earlier: United, later: United) -> United | None:
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
