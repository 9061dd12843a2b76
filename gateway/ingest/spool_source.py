"""The spool as a source: what was spooled goes through a path of its own, beside live traffic.

That path has one COPY connection and little memory, which bounds its share. The messages' books were closed when they
were spooled; how they end now is counted apart.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections.abc import Iterable, Sequence

from gateway.errors import SpoolError
from gateway.ingest.pipeline import Pipeline
from gateway.ingest.suspects import OneByOne, Suspects
from gateway.messages import Delivery, Session
from gateway.observability import health
from gateway.spool.spool import Position, Spool

_PORTION_BYTES = 1 << 18
_RETRY_SECONDS = 1.0
_received = operator.attrgetter("received_us", "resumed", "session")


class SpoolControl:
    """Satisfies ``SourceControl``; no acknowledgement is waited for here, a settled record may go.

    Attributes:
        may_read: the path takes more.
        next_number: delivery number of the next record that is handed over.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._positions: dict[int, Position] = {}
        self.next_number = 0
        self.may_read = asyncio.Event()
        self.may_read.set()

    def handed_over(self, positions: Sequence[Position]) -> int:
        """Records at these positions get the next delivery numbers; the first of them."""
        first = self.next_number
        self._positions.update(enumerate(positions, first))
        return first

    def settle(self, numbers: Iterable[int]) -> None:
        """These have come to their end: the spool may forget them."""
        self._spool.settle([self._positions.pop(number) for number in numbers])

    def pause(self) -> None:
        """The path has enough for now."""
        self.may_read.clear()

    def resume(self) -> None:
        """The path takes more."""
        self.may_read.set()


class SpoolSource:
    """Reads the spool into its path, oldest first."""

    def __init__(
        self,
        spool: Spool,
        control: SpoolControl,
        pipeline: Pipeline,
        component: health.Component,
        suspects: Suspects,
    ) -> None:
        self._spool, self._control, self._pipeline, self._component = spool, control, pipeline, component
        self._suspects, self._one_by_one = suspects, OneByOne(suspects, pipeline)
        self._current = Session(inherited=True)
        self._unreadable: str | None = None

    async def run(self) -> None:
        """Task: oldest first, as fast as the path takes it."""
        while True:
            await self._spool.wait_for_records()
            await self._control.may_read.wait()
            try:
                await self._hand_over()
                self._can_read()
            except SpoolError as error:
                self._unreadable = str(error)
                self._component.failed(self._unreadable)
                await asyncio.sleep(_RETRY_SECONDS)
            # Live traffic has the loop between two portions.
            await asyncio.sleep(0)

    def _can_read(self) -> None:
        """The spool can be read: no more is said of it than it did before."""
        if self._unreadable == self._component.detail:
            self._component.ready()
        self._unreadable = None

    async def until_empty(self) -> None:
        """Return when all that is spooled has come to its end.

        Raises:
            SpoolError: it cannot be read.
        """
        while not self._spool.empty:
            if self._unreadable is not None:
                raise SpoolError(self._unreadable)
            await self._pipeline.wait_settled()
            await asyncio.sleep(0.05)

    async def _hand_over(self) -> None:
        portion = self._spool.next_chunk(_PORTION_BYTES)
        if portion is None:
            return
        self._suspects.begin()
        # A redelivery is judged when all portions before its own are settled, which may hold what it repeats.
        control, since = self._control, self._control.handed_over(portion.positions)
        for (received_us, resumed, session), together in itertools.groupby(portion.records, _received):
            records = list(together)
            delivery = Delivery(
                records, control.next_number, received_us, resumed, since, records[-1].turn,
                replayed=True, session=self._session(session),
            )  # fmt: skip
            control.next_number += len(delivery.messages)
            if self._suspects.passes:
                self._pipeline.take(delivery)
            else:
                await self._one_by_one.take(delivery)
        self._pipeline.idle()

    def _session(self, id_: bytes) -> Session:
        """The session of a record, the same as long as the records are of the same."""
        if id_ != self._current.id:
            self._current = Session(id_, inherited=True)
        return self._current

    def oldest(self, count: int) -> list[dict[str, object]]:
        """The oldest messages under way; when there are none, what is not taken from the disk."""
        waits = [] if self._spool.empty else [{"records": self._spool.records, "waits_for": "the drain"}]
        return self._pipeline.in_flight.oldest(count) or waits

    def progress_marker(self) -> object:
        """How far the drain is: another value as soon as it gets on."""
        return self._control.next_number, self._pipeline.in_flight.progress_marker()
