"""A source at work in a test: what it yielded, when it was idle, and what its health says."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

import mqtt5

from gateway.messages import Delivery, Message
from gateway.mqtt import Source, open_source
from gateway.observability.health import Component, ComponentState
from gateway.settings import MqttSettings, StreamSettings
from tests.support.sessions import MemoryStore, sessions_in
from tests.support.waiting import eventually_async
from tests.support.wire import Wire


class Reception:
    """A sink, the source that fills it, and the health it reports.

    Attributes:
        received: (delivery number, message), in the order in which they came.
        story: "take" and "idle", in the order in which they were called.
    """

    def __init__(
        self, mqtt: MqttSettings, streams: Sequence[StreamSettings], store: MemoryStore | None = None
    ) -> None:
        self.deliveries: list[Delivery] = []
        self.received: list[tuple[int, Message]] = []
        self.story: list[str] = []
        self.health = Component("mqtt")
        self.settle_at_once = False
        self.sessions = sessions_in(store)
        self.source: Source = open_source(mqtt, streams, self.health, self.sessions)

    def take(self, delivery: Delivery) -> None:
        """As the path would."""
        self.deliveries.append(delivery)
        self.received += zip(itertools.count(delivery.first), delivery.messages)
        self.story.append("take")
        if self.settle_at_once:
            self.source.settle(range(delivery.first, delivery.first + len(delivery.messages)))

    def idle(self) -> None:
        """As the path would."""
        self.story.append("idle")

    @property
    def payloads(self) -> list[bytes]:
        """Payloads of all that came, copies included."""
        return [message.payload for _, message in self.received]

    def settle_all(self) -> None:
        """Settle all that came."""
        if self.received:
            self.source.settle(range(self.received[-1][0] + 1))

    async def ready(self, timeout: float = 20) -> None:
        """Wait until connected and subscribed."""
        await self.state(ComponentState.READY, timeout=timeout)

    async def state(self, state: ComponentState, says: str = "", timeout: float = 20) -> str:
        """Wait for a state whose detail holds this text; the detail."""
        await eventually_async(
            lambda: self.health.state is state and says in self.health.detail,
            timeout=timeout,
            what=f"{state} {says!r}; now {self.health.as_dict()}",
        )
        return self.health.detail

    async def messages(self, count: int, timeout: float = 20) -> list[Message]:
        """Wait for so many messages; all that came."""
        await eventually_async(
            lambda: len(self.received) >= count,
            timeout=timeout,
            what=f"{count} messages, {len(self.received)} came; {self.health.as_dict()}",
        )
        return [message for _, message in self.received]


@contextlib.asynccontextmanager
async def receiving(
    mqtt: MqttSettings, *streams: StreamSettings, settle: bool = False, store: MemoryStore | None = None
) -> AsyncIterator[Reception]:
    """A source at work; closed at the end.

    Args:
        store: keeps what is known of the session from one source to the next.
    """
    reception = Reception(mqtt, streams, store)
    reception.settle_at_once = settle
    running = asyncio.create_task(reception.source.run(reception))
    keeping = asyncio.create_task(reception.sessions.keep())
    try:
        yield reception
        assert not running.done(), "run() must go on until close()"
    finally:
        await reception.source.close()
        keeping.cancel()
        await running


def publish(port: int, topic: str, payloads: Sequence[bytes], *, qos: int = 1, retain: bool = False) -> None:
    """Publish all in one write, and wait until the broker has acknowledged all of QoS 1. Blocks."""
    with Wire(port) as wire:
        packets = [
            mqtt5.PublishPacket(
                topic,
                payload,
                qos=mqtt5.QoS(qos),
                packet_id=at % 65_535 + 1 if qos else None,
                retain=retain,
            ).write()
            for at, payload in enumerate(payloads)
        ]
        wire.socket.sendall(b"".join(packets))
        missing = len(payloads) if qos else 0
        while missing:
            missing -= sum(isinstance(packet, mqtt5.PubAckPacket) for packet in wire.received())


def numbered(count: int) -> list[bytes]:
    """Payloads that tell their order."""
    return [b"%d" % at for at in range(count)]
