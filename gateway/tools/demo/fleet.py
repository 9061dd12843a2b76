"""The fleet: publishes what the devices measure, and about one message in a hundred wrong on purpose."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import enum
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import aiomqtt

from gateway import clock
from gateway.devices import models
from gateway.errors import GatewayError
from gateway.outcomes import Reason
from gateway.tools.demo import roster, signals

WRONG_SHARE = 0.01
"""Share of messages that are wrong on purpose."""
_TICK = 0.05
_YEAR_US = 365 * 86_400 * clock.MICROS


class Intent(enum.Enum):
    """What a message is meant to be; of a wrong one, the reason that its dead letter must have."""

    READING = None
    UNKNOWN_DEVICE = Reason.UNKNOWN_DEVICE
    BROKEN_JSON = Reason.MALFORMED
    OUT_OF_RANGE = Reason.OUT_OF_RANGE
    CLOCK_YEAR_OFF = Reason.IN_THE_FUTURE


WRONG = tuple(intent for intent in Intent if intent is not Intent.READING)


class Publication(NamedTuple):
    """One message to publish."""

    topic: str
    payload: bytes
    intent: Intent


class Script:
    """What the fleet says, message by message. Deterministic from the seed, but for the times given in."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(f"{seed}/fleet")  # noqa: S311 - a simulation, no secret
        self._signals = {member.serial: signals.signal(member, seed) for member in roster.DEVICES}
        self._turns = self._take_turns()
        self._last_us = dict.fromkeys(self._signals, 0)

    def next(self, elapsed: float, now_us: int) -> Publication:
        """The next message.

        Args:
            elapsed: seconds since the demo began.
            now_us: the devices' clock, µs since the Unix epoch.
        """
        intent = Intent.READING if self._dice.random() >= WRONG_SHARE else self._dice.choice(WRONG)
        member = next(self._turns) if intent is not Intent.OUT_OF_RANGE else self._one_of(roster.CLIMATE)
        metrics = self._signals[member.serial](elapsed)
        if intent is Intent.OUT_OF_RANGE:
            metrics["temperature"] = 999.9
        time_us = self._time_of(member, now_us) + (_YEAR_US if intent is Intent.CLOCK_YEAR_OFF else 0)
        payload = _encode(metrics, time_us)
        if intent is Intent.BROKEN_JSON:
            payload = payload[: len(payload) * 2 // 3]
        serial = roster.GHOST if intent is Intent.UNKNOWN_DEVICE else member.serial
        return Publication(member.topic.replace(member.serial, serial), payload, intent)

    def _take_turns(self) -> Iterator[roster.Member]:
        """Motors speak most, gates least."""
        share = {roster.MOTOR.name: 4, roster.CLIMATE.name: 2, roster.DOOR.name: 1}
        turns = [member for member in roster.DEVICES for _ in range(share[member.type.name])]
        while True:
            self._dice.shuffle(turns)
            yield from turns

    def _one_of(self, kind: models.NewDeviceType) -> roster.Member:
        return self._dice.choice([member for member in roster.DEVICES if member.type is kind])

    def _time_of(self, member: roster.Member, now_us: int) -> int:
        """A device's clock never shows the same millisecond twice: (device, time) is the key of a reading."""
        millis = max(now_us // 1000, self._last_us[member.serial] // 1000 + 1)
        self._last_us[member.serial] = millis * 1000
        return millis * 1000


class Fleet:
    """Publishes at QoS 1 until stopped.

    Attributes:
        published: messages that the broker has acknowledged, by intent.
    """

    def __init__(self, *, port: int, rate: float, seed: int) -> None:
        self.published: collections.Counter[Intent] = collections.Counter()
        self._port, self._rate = port, rate
        self._script = Script(seed)
        self._stopping = False

    @property
    def total(self) -> int:
        """All messages that the broker has acknowledged."""
        return self.published.total()

    @property
    def wrong(self) -> int:
        """Those among them that are wrong on purpose."""
        return sum(self.published[intent] for intent in WRONG)

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncIterator[asyncio.Task[None]]:
        """Publish during the block; after it, the broker has acknowledged all that was sent.

        Yields the task that publishes: it is done early only when it failed.

        Raises:
            GatewayError: the connection to the broker broke.
        """
        task = asyncio.create_task(self._run())
        try:
            yield task
            self._stopping = True
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        client = aiomqtt.Client("127.0.0.1", self._port, identifier="demo-fleet")
        client.pending_calls_threshold = (
            sys.maxsize
        )  # it warns of many publications under way; here they are meant
        try:
            async with client:
                await self._publish(client)
        except aiomqtt.MqttError as error:
            raise GatewayError(f"the fleet lost its broker: {error}") from error

    async def _publish(self, client: aiomqtt.Client) -> None:
        began = time.monotonic()
        sent = 0
        while not self._stopping:
            elapsed = time.monotonic() - began
            due = min(int(elapsed * self._rate) - sent, int(self._rate * 4 * _TICK) + 1)
            await asyncio.gather(*(self._send(client, elapsed) for _ in range(due)))
            sent += due
            await asyncio.sleep(_TICK)

    async def _send(self, client: aiomqtt.Client, elapsed: float) -> None:
        publication = self._script.next(elapsed, clock.now_us())
        await client.publish(publication.topic, publication.payload, qos=1)
        self.published[publication.intent] += 1


def _encode(metrics: dict[str, Any], time_us: int) -> bytes:
    stamp = clock.to_datetime(time_us).astimezone(dt.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"ts": stamp.replace("+00:00", "Z"), "metrics": metrics}).encode()
