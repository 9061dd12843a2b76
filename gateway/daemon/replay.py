"""Replay of dead letters: the same path again, with the database as its source.

A letter that becomes readings keeps its original receive time, and is noted in the transaction of its rows, so it is
stored once however often it is replayed. One that fails again stays a dead letter, with the new reason. The disk spool
is the daemon's: a replay has none, and its writes may take their time.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from gateway import errors, settings, unreadable
from gateway.daemon import foreground
from gateway.ingest.assembly import Foundation, IngestPath, live_path
from gateway.messages import Delivery
from gateway.observability.health import Health
from gateway.outcomes import Outcome, Reason
from gateway.storage import pools, sqlstate
from gateway.writer import dead_letters
from gateway.writer.dead_letters import Selection

_PAGE = 1000
_REFUSED_IN_A_ROW = 10
"""Letters that fail alone, one after the other, before it is no longer believed that it is their own fault."""

Progress = Callable[[int, int, str], None]
"""Called with the number of letters done and of all, and with what is waited for; an empty text when nothing is."""


class ReplayResult(msgspec.Struct):
    """How many letters were replayed, and how they ended. True at every instant, also when the replay ends early."""

    replayed: int = 0
    stored: int = 0
    failed_again: int = 0

    def summary(self) -> str:
        """The same for people."""
        return f"{self.replayed} replayed: {self.stored} stored, {self.failed_again} failed again"


class ReplayControl:
    """What the path does to a replay. No acknowledgement is waited for, and a page is bound enough for memory.

    Attributes:
        numbered: letters by their delivery numbers.
        ended: letters that have come to their end.
    """

    def __init__(self) -> None:
        self.numbered: list[uuid.UUID] = []
        self.ended: set[uuid.UUID] = set()

    def settle(self, numbers: list[int]) -> None:
        """See :class:`gateway.ingest.settlement.SourceControl`."""
        self.ended.update(self.numbered[number] for number in numbers)

    def pause(self) -> None:
        """See :class:`gateway.ingest.settlement.SourceControl`."""

    def resume(self) -> None:
        """See :class:`gateway.ingest.settlement.SourceControl`."""


class Replay:
    """A source of dead letters."""

    def __init__(
        self, base: Foundation, path: IngestPath, control: ReplayControl, result: ReplayResult
    ) -> None:
        self._base, self._path, self._control, self._result = base, path, control, result
        self._before = msgspec.structs.replace(result)

    def count(self) -> None:
        """Enter into the result what has come to its end by now."""
        books, before, result = self._path.routes.tallies.values(), self._before, self._result
        failed = sum(tally.settled[Outcome.DEAD_LETTERED] for tally in books)
        ended = sum(sum(tally.settled.values()) for tally in books)
        result.replayed = before.replayed + ended
        result.failed_again = before.failed_again + failed
        result.stored = before.stored + ended - failed

    async def send_all(self, pages: Pages) -> None:
        """Send all letters through the path; returns when they have come to their end."""
        while records := await pages.next(self._base):
            for record in records:
                if lacks := _lacks(record):
                    await self._refuse(record, lacks)
                else:
                    self._send(dead_letters.as_message(record))
            await self._path.pipeline.wait_settled()
            pages.done(len(records))

    async def _refuse(self, record: Mapping[str, Any], lacks: str) -> None:
        """A letter that is not whole any more stays one, and says so."""
        why = f"cannot be replayed: {lacks}"
        detail = record["detail"] if why in record["detail"] else f"{why}; {record['detail']}"

        async def note() -> None:
            async with self._base.timeseries.connection() as connection:
                await dead_letters.note_failed(connection, record["id"], record["reason"], detail)

        await self._base.stores.until_done(note)
        self._control.ended.add(record["id"])
        for counts in (self._before, self._result):
            counts.replayed, counts.failed_again = counts.replayed + 1, counts.failed_again + 1

    def _send(self, message: dead_letters.Replayed) -> None:
        numbered = self._control.numbered
        number = len(numbered)
        numbered.append(message.dead_letter_id)
        self._path.pipeline.take(Delivery((message,), number, message.received_us, replayed=True))


class Pages:
    """Which letters come next, and how many at once: fewer after the database refused them, for one may be to blame.

    Attributes:
        total: how many there are; 0 until that is known.
    """

    def __init__(self, selection: Selection, limit: int) -> None:
        self._selection, self._limit = selection, limit
        self.total = 0
        self._unread: int | None = None
        self._skip = 0
        self._last: Mapping[str, Any] | None = None
        self._left: list[Mapping[str, Any]] = []
        self._size, self._refused = _PAGE, 0

    async def next(self, base: Foundation) -> list[Mapping[str, Any]]:
        """The next letters; none at the end. Those that come meanwhile are not replayed."""

        async def read() -> None:
            async with base.timeseries.connection() as connection:
                await self._read(connection)

        if not self._left:
            await base.stores.until_done(read)
        return self._left[: self._size]

    async def _read(self, connection: Any) -> None:
        if self._unread is None:
            total = await dead_letters.count(connection, self._selection)
            self._unread = self.total = min(total, self._limit)
            self._skip = total - self.total
        size = min(_PAGE, self._unread)
        if size:
            self._left = await dead_letters.in_order(
                connection, self._selection, limit=size, after=self._last, skip=self._skip
            )
        if self._left:
            self._unread, self._skip, self._last = self._unread - len(self._left), 0, self._left[-1]

    def done(self, count: int) -> None:
        """So many have come to their end."""
        del self._left[:count]
        self._size, self._refused = min(2 * self._size, _PAGE), 0

    def refused(self, ended: AbstractSet[uuid.UUID], error: errors.StoreError) -> Mapping[str, Any] | None:
        """The database would not have the last ones but for those that ended; the letter, when it was alone.

        Raises:
            StoreError: so many were refused alone, one after the other, that it is not their own fault.
        """
        tried = len(self._left[: self._size])
        self._left = [record for record in self._left if record["id"] not in ended]
        self._size = max(1, tried // 2)
        if tried > 1:
            return None
        self._refused += 1
        if self._refused == _REFUSED_IN_A_ROW:
            raise error
        return self._left.pop(0)


def _lacks(record: Mapping[str, Any]) -> str | None:
    """What of the message was not kept; None: it is whole."""
    if record["payload_bytes"] is not None:
        kept = f"{len(record['payload'])} of its {record['payload_bytes']} bytes were kept"
        return f"{kept} (dead_letters.max_payload_bytes)"
    if unreadable.is_cut(record["topic"]):
        return "of its topic only the ends were kept (mqtt.max_topic_bytes)"
    return None


async def run(
    options: settings.Settings, selection: Selection, result: ReplayResult, *, limit: int, progress: Progress
) -> None:
    """Replay the selected letters in the order in which they were received.

    Args:
        result: counts what was done, also when this ends early.
        limit: most letters; of more, the newest.

    Raises:
        StoreError: a database must be mended, or was away for too long. What was stored until then stays stored, once.
    """
    # The spool is the daemon's, which may run; and a write that takes longer than spool.after would never be done.
    options = foreground.for_a_job(options.model_copy(update={"spool": settings.SpoolSettings()}))
    pages, all_done = Pages(selection, limit), False
    while not all_done:
        base, control = Foundation(options, Health(), patience=foreground.PATIENCE), ReplayControl()
        path = live_path(base, control)
        replay = Replay(base, path, control, result)

        def tell(waits: str, replay: Replay = replay) -> None:
            replay.count()
            progress(result.replayed, pages.total, waits)

        try:
            try:
                await foreground.run(base, path, replay.send_all(pages), tell)
            finally:
                replay.count()
            all_done = True
        except errors.StandingError:
            raise
        except errors.StoreError as error:
            if sqlstate.passes(error):
                raise
            alone = pages.refused(control.ended, error)
            if alone is not None:
                await _note_refused(options, alone, error)
                result.replayed, result.failed_again = result.replayed + 1, result.failed_again + 1


async def _note_refused(
    options: settings.Settings, letter: Mapping[str, Any], error: errors.StoreError
) -> None:
    pool = pools.Pool("timeseries", options.databases.timeseries, size=1)
    try:
        async with pool.connection() as connection:
            await dead_letters.note_failed(
                connection, letter["id"], Reason.REFUSED_BY_DATABASE.value, str(error)
            )
    finally:
        await pool.close()
