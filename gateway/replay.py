"""Replay of dead letters: the same path again, with the database as its source.

A letter that becomes readings keeps its original receive time, so replaying it twice stores it once. One that
fails again stays a dead letter, with the new reason.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway import dead_letters, settings
from gateway.dead_letters import Selection
from gateway.messages import Chunk
from gateway.observability.health import Health
from gateway.outcomes import Outcome
from gateway.path import Path
from gateway.supervisor import Supervisor

_PAGE = 1000


class Result(msgspec.Struct):
    """How many letters were replayed, and how they ended."""

    replayed: int = 0
    stored: int = 0
    failed_again: int = 0


class Replay:
    """A source of dead letters. There is nobody to acknowledge to, and a page is bound enough for memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0
        path.pipeline.source = self

    def settle(self, numbers: list[int]) -> None:
        """See :class:`gateway.pipeline.Reins`."""

    def pause(self) -> None:
        """See :class:`gateway.pipeline.Reins`."""

    def resume(self) -> None:
        """See :class:`gateway.pipeline.Reins`."""

    async def page(self, records: list[Mapping[str, Any]]) -> None:
        """Send these through the path; returns when all have come to their end."""
        for record in records:
            message = dead_letters.as_message(record)
            self._path.pipeline.take(Chunk((message,), self._next, message.received_us, replayed=True))
            self._next += 1
        await self._path.pipeline.drain()


async def run(
    options: settings.Settings, selection: Selection, *, limit: int, progress: Callable[[int], None]
) -> Result:
    """Replay the selected letters in the order in which they were received.

    Args:
        limit: most letters; of more, the newest.
        progress: called with the number done so far.

    Raises:
        StoreError: the databases cannot be read; what they cannot write is waited for.
    """
    path, tasks = Path(options, Health()), Supervisor()
    work = asyncio.create_task(_pages(path, selection, limit, progress))
    stop = asyncio.Event()
    work.add_done_callback(lambda _task: stop.set())
    try:
        for name, task in path.tasks():
            tasks.start(name, task)
        await tasks.watch(stop)
        return work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await tasks.cancel()
        await path.close()


async def _pages(path: Path, selection: Selection, limit: int, progress: Callable[[int], None]) -> Result:
    source, result, last = Replay(path), Result(), None
    started, total = await _begin(path, selection)
    skip, most = max(0, total - limit), min(total, limit)
    while result.replayed < most:
        async with path.timeseries.connection() as connection:
            size = min(_PAGE, most - result.replayed)
            records = await dead_letters.in_order(connection, selection, limit=size, after=last, skip=skip)
        if not records:
            break
        await source.page(records)
        await _note(path, records, started, result)
        last, skip = records[-1], 0
        progress(result.replayed)
    return result


async def _begin(path: Path, selection: Selection) -> tuple[dt.datetime, int]:
    """The server's time, and how many letters are selected now; those that come meanwhile are not replayed."""
    async with path.timeseries.connection() as connection:
        return await connection.fetchval("SELECT now()"), await dead_letters.count(connection, selection)


async def _note(path: Path, records: list[Mapping[str, Any]], started: dt.datetime, result: Result) -> None:
    """The path has noted those that failed again; the others are stored."""
    ids = [record["id"] for record in records]
    async with path.timeseries.connection() as connection:
        failed = await dead_letters.failed_since(connection, ids, started)
        stored = [id_ for id_ in ids if id_ not in failed]
        await dead_letters.note_stored(connection, stored, Outcome.STORED)
    result.replayed += len(ids)
    result.stored += len(stored)
    result.failed_again += len(failed)
