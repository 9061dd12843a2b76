"""The spool as a source: what was spooled goes through a path of its own, beside live traffic.

That path has one COPY connection and little memory, which bounds its share. The messages' books were closed when they
were spooled; how they end now is counted apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.buffer.spool import Position, Spool
from gateway.errors import SpoolError
from gateway.messages import Chunk
from gateway.observability import health
from gateway.pipeline import Pipeline

_PORTION_BYTES = 1 << 18
_RETRY_SECONDS = 1.0


class Drain:
    """Satisfies :class:`gateway.pipeline.Reins`; nobody waits for acknowledgements here, a settled record may go."""

    def __init__(self, spool: Spool, pipeline: Pipeline, component: health.Component) -> None:
        self._spool, self._pipeline, self._component = spool, pipeline, component
        self._positions: dict[int, Position] = {}
        self._next = 0
        self._may_read = asyncio.Event()
        self._may_read.set()
        pipeline.source = self

    async def run(self) -> None:
        """Task: oldest first, as fast as the path takes it."""
        while True:
            await self._spool.wait_for_records()
            await self._may_read.wait()
            try:
                self._hand_over()
            except SpoolError as error:
                self._component.failed(str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            # Live traffic has the loop between two portions.
            await asyncio.sleep(0)

    async def until_empty(self) -> None:
        """Return when all that is spooled has come to its end."""
        while not self._spool.empty:
            await self._pipeline.drain()
            await asyncio.sleep(0.05)

    def _hand_over(self) -> None:
        portion = self._spool.next_chunk(_PORTION_BYTES)
        if portion is None:
            return
        # A redelivery is judged when all portions before its own are settled, which may hold what it repeats.
        since = self._next
        for record, position in zip(portion.records, portion.positions, strict=True):
            self._positions[self._next] = position
            chunk = Chunk((record,), self._next, record.received_us, record.resumed, since, replayed=True)
            self._next += 1
            self._pipeline.take(chunk)
        self._pipeline.idle()

    def settle(self, numbers: Iterable[int]) -> None:
        """These have come to their end: the spool may forget them."""
        self._spool.settle([self._positions.pop(number) for number in numbers])

    def pause(self) -> None:
        """The path has enough for now."""
        self._may_read.clear()

    def resume(self) -> None:
        """The path takes more."""
        self._may_read.set()
