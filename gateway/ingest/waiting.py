"""Deferred: messages that cannot be decided yet."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec

from gateway.batches import DEFERRED_BYTES, held_bytes
from gateway.devices.registry import Entry
from gateway.ingest.routes import TopicRoute
from gateway.messages import Delivery, Message

LARGE_BYTES = 2**16
"""Payloads beyond are decoded and encoded beside the event loop: a mebibyte of them takes 0.1 s."""


class Unresolved(msgspec.Struct):
    """These devices must be looked up before the message can be decided."""

    entries: Sequence[Entry]


class Waiting(msgspec.Struct):
    """A deferred message.

    Attributes:
        delivery: its own, without the messages.
        entries: the devices it waits for.
        received_us: the receive time it was already given, µs; None: its delivery's.
    """

    number: int
    message: Message
    route: TopicRoute
    delivery: Delivery
    entries: Sequence[Entry] = ()
    received_us: int | None = None


class DeferredQueue:
    """Messages that are deferred for one cause."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._nonempty = asyncio.Event()
        self.size = 0
        """Bytes held."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: Waiting) -> None:
        """Defer a message."""
        self._waiting.append(one)
        self.size += _held(one)
        self._nonempty.set()

    async def wait_nonempty(self) -> None:
        """Returns when a message waits."""
        await self._nonempty.wait()

    def release(self, condition: Callable[[Waiting], bool], most: int | None = None) -> list[Waiting]:
        """Take those out for whom this holds, in the order of coming, or the first so many of them.

        Of a delivery all are taken together: see :meth:`gateway.ingest.pipeline.Pipeline.take_again`.
        """
        released: list[Waiting] = []
        left: list[Waiting] = []
        waiting = iter(self._waiting)
        for one in waiting:
            if most is not None and len(released) >= most and one.delivery is not released[-1].delivery:
                left.append(one)
                break
            (released if condition(one) else left).append(one)
        self._waiting = deque((*left, *waiting))
        self.size -= sum(map(_held, released))
        if not self._waiting:
            self._nonempty.clear()
        return released

    def first(self) -> Waiting:
        """That which came first."""
        return self._waiting[0]

    def pop(self) -> Waiting:
        """Take out that which came first."""
        one = self._waiting.popleft()
        self.size -= _held(one)
        if not self._waiting:
            self._nonempty.clear()
        return one

    def all(self) -> list[Waiting]:
        """What waits now, in the order of coming."""
        return list(self._waiting)

    def entries(self, most: int) -> list[Entry]:
        """The devices that are waited for, each once; the first of them, when there are more than so many."""
        found: dict[int, Entry] = {}
        for one in self._waiting:
            found.update((id(entry), entry) for entry in one.entries)
            if len(found) >= most:
                break
        return list(found.values())

    def earliest(self) -> Waiting:
        """One of the oldest connection whose messages wait."""
        return min(self._waiting, key=lambda one: one.delivery.since)

    def oldest(self) -> int:
        """The least delivery number; a large one when nothing waits."""
        return min((one.number for one in self._waiting), default=2**63)

    def count_by_stream(self) -> Counter[str]:
        """How many messages of each stream wait."""
        return Counter(one.route.stream_name for one in self._waiting)


def _held(one: Waiting) -> int:
    return held_bytes(one.message) + DEFERRED_BYTES
