"""The path of a message, on one screen.

::

    broker ─▶ source ─▶ decoder ─▶ registry ─▶ validation ─▶ batch ─▶ writer (COPY) ─▶ hypertable
                ▲          │           │            │           │          │
                │          └───────────┴────────────┴──▶ dead letters ◀────┘ isolated messages
                └──────────────── settle(outcomes), in order ◀┘

The first half (:meth:`Pipeline.take`) is plain synchronous code, called by the source with all messages of
one socket read: the fast path for what is plain, the general path (``general_path``) for the rest. The second half
(:meth:`Pipeline.write`) is one task per COPY connection. What cannot be decided at once is deferred and taken again
(``deferred``): a device that is not in the cache, a redelivery that only the ledger can tell, a large message, which
is decoded beside the event loop and has a batch of its own, so that others do not wait for it.

A message is atomic: all its readings are stored in one transaction, or it ends otherwise as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

from gateway.ingest.dispatch import Dispatch
from gateway.ingest.general_path import GeneralPath
from gateway.ingest.held_back import HeldBack
from gateway.ingest.in_flight import InFlight
from gateway.ingest.intake import Intake
from gateway.ingest.overflow import Overflow
from gateway.ingest.recognition import Recognition
from gateway.ingest.routes import Routes, TopicRoute
from gateway.ingest.settlement import Settlement
from gateway.ingest.waiting import Waiting
from gateway.messages import Delivery
from gateway.observability import metrics
from gateway.outcomes import Outcome
from gateway.writer.copy import Writer


class Pipeline:
    """Takes deliveries, writes batches, settles messages.

    Attributes:
        in_flight: what is taken and not settled.
        general: the general path.
    """

    def __init__(
        self,
        held: InFlight,
        settlement: Settlement,
        *,
        routes: Routes,
        intake: Intake,
        recognition: Recognition,
        held_back: HeldBack,
        dispatch: Dispatch,
        overflow: Overflow,
    ) -> None:
        self.in_flight, self._settlement = held, settlement
        self._routes, self._intake, self._recognition = routes, intake, recognition
        self._held_back, self._dispatch, self._overflow = held_back, dispatch, overflow
        self.general = GeneralPath(intake, held, recognition, settlement)

    @property
    def paused(self) -> bool:
        """Whether memory is full, and the source was told to stop reading."""
        return self._settlement.paused

    # ------------------------------------------------------------------ first half: from the socket to a batch

    def take(self, delivery: Delivery) -> None:
        """All messages of one socket read."""
        routes = self._routes.of(delivery)
        rows, untimed = self._intake.fast_rows(delivery, routes)
        batch = self.in_flight.queue.open_for(delivery, delivery.messages[0])
        misses = 0
        if delivery.resent:
            ended = self._end_sent_again(delivery, routes)
            misses = self.general.take(delivery, routes, rows, untimed, without=ended)
        elif all(rows):
            batch.add_all(delivery, routes, cast("list[bytes]", rows), untimed)
        else:
            misses = self.general.take(delivery, routes, rows, untimed)
        metrics.registry_hits.inc(len(routes) - misses)
        self._taken()

    def _end_sent_again(self, delivery: Delivery, routes: Sequence[TopicRoute]) -> set[int]:
        """Numbers of those that came before on this connection: whatever becomes of the first is their end too."""
        numbers = self._recognition.sent_again(delivery, self.in_flight.find(set(delivery.resent.values())))
        for number in numbers:
            self._settlement.end(number, routes[number - delivery.first], Outcome.DUPLICATE)
        return numbers

    def _taken(self) -> None:
        """Settle what ended at once; see whether a batch is due and whether memory is full."""
        self.general.report()
        self._dispatch.collected()
        self._settlement.flush()

    def idle(self) -> None:
        """The socket has nothing more for now: whatever has collected may go."""
        self._dispatch.idle()

    def take_again(self, waited: Sequence[Waiting]) -> None:
        """Messages that were deferred, decided now.

        Hazard: those of one delivery were received at once. Of readings of one key that were, the later written is the
        newer, so that they must not come into two batches, which two connections write in any order.
        """
        queue = self.in_flight.queue
        for _, together in itertools.groupby(waited, key=lambda one: id(one.delivery)):
            for one in together:
                queue.open_for(one.delivery, one.message)
                self.general.accept(one.number, one.message, one.route, one.delivery)
                one.route.take_fast_path()
            queue.seal_if_full()  # a whole session may have waited
        self._taken()
        self.in_flight.changed()
        self.idle()

    async def take_large(self, one: Waiting) -> None:
        """The first of the large messages that wait, or one that came behind it."""
        await self.general.accept_large(one)
        self._taken()
        self.in_flight.changed()
        self._dispatch.idle()

    def end(self, waited: Sequence[Waiting], outcome: Outcome) -> None:
        """Messages that were deferred have come to their end."""
        for one in waited:
            self._settlement.end(one.number, one.route, outcome)
        self._settlement.flush()

    # ------------------------------------------------------------------ second half: from a batch to its settlement

    async def write(self, writer: Writer) -> None:
        """Task: one COPY connection. While it writes, the next batch collects."""
        await self._overflow.probe(writer)
        while True:
            work = await self._dispatch.next()
            if work is None:
                await self._overflow.probe(writer)
                continue
            self.in_flight.writing.append(work)
            await self._overflow.deliver(work, writer)
            self.in_flight.writing.remove(work)
            self._dispatch.ended(work)
            if work.left:
                work, rest = work.parted()
                self._held_back.add(rest)
            self._held_back.ended(work)
            self._settlement.settle(work)

    async def wait_settled(self) -> None:
        """Return when everything received is settled."""
        while self.in_flight.by_stream():
            self._dispatch.wake()
            await self.in_flight.until_changed()
