"""Messages that the databases keep waiting go to the disk spool, are acknowledged, and come back by the drain.

Only messages that are surely not stored are spooled; one that may have been (a try that ended without an answer) is
spooled with the identity and the receive time of that try, so that it meets itself in the tables when it is drained.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gateway import batches, errors
from gateway.ingest.waiting import Waiting
from gateway.messages import Message, Session, digest
from gateway.observability import events, health
from gateway.spool.records import Record
from gateway.spool.spool import Spool
from gateway.storage.retry import Retrying
from gateway.writer.copy import Writer
from gateway.writer.work import BatchWrite

_RETRY_SECONDS = 1.0


class Overflow(Protocol):
    """Where messages go that a database keeps waiting; how long a try may take."""

    async def in_time(self, patience: Retrying, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Whether this could be done within the time that messages wait."""

    async def probe(self, writer: Writer) -> None:
        """See that the database works; no longer than messages wait."""

    async def deliver(self, work: BatchWrite, writer: Writer) -> None:
        """Return when all of the work is somewhere durable, or is left because it fails although the server works."""

    async def keep(self, records: Sequence[Record], instead_of: Retrying) -> bool:
        """Spool these; False after a while when that is not possible. Nothing is spooled in part.

        Args:
            instead_of: with whom the messages waited too long.
        """

    def note(self, entries: Sequence[tuple[int, Message]]) -> None:
        """These numbers and messages are spooled: the broker may deliver them again before it has read the acks."""

    def records_of(self, waited: Sequence[Waiting]) -> list[Record]:
        """Deferred messages, as records; whether they are redeliveries is still to be told."""


class NoOverflow:
    """Without a spool messages wait as long as it takes; see :class:`Overflow`."""

    def __init__(self, stores: Retrying) -> None:
        self._stores = stores

    async def in_time(self, patience: Retrying, attempt: Callable[[], Awaitable[None]]) -> bool:
        """However long it takes."""
        await patience.until_done(attempt)
        return True

    async def probe(self, writer: Writer) -> None:
        """However long it takes."""
        await self._stores.until_done(writer.probe)

    async def deliver(self, work: BatchWrite, writer: Writer) -> None:
        """However long it takes."""
        await self._stores.until_done(lambda: writer.write(work))

    async def keep(self, records: Sequence[Record], instead_of: Retrying) -> bool:
        """Nothing is kept."""
        return False

    def note(self, entries: Sequence[tuple[int, Message]]) -> None:
        """Nothing is kept."""

    def records_of(self, waited: Sequence[Waiting]) -> list[Record]:
        """Nothing is kept."""
        return []


