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
from gateway.writer import dead_letter_sql


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
    return await _page(connection, selection, dead_letter_sql.NEWEST_FIRST, place, limit=limit, skip=0)


async def in_order(
    connection: Any, selection: Selection, *, limit: int, after: Any = None, skip: int = 0
) -> list[Mapping[str, Any]]:
    """The earliest selected, in the order in which they were received.

    Args:
        after: the last record of the page before this one; None: the first page.
        skip: leave out so many.
    """
    place = None if after is None else (after["received_at"], after["id"])
    return await _page(connection, selection, dead_letter_sql.OLDEST_FIRST, place, limit=limit, skip=skip)


async def _page(
    connection: Any,
    selection: Selection,
    statement: str,
    place: tuple[Any, Any] | None,
    *,
    limit: int,
    skip: int,
) -> list[Mapping[str, Any]]:
    rows = await connection.fetch(statement, *_arguments(selection), *(place or (None, None)), limit, skip)
    return list(rows)


async def count(connection: Any, selection: Selection) -> int:
    """How many are selected."""
    return int(await connection.fetchval(dead_letter_sql.COUNT, *_arguments(selection)))


async def by_reason(connection: Any, selection: Selection) -> list[Count]:
    """The selected counted by their reasons, the most frequent first."""
    rows = await connection.fetch(dead_letter_sql.BY_REASON, *_arguments(selection))
    return [Count(*row) for row in rows]


async def not_kept(connection: Any, selection: Selection) -> int:
    """How many of the selected, by stream, tenant, device and hour, were only counted."""
    arguments = (selection.stream, selection.tenant, selection.device, selection.since, selection.until)
    return int(await connection.fetchval(dead_letter_sql.NOT_KEPT, *arguments))


async def note_failed(connection: Any, letter: uuid.UUID, reason: str, detail: str) -> None:
    """A replay of this one failed again, outside of the path."""
    await connection.execute(dead_letter_sql.NOTE_FAILED_OUTSIDE, letter, reason, detail)


def as_message(record: Mapping[str, Any]) -> Replayed:
    """The record as the message it was."""
    properties = (
        msgspec.json.decode(record["properties"], type=list[tuple[str, str]]) if record["properties"] else ()
    )
    received_us = clock.from_datetime(record["received_at"])
    return Replayed(record["topic"], record["payload"], record["id"], received_us, properties)


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
