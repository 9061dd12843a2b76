"""Dead letters in the database: find them, look at one, make a message of it again.

They are written by the writer, in the transaction of the batch they came with; so is how a replay of them ended.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway import clock

_COLUMNS = (
    "id, received_at, stream, topic, payload, reason, detail, tenant, device, qos, retained, properties, "
    "replays, replayed_at, replay_outcome, payload_bytes, payload_digest"
)


class Selection(msgspec.Struct, frozen=True):
    """Which dead letters. What is None selects nothing away.

    Attributes:
        device: serial number, as the topic names it.
        since: received then or later.
        until: received before.
        tenant: as the topic names it, or the stream.
        stored: also those that a replay has already stored.
    """

    ids: Sequence[uuid.UUID] | None = None
    reason: str | None = None
    stream: str | None = None
    device: str | None = None
    since: dt.datetime | None = None
    stored: bool = False
    tenant: str | None = None
    until: dt.datetime | None = None


class Count(msgspec.Struct, frozen=True):
    """How many dead letters have this reason, and when the first and the last of them were received."""

    reason: str
    letters: int
    first: dt.datetime
    last: dt.datetime


class Replayed(msgspec.Struct):
    """A dead letter as a message again; satisfies :class:`gateway.messages.Message`.

    It has no packet id: no broker waits for its acknowledgement.
    """

    topic: str
    payload: bytes
    dead_letter_id: uuid.UUID
    received_us: int
    user_properties: Sequence[tuple[str, str]] = ()
    packet_id: int | None = None
    retain: bool = False
    duplicate: bool = False


async def find(
    connection: Any, selection: Selection, *, limit: int, before: Any = None
) -> list[Mapping[str, Any]]:
    """The latest selected, newest first.

    Args:
        before: the last record of the page before this one; None: the first page.
    """
    place = None if before is None else (before["received_at"], before["id"])
    return await _page(connection, selection, _NEWEST_FIRST, place, limit=limit, skip=0)


async def in_order(
    connection: Any, selection: Selection, *, limit: int, after: Any = None, skip: int = 0
) -> list[Mapping[str, Any]]:
    """The earliest selected, in the order in which they were received.

    Args:
        after: the last record of the page before this one; None: the first page.
        skip: leave out so many.
    """
    place = None if after is None else (after["received_at"], after["id"])
    return await _page(connection, selection, _OLDEST_FIRST, place, limit=limit, skip=skip)


async def _page(
    connection: Any, selection: Selection, order: str, place: tuple[Any, Any] | None, *, limit: int, skip: int
) -> list[Mapping[str, Any]]:
    statement = f"SELECT {_COLUMNS} FROM dead_letters WHERE {_CONDITION} AND {order} LIMIT $11 OFFSET $12"
    rows = await connection.fetch(statement, *_arguments(selection), *(place or (None, None)), limit, skip)
    return list(rows)


async def count(connection: Any, selection: Selection) -> int:
    """How many are selected."""
    return int(
        await connection.fetchval(
            f"SELECT count(*) FROM dead_letters WHERE {_CONDITION}", *_arguments(selection)
        )
    )


async def by_reason(connection: Any, selection: Selection) -> list[Count]:
    """The selected counted by their reasons, the most frequent first."""
    rows = await connection.fetch(
        f"SELECT reason, count(*), min(received_at), max(received_at) FROM dead_letters WHERE {_CONDITION} "
        "GROUP BY reason ORDER BY count(*) DESC, reason",
        *_arguments(selection),
    )
    return [Count(*row) for row in rows]


async def not_kept(connection: Any, selection: Selection) -> int:
    """How many of the selected, by stream, tenant, device and hour, were only counted."""
    arguments = (selection.stream, selection.tenant, selection.device, selection.since, selection.until)
    return int(await connection.fetchval(_NOT_KEPT, *arguments))


async def note_failed(connection: Any, letter: uuid.UUID, reason: str, detail: str) -> None:
    """A replay of this one failed again, outside of the path."""
    await connection.execute(_NOTE_FAILED, letter, reason, detail)


def as_message(record: Mapping[str, Any]) -> Replayed:
    """The record as the message it was."""
    properties = (
        msgspec.json.decode(record["properties"], type=list[tuple[str, str]]) if record["properties"] else ()
    )
    received_us = clock.from_datetime(record["received_at"])
    return Replayed(record["topic"], record["payload"], record["id"], received_us, properties)


_CONDITION = """($1::uuid[] IS NULL OR id = ANY($1)) AND ($2::text IS NULL OR reason = $2)
AND ($3::text IS NULL OR stream = $3) AND ($4::text IS NULL OR device = $4)
AND ($5::timestamptz IS NULL OR received_at >= $5) AND ($8::timestamptz IS NULL OR received_at < $8)
AND ($7::text IS NULL OR tenant = $7)
AND ($6 OR replay_outcome IS NULL OR replay_outcome NOT IN ('stored', 'duplicate'))"""


_NOTE_FAILED = """
UPDATE dead_letters SET replays = replays + 1, replayed_at = now(), replay_outcome = 'dead_lettered',
  reason = $2, detail = $3
WHERE id = $1
"""

_NOT_KEPT = """
SELECT coalesce(sum(not_kept), 0) FROM dead_letter_hours
WHERE ($1::text IS NULL OR stream = $1) AND ($2::text IS NULL OR tenant = $2) AND ($3::text IS NULL OR device = $3)
AND ($4::timestamptz IS NULL OR hour >= date_trunc('hour', $4)) AND ($5::timestamptz IS NULL OR hour < $5)
"""

_NEWEST_FIRST = """($9::timestamptz IS NULL OR (received_at, id) < ($9, $10::uuid))
ORDER BY received_at DESC, id DESC"""
_OLDEST_FIRST = "($9::timestamptz IS NULL OR (received_at, id) > ($9, $10::uuid)) ORDER BY received_at, id"


def _arguments(selection: Selection) -> tuple[Any, ...]:
    chosen = selection
    ids = None if chosen.ids is None else list(chosen.ids)
    filters = (
        chosen.reason,
        chosen.stream,
        chosen.device,
        chosen.since,
        chosen.stored,
        chosen.tenant,
        chosen.until,
    )
    return (ids, *filters)
