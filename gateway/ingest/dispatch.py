"""When a batch goes: a connection is free, and the socket has gone idle, ``batch.linger`` is over, or it is full."""

from __future__ import annotations

import asyncio
import contextlib

from gateway.ingest.held_back import HeldBack
from gateway.ingest.in_flight import InFlight
from gateway.ingest.queue import Queue
from gateway.writer.work import BatchWrite

_IDLE_SECONDS = 5.0


class Dispatch:
    """Hands batches to the connections that ask for them.

    Of large messages one batch is on its way at a time, and a single connection takes them by turns with the others:
    the database may be long about it, and the readings of others do not wait for that.

    Args:
        go: set when something may go; ``held_back`` sets it, too.
        linger: seconds after which a batch goes that is not full, while the socket has more.
    """

    def __init__(self, held: InFlight, held_back: HeldBack, go: asyncio.Event, *, linger: float) -> None:
        self._in_flight, self._queue, self._large_queue = held, held.queue, held.large_queue
        self._held_back, self._go, self._seconds = held_back, go, linger
        self._linger: asyncio.TimerHandle | None = None
        self._large: BatchWrite | None = None
        self._large_next = True

    def collected(self) -> None:
        """Something may have come into an open batch: see whether one is due."""
        self._large_queue.seal_if_full()
        if self._queue.seal_if_full():
            self._go.set()
        elif self._linger is None and len(self._queue.open):
            self._linger = asyncio.get_running_loop().call_later(self._seconds, self._lingered)

    def _lingered(self) -> None:
        self._linger = None
        self._go.set()

    def idle(self) -> None:
        """Nothing more comes for now: whatever has collected may go."""
        if len(self._queue.open) or self._large_may_go:
            self._go.set()

    def wake(self) -> None:
        """Whatever is held may go."""
        self._go.set()

    async def next(self) -> BatchWrite | None:
        """The next batch, or what was held back, as soon as it may go; None when there was none for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_SECONDS):
                while True:
                    await self._go.wait()
                    work = self._held_back.due() or self._next_batch()
                    # Hazard: readings left behind must be sent on by the timer or by this event.
                    waits = self._queue.full or self._held_back.any_due or self._large_may_go
                    if not waits and (self._linger is not None or not len(self._queue.open)):
                        self._go.clear()
                    if work is not None:  # else another connection was first
                        return work
        return None

    def ended(self, work: BatchWrite) -> None:
        """A batch that was handed out is written, or set apart."""
        if work is self._large:
            self._large = None
            if self._large_may_go:
                self._go.set()

    @property
    def _large_may_go(self) -> bool:
        return self._large is None and not self._large_queue.empty

    def _next_batch(self) -> BatchWrite | None:
        if self._large_may_go and (self._large_next or self._queue.empty):
            self._large_next = False
            self._large = _work(self._large_queue)
            self._in_flight.changed()
            return self._large
        self._large_next = True
        return _work(self._queue)


def _work(queue: Queue) -> BatchWrite | None:
    batch = queue.take()
    return None if batch is None else BatchWrite(batch)
