"""Rows whose key may be taken: staged in a temporary table, inserted as the stream's ``on_conflict`` says.

``merge`` unites the JSON objects, the newer value wins; ``replace`` takes the newer, ``keep`` the older reading. The
newer is the later received, whichever is written first. ``distinct`` is for readings that got their receive time as
key: two of them are never the same reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gateway import clock
from gateway.messages import DeadLetter
from gateway.outcomes import Outcome
from gateway.writer import rows

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
SELECT staged.time, staged.device_id FROM gateway_staged AS staged JOIN telemetry AS kept USING (device_id, time)
WHERE staged.data || kept.data <> kept.data || staged.data
"""
"""Under which staged keys another reading has other values of the same fields."""

TAKEN_BY_OTHERS = """
SELECT staged.time, staged.device_id FROM gateway_staged AS staged JOIN telemetry AS kept USING (device_id, time)
WHERE (kept.data, kept.metadata) IS DISTINCT FROM (staged.data, staged.metadata)
"""
"""Which staged keys another reading holds."""
TAKEN = "SELECT time, device_id FROM gateway_staged JOIN telemetry USING (device_id, time)"
"""Which staged keys any reading holds."""

LETTER_COLUMNS = (
    "id", "received_at", "stream", "topic", "payload", "reason", "detail", "tenant", "device", "qos", "retained",
    "properties",
)  # fmt: skip
INSERT_LETTER = (
    f"INSERT INTO dead_letters ({', '.join(LETTER_COLUMNS)}) "
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(LETTER_COLUMNS) + 1))}) ON CONFLICT (id) DO NOTHING"
)

FAILED_AGAIN = """
UPDATE dead_letters SET replays = replays + 1, replayed_at = now(), replay_outcome = 'dead_lettered',
  stream = $2, reason = $3, detail = $4, tenant = $5, device = $6
WHERE id = $1 AND (replay_outcome IS NULL OR replay_outcome NOT IN ('stored', 'duplicate'))
"""


class Contribution(msgspec.Struct):
    """What one message adds to one key. ``new``: it is no repetition of an earlier one in the batch."""

    index: int
    key: bytes
    new: bool


class Staging:
    """The rows of one ``on_conflict``, one per key, and who contributed to each.

    Attributes:
        never_stored: of ``distinct``, the keys of readings that are surely not in the table, though equal ones may be.
        overwritten: messages with a reading that met another of its key with other values, one index a reading.
    """

    def __init__(self, on_conflict: str) -> None:
        self.on_conflict = on_conflict
        self.never_stored: set[bytes] = set()
        self.rows: dict[bytes, rows.Row] = {}
        self.contributions: list[Contribution] = []
        self.overwritten: list[int] = []

    def add(self, index: int, blob: bytes, never_stored_from: int | None = None) -> None:
        """Add the rows of the message with this index.

        Args:
            never_stored_from: µs; of ``distinct``, the readings that were dated from then on, a microsecond each, are
                surely not in the table.
        """
        found = list(rows.take_apart(blob))
        dated = (
            range(0)
            if never_stored_from is None
            else range(never_stored_from, never_stored_from + len(found))
        )
        for row in found:
            new = row.time_us in dated
            if self.on_conflict == "distinct":
                row = self._aside(row)  # noqa: PLW2901 - the same reading, at a key of its own
            if new:
                self.never_stored.add(row.key)
            earlier = self.rows.get(row.key)
            united = row if earlier is None else _unite(earlier, row, self.on_conflict)
            if earlier is not None and _overwrites(earlier.data, row.data):
                self.overwritten.append(index)
            self.contributions.append(Contribution(index, row.key, united is not earlier))
            self.rows[row.key] = united

    def step_aside(self, taken: set[bytes]) -> None:
        """Move the rows of these keys one microsecond on, and on, until they have keys of their own."""
        moved: dict[bytes, bytes] = {}
        for key in sorted(taken):  # by time: their order stays
            row = self.rows.pop(key)
            row = self._aside(row.at(row.time_us + 1))
            self.rows[row.key] = row
            moved[key] = row.key
        self.never_stored = {moved.get(key, key) for key in self.never_stored}
        for one in self.contributions:
            one.key = moved.get(one.key, one.key)

    def met(self, keys_met: set[bytes]) -> None:
        """Under these keys the table has readings with other values."""
        last = {one.key: one.index for one in self.contributions if one.key in keys_met}
        self.overwritten += last.values()

    def _aside(self, row: rows.Row) -> rows.Row:
        while row.key in self.rows:
            row = row.at(row.time_us + 1)
        return row

    def outcomes(self, kept: set[bytes]) -> dict[int, Outcome]:
        """How each message ended, given the keys under which something new is kept."""
        found: dict[int, Outcome] = {}
        for one in self.contributions:
            if one.new and one.key in kept:
                found[one.index] = Outcome.STORED
            else:
                found.setdefault(one.index, Outcome.DUPLICATE)
        return found


def _unite(earlier: rows.Row, later: rows.Row, on_conflict: str) -> rows.Row:
    """Two readings of one key as one, in the order of receipt; ``earlier`` itself when the later adds nothing."""
    if (earlier.data, earlier.metadata) == (later.data, later.metadata) or on_conflict == "keep":
        return earlier
    if on_conflict == "replace":
        return later
    data = _merged(earlier.data, later.data)
    metadata = _merged(earlier.metadata or b"{}", later.metadata or b"{}")
    if (data, metadata) == (earlier.data, earlier.metadata or b"{}"):
        return earlier
    return rows.Row(earlier.key, earlier.head, data, None if metadata == b"{}" else metadata, later.received)


def _overwrites(one: bytes, other: bytes) -> bool:
    """Whether some field has another value in the other."""
    ours, theirs = msgspec.json.decode(one), msgspec.json.decode(other)
    return any(name in theirs and theirs[name] != value for name, value in ours.items())


def _merged(older: bytes, newer: bytes) -> bytes:
    return rows.to_json({**msgspec.json.decode(older), **msgspec.json.decode(newer)})


def keys(records: Iterable[Any]) -> set[bytes]:
    """The keys of returned records ``(time, device_id)``."""
    return {rows.key_of(clock.from_datetime(record["time"]), record["device_id"].bytes) for record in records}


def letter_record(letter: DeadLetter) -> Sequence[object]:
    """The columns of a dead letter, in the order of ``LETTER_COLUMNS``."""
    message = letter.message
    properties = [[_sayable(name), _sayable(value)] for name, value in message.user_properties]
    return (
        letter.id,
        clock.to_datetime(letter.received_us),
        letter.stream,
        _sayable(message.topic),
        message.payload,
        letter.reason.value,
        _sayable(letter.detail),
        _sayable(letter.tenant),
        _sayable(letter.device),
        0 if message.packet_id is None else 1,
        message.retain,
        rows.to_json(properties).decode() if properties else None,
    )


def again_record(letter: DeadLetter) -> Sequence[object]:
    """The arguments of ``FAILED_AGAIN``."""
    return (
        letter.id,
        letter.stream,
        letter.reason.value,
        _sayable(letter.detail),
        _sayable(letter.tenant),
        _sayable(letter.device),
    )


def _sayable(text: str | None) -> str | None:
    """Text that PostgreSQL can hold: no NUL, no lone surrogate. A letter that it refused would hold up all others."""
    if text is None:
        return None
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
