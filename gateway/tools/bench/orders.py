"""What a load is told to publish, and what it says when it has: JSON between two processes."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.tools.bench.shape import Shape


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One load.

    Attributes:
        mqtt: the broker, as ``gateway.settings.MqttSettings`` takes it.
        prefix: of all topics; the serial number follows.
        count: messages, the last one and probes included.
        rate: messages a second; 0: as fast as the broker takes them.
        seconds: publishing ends after this time, whatever the count; 0: it does not.
        start_ms: the devices' time of the first round, ms since the Unix epoch.
        probe_every: each message of such a number is a probe; 0: none is.
    """

    mqtt: dict[str, Any]
    prefix: str
    shape: Shape
    count: int
    start_ms: int
    seed: int
    rate: float = 0
    seconds: float = 0
    probe_every: int = 0


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order.

    Attributes:
        count: messages that the broker acknowledged.
        seconds: from the first to the last written.
        stamp_ms: the devices' time of the last round.
        refused: acknowledged by a refusal.
        unmatched: acknowledged as having no subscriber.
        probes: how many there were.
        acks: seconds from each probe to the broker's acknowledgement.
        cpu_seconds: what the load itself used.
    """

    count: int
    seconds: float
    stamp_ms: int
    refused: int
    unmatched: int
    probes: int
    acks: list[float]
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.count / self.seconds
