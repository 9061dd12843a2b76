"""What is received and not settled, counted where it is: the other side of the conservation law."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Iterator

from gateway.batches import Batch, Route
from gateway.ingest.queue import Queue
from gateway.ingest.waiting import DeferredQueue
from gateway.messages import Message
from gateway.writer.work import BatchWrite


class InFlight:
    """Every place in which a message can be between its receipt and its settlement.

    Attributes:
        queue: batches that wait for a connection.
        large_queue: likewise, of large messages.
        writing: batches on their way into the database.
        back: what was set apart, as it fails although the server works.
        unresolved: messages whose devices must be looked up.
        unrecognised: redeliveries that only the ledger can tell.
        large: messages that are decoded one at a time, and what came behind them by the same topics.
    """

    def __init__(self, queue: Queue, large_queue: Queue) -> None:
        self.queue, self.large_queue = queue, large_queue
        self.writing: list[BatchWrite] = []
        self.back: list[BatchWrite] = []
        self.unresolved, self.unrecognised, self.large = DeferredQueue(), DeferredQueue(), DeferredQueue()
        self._deferred = {
            "a device look-up": self.unresolved,
            "the ledger": self.unrecognised,
            "its turn to be decoded": self.large,
        }
        self._changed = asyncio.Event()

    @property
    def size_bytes(self) -> int:
        """Bytes held."""
        deferred = sum(queue.size for queue in self._deferred.values())
        return deferred + sum(batch.size for batch in self._batches())

    def by_stream(self) -> Counter[str]:
        """Messages held, by stream."""
        held: Counter[str] = Counter()
        for place in self._places():
            held += place.count_by_stream()
        return held

    def oldest(self, count: int) -> list[dict[str, object]]:
        """The oldest messages: delivery number, stream, topic, and what they wait for."""
        oldest = heapq.nsmallest(count, self._messages(), key=lambda one: one[0])
        return [
            {"number": number, "stream": route.stream_name, "topic": message.topic, "waits_for": cause}
            for number, route, message, cause in oldest
        ]

    def find(self, numbers: Collection[int]) -> dict[int, Message]:
        """Those of these messages that are held, by delivery number."""
        queues = self._deferred.values()
        found = {one.number: one.message for queue in queues for one in queue.all() if one.number in numbers}
        for batch in self._batches():
            if len(found) < len(numbers):
                letters = zip(
                    batch.dead_letter_numbers, (letter.message for letter in batch.dead_letters), strict=True
                )
                every = itertools.chain(zip(batch.numbers, batch.messages, strict=True), letters)
                found.update((number, message) for number, message in every if number in numbers)
        return found

    def progress_marker(self) -> object:
        """How far the batches under way are: another value as soon as one of them gets on, if only by halving."""
        under_way = [
            (id(work), len(work.left), work.left and (work.next.id, len(work.next.indices)))
            for work in self.writing
        ]
        return under_way, [work.history and work.history.tries for work in self.back]

    def changed(self) -> None:
        """Messages were settled, or went on to another place: wakes :meth:`until_changed`."""
        self._changed.set()

    async def until_changed(self) -> None:
        """Return when some message is settled, or is elsewhere."""
        self._changed.clear()
        await self._changed.wait()

    def all_settled_before(self, number: int) -> bool:
        """Whether every message with a lesser delivery number is settled."""
        return self._least() >= number

    def _least(self) -> int:
        return min(place.oldest() for place in self._places())

    def _places(self) -> Iterator[DeferredQueue | Batch]:
        yield from self._deferred.values()
        yield from self._batches()

    def _batches(self) -> Iterator[Batch]:
        yield from self.queue
        yield from self.large_queue
        yield from (work.batch for work in (*self.writing, *self.back))

    def _messages(self) -> Iterator[tuple[int, Route, Message, str]]:
        for cause, queue in self._deferred.items():
            yield from ((one.number, one.route, one.message, cause) for one in queue.all())
        for batch in (*self.queue, *self.large_queue):
            yield from _messages_of(batch, "a connection")
        for work in self.writing:
            yield from _messages_of(work.batch, "the database")
        for work in self.back:
            yield from _messages_of(work.batch, f"another try: {work.error}")


def _messages_of(batch: Batch, cause: str) -> Iterator[tuple[int, Route, Message, str]]:
    for number, route, message in zip(batch.numbers, batch.routes, batch.messages, strict=True):
        yield number, route, message, cause
    for number, route, letter in zip(
        batch.dead_letter_numbers, batch.dead_letter_routes, batch.dead_letters, strict=True
    ):
        yield number, route, letter.message, cause
