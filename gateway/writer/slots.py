"""Where readings go whose receive time another reading holds: the next microsecond that is free.

The database is asked for the gaps behind what is there, not for one microsecond after the other: n readings that meet
a block of any length take the sorting of n and one pass over the block.

Found again: of a reading that may be in the table already, after a lost answer, a microsecond that holds its content is
as good as a free one. Each takes the first of either, in the order of their times, so the same readings come to the
same places.
"""

from __future__ import annotations

import uuid
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from gateway import clock
from gateway.writer import rows
from gateway.writer.conflicts import Staging
from gateway.writer.layouts.base import StreamTarget

_FREE = """
SELECT wanted.device_id, free.since, free.until
FROM unnest($1::uuid[], $2::timestamptz[]) AS wanted (device_id, since)
CROSS JOIN LATERAL (
    (SELECT previous + interval '1us' AS since, time AS until FROM (
        SELECT time, coalesce(lag(time) OVER (ORDER BY time), wanted.since - interval '1us') AS previous
        FROM {table} WHERE device_id = wanted.device_id AND time >= wanted.since
    ) AS kept WHERE time > previous + interval '1us' ORDER BY time LIMIT $3)
    UNION ALL
    (SELECT coalesce(max(time) + interval '1us', wanted.since), NULL
    FROM {table} WHERE device_id = wanted.device_id AND time >= wanted.since)
) AS free
"""
"""Of each device, so many gaps between its readings from then on; and the time without end behind the last one."""

_CONTENTS = "SELECT time, device_id, {content} AS content FROM {staged}"
_ALIKE = """
SELECT kept.time, kept.device_id, kept.content
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS wanted (device_id, since, until)
CROSS JOIN LATERAL (
    SELECT time, device_id, {content} AS content FROM {table} WHERE device_id = wanted.device_id
    AND time >= wanted.since AND time < coalesce(wanted.until, 'infinity')
) AS kept
WHERE kept.content = ANY($4::bigint[])
ORDER BY kept.time
"""
"""Readings of these devices, within these times, with one of these contents."""


class Seeker(msgspec.Struct):
    """A staged reading that looks for a place.

    Attributes:
        key: under which it is staged.
        since: µs; the first place that it may have.
        content: what a place may hold that is as good as free; None: none is, it surely was never stored.
    """

    key: bytes
    since: int
    content: int | None


class Slots:
    """Of one device, the places in an interval, asked for in the order of time.

    Args:
        gaps: microseconds without a reading: the first, and the first behind them; None: there is no end.
        alike: by content, microseconds of readings like it, rising.
        until: where the interval ends.
        used: keys that are given away; those given by this are added.
    """

    def __init__(
        self,
        gaps: Sequence[tuple[int, int | None]],
        alike: Mapping[int, deque[int]],
        until: int | None,
        device_id: bytes,
        used: set[bytes],
    ) -> None:
        self._gaps, self._alike, self.until = deque(gaps), alike, until
        self._device_id, self._used, self._next = device_id, used, 0

    def take(self, seeker: Seeker) -> tuple[int | None, bool]:
        """The first place, µs, and whether it is free; None: it is none of this interval."""
        free = self._first_free(seeker.since)
        alike = self._first_alike(seeker)
        taken, is_free = (
            (alike, False) if alike is not None and (free is None or alike < free) else (free, True)
        )
        if taken is None:
            return None, False
        self._used.add(self._key(taken))
        return taken, is_free

    def _first_free(self, since: int) -> int | None:
        self._next = max(self._next, since)
        while self._gaps:
            first, end = self._gaps[0]
            self._next = max(self._next, first)
            while (end is None or self._next < end) and self._key(self._next) in self._used:
                self._next += 1
            if end is None or self._next < end:
                return self._next
            self._gaps.popleft()
        return None

    def _first_alike(self, seeker: Seeker) -> int | None:
        found = None if seeker.content is None else self._alike.get(seeker.content)
        while found and (found[0] < seeker.since or self._key(found[0]) in self._used):
            found.popleft()
        return found[0] if found else None

    def _key(self, time_us: int) -> bytes:
        return rows.key_of(time_us, self._device_id)


