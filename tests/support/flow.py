"""The whole path without a broker: deliveries by hand, real databases, books looked at whenever anything settles."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

import msgspec

from gateway import batches, errors, settings
from gateway.ingest.assembly import Foundation, live_path, spool_path
from gateway.ingest.suspects import Guard
from gateway.messages import Message
from gateway.mqtt.acknowledgements import Acknowledgements
from gateway.mqtt.window import NO_ID
from gateway.observability.health import Health
from gateway.outcomes import Outcome
from gateway.tasks import TaskGuard


class Hand:
    """A source by hand; satisfies :class:`gateway.ingest.settlement.SourceControl`.

    Attributes:
        settled: delivery numbers in the order in which they settled, each once.
        paused: whether reading is paused now.
        turns: every ``pause`` and ``resume``.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.settled: list[int] = []
        self._known: set[int] = set()
        self.paused = False
        self.turns: list[str] = []

    def settle(self, numbers: Sequence[int]) -> None:
        """Each number once, and none that was not taken; the books must balance now."""
        for number in numbers:
            assert 0 <= number < self._flow.taken
            assert number not in self._known, f"{number} settled twice"
            self._known.add(number)
            self.settled.append(number)
        self._flow.left(numbers)
        self._flow.check_books()

    def pause(self) -> None:
        """Stop reading."""
        self.paused = True
        self.turns.append("pause")

    def resume(self) -> None:
        """Read again."""
        self.paused = False
        self.turns.append("resume")


class Flow:
    """A path with its tasks, and a hand that gives it deliveries. Use as an asynchronous context.

    Attributes:
        taken: how many messages it was given; the number of the next.
    """

    def __init__(self, options: settings.Settings) -> None:
        batches._EPOCH = uuid.uuid4().bytes  # each is a process of its own, with numbers from 0
        self.options, self.health = options, Health()
        self.base, self.hand = Foundation(options, self.health), Hand(self)
        self.path, self.spooled = live_path(self.base, self.hand), spool_path(self.base)
        self.pipeline = self.path.pipeline
        self.taken = 0
        self._acks = Acknowledgements(self.base.sessions)
        self._connection: tuple[bool, int] | None = None
        self._tasks = TaskGuard()
        self._stop = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        paths = (self.path,) if self.spooled is None else (self.path, self.spooled)
        for name, task in (*self.base.tasks, *(one for path in paths for one in path.tasks)):
            self._tasks.start(name, task())
        self._watch = asyncio.create_task(self._tasks.watch(self._stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watch is not None
        self._stop.set()
        try:
            await self._watch  # raises what a task died of
            with contextlib.suppress(errors.GatewayError):
                await self.base.sessions.save()
        finally:
            await self._tasks.cancel()
            await self.path.close()
            if self.spooled is not None:
                await self.spooled.close()
            await self.base.close()

    def take(
        self,
        *messages: Message,
        received_us: int | None = None,
        idle: bool = True,
        resumed: bool = False,
        since: int = 0,
        by: Guard | None = None,
    ) -> range:
        """These messages as one delivery, and then nothing more on the socket; their delivery numbers.

        Args:
            by: what takes them; None: the path at once.
        """
        at = time.time_ns() // 1000 if received_us is None else received_us
        first = self.taken
        self.taken += len(messages)
        self._connect(resumed, since)
        delivery = self._acks.register(messages, [one.packet_id or NO_ID for one in messages])
        assert delivery.first == first
        (by or self.pipeline).take(msgspec.structs.replace(delivery, received_us=at, since=since))
        self.check_books()
        if idle:
            self.pipeline.idle()
        return range(first, self.taken)

    def _connect(self, resumed: bool, since: int) -> None:
        """A new connection, when this is not the one that is there."""
        if self._connection != (resumed, since):
            if self._connection is not None:
                self._acks.lost()
            self._acks.connected(resumed)
            self._connection = resumed, since

    def left(self, numbers: Iterable[int]) -> None:
        """The acks of these may leave."""
        self._acks.settle(numbers)

    def held(self) -> Counter[str]:
        """Messages taken and not settled, by stream."""
        return self.pipeline.in_flight.by_stream()

    @property
    def held_bytes(self) -> int:
        """Bytes of those."""
        return self.pipeline.in_flight.size_bytes

    def check_books(self) -> None:
        """The conservation law, for every stream."""
        held = self.held()
        wrong = {
            name: tally.balance(held[name])
            for name, tally in self.path.routes.tallies.items()
            if tally.balance(held[name])
        }
        assert not wrong, f"messages unaccounted for, by stream: {wrong}"

    def ended(self, stream: str = "telemetry") -> dict[Outcome, int]:
        """How messages of a stream ended so far; what did not happen is left out."""
        settled = self.path.routes.tallies[stream].settled
        return {outcome: count for outcome, count in settled.items() if count}

    async def settle(self, *, timeout: float = 20.0) -> Counter[Outcome]:
        """Wait until all that was taken is settled; how it ended, over all streams."""
        async with asyncio.timeout(timeout):
            await self.pipeline.wait_settled()
        assert sorted(self.hand.settled) == list(range(self.taken))
        self.check_books()
        total: Counter[Outcome] = Counter()
        for tally in self.path.routes.tallies.values():
            total.update(tally.settled)
        return +total