class SpoolOverflow:
    """Decides when a database keeps us waiting too long, and spools what waits; see :class:`Overflow`.

    Args:
        spooled: called with numbers and digests of what would look new if it were delivered again.
        after: seconds that messages wait before they are spooled.
        probe: sees whether the time-series database works; raises StoreError.
    """

    def __init__(
        self,
        spool: Spool,
        component: health.Component,
        stores: Retrying,
        *,
        spooled: Callable[[Sequence[int], Sequence[bytes]], None],
        after: float,
        probe: Callable[[], Awaitable[None]],
    ) -> None:
        self._spool, self._component, self._stores, self._spooled = spool, component, stores, spooled
        self._after, self._probe = after, probe
        self._away = asyncio.Event()
        self._broken = asyncio.Event()
        self._refused: set[Retrying] = set()
        self._own_times = batches.UniqueReceiveTimesByKey()

    async def in_time(self, patience: Retrying, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Whether this could be done within the time that messages wait."""
        try:
            async with asyncio.timeout(self._after):
                await patience.until_done(attempt)
        except TimeoutError:
            return False
        self._refused.discard(patience)
        return True

    async def probe(self, writer: Writer) -> None:
        """See that the database works, no longer than messages wait."""
        await self.in_time(self._stores, writer.probe)

    async def deliver(self, work: BatchWrite, writer: Writer) -> None:
        """Until the work is in the database, or in the spool; while the database is known to be away, at once there.

        What was set apart goes to the spool too, out of the way: the drain finds out what is wrong with it.
        """
        while True:
            if not self._away.is_set():
                if not await self.in_time(self._stores, lambda: writer.write(work)):
                    await writer.close()
                    self._away.set()
                elif not work.left:
                    return
                else:
                    _tell_held_back(work)
            if await self.keep(_of_work(work), self._stores):
                self.note(_looks_new(work))
                work.spooled()
                return
            self._away.clear()

    async def keep(self, records: Sequence[Record], instead_of: Retrying) -> bool:
        """Spool these; False after a while when the disk will not have them. Nothing is spooled in part.

        Args:
            instead_of: with whom the messages waited too long.
        """
        try:
            await self._spool.append(records)
        except errors.SpoolError as error:
            if str(error) != self._component.detail:
                events.spool_failed(error=str(error))
            self._component.failed(str(error))
            self._refused.add(instead_of)
            self._broken.set()
            await asyncio.sleep(_RETRY_SECONDS)
            return False
        self._refused.discard(instead_of)
        self._usable()
        return True

    def _usable(self) -> None:
        self._broken.clear()
        self._component.ready()

    def note(self, entries: Sequence[tuple[int, Message]]) -> None:
        """These numbers and messages are spooled: the broker may deliver them again before it has read the acks."""
        self._spooled([number for number, _ in entries], [digest(message) for _, message in entries])

    async def watch(self) -> None:
        """Task: find out when the time-series database is back."""
        while True:
            await self._away.wait()
            events.spooling_began()
            await self._stores.until_done(self._probe)
            self._away.clear()
            events.spooling_ended(records=self._spool.records)

    async def watch_disk(self) -> None:
        """Task: find out when the spool can be used again, although nothing needs it any more."""
        while True:
            await self._broken.wait()
            await asyncio.sleep(_RETRY_SECONDS)
            if self._refused:  # what was refused is tried again, and shows it
                continue
            with contextlib.suppress(errors.SpoolError):
                await self._spool.try_out()
                self._usable()

    def records_of(self, waited: Sequence[Waiting]) -> list[Record]:
        """Deferred messages, as records; whether they are redeliveries is still to be told."""
        return [
            _record(
                one.message,
                one.route.stream_name,
                one.number,
                self._own_times.next(_subject(one), one.delivery.received_us, _readings(one))
                if one.received_us is None
                else one.received_us,
                session=one.delivery.session,
                turn=one.delivery.turn,
                resumed=one.delivery.resumed,
            )
            for one in waited
        ]


def _subject(one: Waiting) -> tuple[str | None, str | None]:
    """Whose readings may not share a time: those of the device, or of all devices of a tenant, that the topic names."""
    return one.route.tenant, one.route.serial_number


def _readings(one: Waiting) -> int:
    """How many readings the message has: it is dated anew when it is drained, one microsecond a reading."""
    if one.route.one_reading:
        return 1
    try:
        return max(1, len(one.route.decode(one.message.payload)))
    except Exception:  # it will be a dead letter
        return 1


def _of_work(work: BatchWrite) -> list[Record]:
    """What is left of the work, as records."""
    batch = work.batch
    indices = [index for stretch in work.left for index in stretch.indices]
    readings = [
        _record(
            batch.messages[index],
            batch.routes[index].stream_name,
            batch.numbers[index],
            batch.untimed.get(index, batch.received_us[index]),
            session=batch.session,
            turn=batch.turn,
        )
        for index in indices
    ]
    return readings + [
        _record(
            letter.message,
            letter.stream,
            letter.number,
            letter.received_us,
            session=batch.session,
            turn=batch.turn,
        )
        for stretch in work.left
        for letter in stretch.letters
    ]


def _record(
    message: Message,
    stream: str,
    number: int,
    received_us: int,
    *,
    session: Session,
    turn: int,
    resumed: bool = False,
) -> Record:
    return Record(
        stream=stream,
        topic=message.topic,
        payload=message.payload,
        received_us=received_us,
        packet_id=message.packet_id,
        retain=message.retain,
        duplicate=message.duplicate and resumed,
        resumed=resumed,
        turn=session.position(turn) if session.id else 0,
        session=session.id,
        identity=batches.identity(number, message),
        user_properties=tuple(message.user_properties),
    )


def _looks_new(work: BatchWrite) -> list[tuple[int, Message]]:
    """Number and message of what is left of the work, of those that do not meet themselves in the tables."""
    batch = work.batch
    found = [
        (batch.numbers[index], batch.messages[index])
        for stretch in work.left
        for index in stretch.indices
        if index in batch.untimed or index in batch.ids
    ]
    letters = (letter for stretch in work.left for letter in stretch.letters)
    return found + [(letter.number, letter.message) for letter in letters]


def _tell_held_back(work: BatchWrite) -> None:
    count = sum(len(stretch.indices) + len(stretch.letters) for stretch in work.left)
    events.held_back(count=count, where="spool", error=str(work.error))
