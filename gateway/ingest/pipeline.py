"""The path of a message, on one screen.

::

    broker ─▶ source ─▶ decoder ─▶ registry ─▶ validation ─▶ batch ─▶ writer (COPY) ─▶ hypertable
                ▲          │           │            │           │          │
                │          └───────────┴────────────┴──▶ dead letters ◀────┘ isolated messages
                └──────────────── settle(outcomes), in order ◀┘

The first half (:meth:`Pipeline.take`) is plain synchronous code, called by the source with all messages of
one socket read. The second half (:meth:`Pipeline.write`) is one task per COPY connection. What cannot be
decided at once waits aside (:mod:`gateway.ingest.aside`) and is taken again: a device that is not in the cache, a
redelivery that only the ledger can tell.

A message is atomic: all its readings are stored in one transaction, or it ends otherwise as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol, cast

import msgspec

from gateway import batches, settings
from gateway.batches import Batch
from gateway.devices.registry import Registry
from gateway.errors import MessageError
from gateway.ingest.aside import Deferred
from gateway.ingest.held_back import HeldBack
from gateway.ingest.in_flight import InFlight
from gateway.ingest.intake import Intake
from gateway.ingest.overflow import Overflow
from gateway.ingest.queue import Queue
from gateway.ingest.recognition import Recognition
from gateway.ingest.routes import Routes, TopicRoute
from gateway.ingest.waiting import Unresolved, Waiting
from gateway.messages import DeadLetter, Delivery, Message
from gateway.observability import events, health, metrics
from gateway.outcomes import IGNORED_REASONS, Outcome, Reason
from gateway.storage.retry import Retrying
from gateway.writer.copy import Writer
from gateway.writer.experience import Experience
from gateway.writer.work import BatchWrite

_IDLE_PROBE_SECONDS = 5.0
_RESUME_AT = 0.75
"""Of the memory bound: reading goes on when less is held."""


class SourceControl(Protocol):
    """What the path does to its source; see :class:`gateway.mqtt.source.Source`."""

    def settle(self, numbers: list[int]) -> None:
        """These messages have come to their end."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""