async def bump(connection: Any, staging: Staging, taken: Collection[bytes]) -> None:
    """Move the staged rows of these keys, which other readings hold, each to the first place for it."""
    contents: dict[bytes, int] = {}
    if not staging.never_stored.issuperset(taken):
        found = await connection.fetch(_statement(_CONTENTS, staging.target))
        contents = {_key(record): record["content"] for record in found}
    used = set(staging.keys).difference(taken)
    places: dict[bytes, int] = {}
    surely: set[bytes] = set()
    seeking = _by_device(staging, taken, contents)
    while seeking:
        found = await _ask(connection, staging.target, seeking, used, set(contents.values()))
        for device_id, slots in found.items():
            left = []
            for seeker in seeking.pop(device_id):
                place, is_free = slots.take(seeker)
                if place is not None:
                    places[seeker.key] = place
                    surely |= {seeker.key} if is_free else set()
                    continue
                assert slots.until is not None
                seeker.since = max(seeker.since, slots.until)
                left.append(seeker)
            if left:
                seeking[device_id] = left
    staging.move(places, never_stored=surely)


def _by_device(
    staging: Staging, taken: Collection[bytes], contents: Mapping[bytes, int]
) -> dict[bytes, list[Seeker]]:
    found: defaultdict[bytes, list[Seeker]] = defaultdict(list)
    for key in sorted(taken):
        content = None if key in staging.never_stored else contents.get(key)
        found[rows.device_of(key)].append(Seeker(key, rows.time_of(key), content))
    return dict(found)


def _statement(template: str, target: StreamTarget) -> str:
    layout = target.layout
    return template.format(table=target.identifier, content=layout.content, staged=layout.staged)


async def _ask(
    connection: Any,
    target: StreamTarget,
    seeking: Mapping[bytes, Sequence[Seeker]],
    used: set[bytes],
    contents: Collection[int],
) -> dict[bytes, Slots]:
    """The places of each device, from its first seeker on; as many gaps as it has seekers, at least."""
    found: dict[bytes, Slots] = {}
    sizes: defaultdict[int, list[bytes]] = defaultdict(list)
    for device_id, seekers in seeking.items():
        sizes[1 << (len(seekers) - 1).bit_length()].append(device_id)
    for count, device_ids in sizes.items():
        since = {device_id: seeking[device_id][0].since for device_id in device_ids}
        gaps = await _gaps(connection, target, since, count)
        until = {one: _until(gaps[one], count) for one in device_ids}
        kept = await _alike(connection, target, since, until, contents) if contents else {}
        for one in device_ids:
            known = [gap for gap in gaps[one] if until[one] is None or gap[1] is not None]
            found[one] = Slots(known, kept.get(one, {}), until[one], one, used)
    return found


def _until(gaps: Sequence[tuple[int, int | None]], count: int) -> int | None:
    """Where the knowledge ends: behind the last gap asked for; None: all gaps are known."""
    return None if len(gaps) <= count else max(end for _, end in gaps if end is not None)


async def _gaps(
    connection: Any, target: StreamTarget, since: Mapping[bytes, int], count: int
) -> dict[bytes, list[tuple[int, int | None]]]:
    found: defaultdict[bytes, list[tuple[int, int | None]]] = defaultdict(list)
    ids = [uuid.UUID(bytes=device_id) for device_id in since]
    starts = list(map(clock.to_datetime, since.values()))
    for record in await connection.fetch(_statement(_FREE, target), ids, starts, count):
        end = None if record["until"] is None else clock.from_datetime(record["until"])
        found[record["device_id"].bytes].append((clock.from_datetime(record["since"]), end))
    return {device_id: sorted(gaps) for device_id, gaps in found.items()}


async def _alike(
    connection: Any,
    target: StreamTarget,
    since: Mapping[bytes, int],
    until: Mapping[bytes, int | None],
    contents: Collection[int],
) -> dict[bytes, dict[int, deque[int]]]:
    found: defaultdict[bytes, defaultdict[int, deque[int]]] = defaultdict(lambda: defaultdict(deque))
    ends = [None if (end := until[one]) is None else clock.to_datetime(end) for one in since]
    ids = [uuid.UUID(bytes=device_id) for device_id in since]
    starts = list(map(clock.to_datetime, since.values()))
    for record in await connection.fetch(_statement(_ALIKE, target), ids, starts, ends, list(contents)):
        found[record["device_id"].bytes][record["content"]].append(clock.from_datetime(record["time"]))
    return {device_id: dict(kept) for device_id, kept in found.items()}


def _key(record: Any) -> bytes:
    return rows.key_of(clock.from_datetime(record["time"]), record["device_id"].bytes)