class Pipeline:
    """Takes deliveries, writes batches, settles messages. ``source`` must be set before the first delivery."""

    source: SourceControl

    def __init__(
        self,
        options: settings.Settings,
        *,
        routes: Routes,
        registry: Registry,
        recognition: Recognition,
        stores: Retrying,
        devices: Retrying,
        experience: Experience,
        component: health.Component,
        overflow: Overflow | None = None,
    ) -> None:
        self._options, self._routes, self._recognition = options, routes, recognition
        self._stores, self._overflow = stores, overflow
        self._intake = Intake(options.validation, routes)
        self._queue = Queue(max_rows=options.batch.max_rows, max_bytes=options.batch.max_bytes)
        self._go = asyncio.Event()
        self.held = InFlight(self._queue)
        self._held_back = HeldBack(
            self.held,
            experience,
            limit=options.writer.hold_back,
            most_bytes=options.buffer.max_bytes // 2,
            stores=stores,
            component=component,
            wake=self._go.set,
        )
        self.aside = Deferred(
            self.held,
            registry,
            recognition,
            stores=stores,
            devices=devices,
            overflow=overflow,
            take_again=self._take_again,
            end=self._end_all,
        )
        self._ended: list[int] = []
        self._ignored: Counter[tuple[str, Reason]] = Counter()
        self._defects: Counter[str] = Counter()
        self._linger: asyncio.TimerHandle | None = None
        self._letter_times = batches.UniqueReceiveTimes()
        self._hits = 0
        """Of the delivery that is taken: messages whose device the cache knew."""
        self.paused = False

    # ------------------------------------------------------------------ first half: from the socket to a batch

    def take(self, delivery: Delivery) -> None:
        """All messages of one socket read."""
        known, find = self._routes.known, self._routes.find
        routes = [known.get(message.topic) or find(message.topic) for message in delivery.messages]
        for message, route in zip(delivery.messages, routes, strict=True):
            route.tally.received += 1
            if message.packet_id is None:
                route.tally.qos0 += 1
        self._hits = len(routes)
        rows = self._intake.plain_rows(delivery, routes)
        batch = self._queue.open_for(delivery)
        self._note_replay(batch, delivery, delivery.messages[0])
        if delivery.again:
            self._take_each(batch, delivery, routes, rows, without=self._end_sent_again(delivery, routes))
        elif all(rows):
            batch.add_all(delivery, routes, cast("list[bytes]", rows))
        else:
            self._take_each(batch, delivery, routes, rows)
        metrics.registry_hits.inc(self._hits)
        self._after_taking()

    def _note_replay(self, batch: Batch, delivery: Delivery, message: Message) -> None:
        """The batch is told whether messages of it were dead letters, or in the spool; all of a delivery or none."""
        if not delivery.replayed:
            return
        if batches.letter_before(message) is None:
            batch.spooled = True
        else:
            batch.replayed = True

    def _end_sent_again(self, delivery: Delivery, routes: Sequence[TopicRoute]) -> set[int]:
        """Numbers of those that came before on this connection: whatever becomes of the first is their end too."""
        numbers = self._recognition.sent_again(delivery, self.held.find(set(delivery.again.values())))
        for number in numbers:
            self._end(number, routes[number - delivery.first], Outcome.DUPLICATE)
        return numbers

    def _take_each(
        self,
        batch: Batch,
        delivery: Delivery,
        routes: Sequence[TopicRoute],
        rows: Sequence[bytes | None],
        without: Collection[int] = (),
    ) -> None:
        """A delivery in which some message is not plain, or has come to its end."""
        every = zip(delivery.messages, routes, rows, strict=True)
        for number, (message, route, row) in enumerate(every, delivery.first):
            if number in without:
                continue
            if row is None:
                self._accept(number, message, route, delivery)
            else:
                batch.add(number, message, route, delivery.received_us, row)
        # Once a delivery: its rows were all tried before the first of these.
        for route in {route for route, row in zip(routes, rows, strict=True) if row is None}:
            route.detour()

    def _accept(self, number: int, message: Message, route: TopicRoute, delivery: Delivery) -> None:
        """One message, the general path: into the batch, to the dead letters, aside, or to its end."""
        try:
            encoded, unkeyed, ids, readings = self._intake.encode(message, route, delivery)
        except MessageError as error:
            if route.entry is None or route.entry.device is None:
                self._hits -= 1
            self._refuse(number, message, route, delivery, error)
            return
        except Unresolved as unknown:
            self._hits -= 1
            self.held.unresolved.add(Waiting(number, message, route, _bare(delivery), unknown.entries))
            return
        except Exception as error:
            said = repr(error)[:500]
            self._defects[said] += 1
            self._refuse(number, message, route, delivery, MessageError(Reason.GATEWAY_DEFECT, said))
            return
        if unkeyed is not None and self._seen_before(number, message, route, delivery, unkeyed):
            return
        batch = self._queue.open
        if unkeyed is not None:
            batch.unkeyed[len(batch.numbers)] = unkeyed
        if ids:
            batch.ids[len(batch.numbers)] = ids
        batch.add(number, message, route, delivery.received_us, encoded, readings=readings)

    def _refuse(
        self, number: int, message: Message, route: TopicRoute, delivery: Delivery, error: MessageError
    ) -> None:
        """To the dead letters, or to its end when configuration says that it is ignored.

        A dead letter that is replayed stays one: to call it ignored would hide it, or call it stored.
        """
        if error.reason in IGNORED_REASONS and batches.letter_before(message) is None:
            self._ignored[route.stream_name, error.reason] += 1
            self._end(number, route, Outcome.IGNORED)
            return
        # So that letters of one delivery keep their order.
        received_us = self._letter_times.next(delivery.received_us)
        if not self._seen_before(number, message, route, delivery, received_us):
            letter = batches.letter(number, message, route, received_us, error)
            self._queue.open.add_letter(number, route, letter)

    def _seen_before(
        self, number: int, message: Message, route: TopicRoute, delivery: Delivery, received_us: int
    ) -> bool:
        """Whether the path is done with it: a redelivery of what is durable, or one that waits to be recognised."""
        if not delivery.may_repeat(message):
            return False
        if not self._recognition.can_tell(message, delivery):
            waiting = Waiting(number, message, route, _bare(delivery), received_us=received_us)
            self.held.unrecognised.add(waiting)
        elif self._recognition.knows(number, message, delivery):
            self._end(number, route, Outcome.DUPLICATE)
        else:
            return False
        return True

    def _end(self, number: int, route: TopicRoute, outcome: Outcome) -> None:
        route.tally.settled[outcome] += 1
        self._ended.append(number)

    def _after_taking(self) -> None:
        """Settle what ended at once; see whether a batch is due and whether memory is full."""
        self._flush_ended()
        self._tell_flagged()
        self._tell_defects()
        if self._queue.seal_if_full():
            self._go.set()
        elif self._linger is None and len(self._queue.open):
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(self._options.batch.linger, self._lingered)
        self._mind_memory()

    def _lingered(self) -> None:
        self._linger = None
        self._go.set()

    def idle(self) -> None:
        """The socket has nothing more for now: whatever has collected may go."""
        if len(self._queue.open):
            self._go.set()

    def _take_again(self, waited: Sequence[Waiting]) -> None:
        """Messages that waited aside, decided now."""
        for one in waited:
            self._note_replay(self._queue.open_for(one.delivery), one.delivery, one.message)
            self._accept(one.number, one.message, one.route, one.delivery)
            one.route.shorten()
            self._queue.seal_if_full()  # a whole session may have waited
        self._after_taking()
        self.held.changed()
        self.idle()

    def _end_all(self, waited: Sequence[Waiting], outcome: Outcome) -> None:
        """Messages that waited aside have come to their end."""
        for one in waited:
            self._end(one.number, one.route, outcome)
        self._after_taking()

    # ------------------------------------------------------------------ second half: from a batch to its settlement

    async def write(self, writer: Writer) -> None:
        """Task: one COPY connection. While it writes, the next batch collects."""
        await self._probe(writer)
        while True:
            work = await self._next_work()
            if work is None:
                await self._probe(writer)
                continue
            self.held.writing.append(work)
            await self._deliver(writer, work)
            self.held.writing.remove(work)
            if work.left:
                work, rest = work.parted()
                self._held_back.add(rest)
            self._held_back.ended(work)
            self._settle(work)

    async def _probe(self, writer: Writer) -> None:
        """See that the database works; with a spool nobody waits for that longer than messages do."""
        if self._overflow is None:
            await self._stores.until_done(writer.probe)
        else:
            await self._overflow.in_time(self._stores, writer.probe)

    async def _deliver(self, writer: Writer, work: BatchWrite) -> None:
        """Into the database; with a spool, to the disk when the database keeps us waiting."""
        if self._overflow is None:
            await self._stores.until_done(lambda: writer.write(work))
        else:
            await self._overflow.deliver(work, lambda: writer.write(work), writer.close)

    async def _next_work(self) -> BatchWrite | None:
        """The next batch, or what was held back, as soon as it may go; None when there was none for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_PROBE_SECONDS):
                while True:
                    await self._go.wait()
                    work = self._held_back.due() or self._next_batch()
                    # Hazard: readings left behind must have somebody to send them on, the timer or this event.
                    waits = self._queue.full or self._held_back.any_due
                    if not waits and (self._linger is not None or not len(self._queue.open)):
                        self._go.clear()
                    if work is not None:  # else another connection was first
                        return work
        return None

    def _next_batch(self) -> BatchWrite | None:
        batch = self._queue.take()
        return None if batch is None else BatchWrite(batch)

    def _settle(self, work: BatchWrite) -> None:
        """Enter the outcomes into the books, and let the acknowledgements go."""
        batch = work.batch
        tallies = (origin.tally for origin in batch.origins)
        for (tally, outcome), count in Counter(zip(tallies, work.outcomes, strict=True)).items():
            tally.settled[outcome] += count
        for origin, outcome in zip(batch.letter_origins, work.letter_outcomes, strict=True):
            origin.tally.settled[outcome] += 1
        _report_letters(work.written_letters())
        self.source.settle(batch.numbers + batch.letter_numbers)
        self._mind_memory()
        self.held.changed()

    def _flush_ended(self) -> None:
        if not self._ended:
            return
        self.source.settle(self._ended)
        self._ended = []
        for (stream, reason), count in self._ignored.items():
            events.ignored(stream=stream, reason=reason, count=count)
        self._ignored.clear()
        self.held.changed()

    def _tell_flagged(self) -> None:
        flagged = self._intake.flagged
        for (stream, reason), count in flagged.items():
            events.flagged(stream=stream, reason=reason, count=count)
        flagged.clear()

    def _tell_defects(self) -> None:
        for error, count in self._defects.items():
            events.defect(stage="decode", error=error, count=count)
        self._defects.clear()

    def _mind_memory(self) -> None:
        """Back-pressure: stop reading the socket when memory is full, never drop."""
        bound, held = self._options.buffer.max_bytes, self.held.size_bytes
        if not self.paused and held >= bound:
            self.paused = True
            events.reading_paused(held_bytes=held)
            self.source.pause()
        elif self.paused and held < bound * _RESUME_AT:
            self.paused = False
            events.reading_resumed(held_bytes=held)
            self.source.resume()

    async def drain(self) -> None:
        """Return when everything received is settled."""
        while self.held.by_stream():
            self._go.set()
            await self.held.until_changed()


def _bare(delivery: Delivery) -> Delivery:
    """The delivery without its messages: who waits must not hold its neighbours."""
    return msgspec.structs.replace(delivery, messages=())


def _report_letters(letters: Sequence[DeadLetter]) -> None:
    groups: dict[tuple[str, Reason], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.stream, letter.reason), []).append(letter)
    for (stream, reason), group in groups.items():
        events.dead_lettered(stream=stream, reason=reason, count=len(group), example=group[0].detail)
