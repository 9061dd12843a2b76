"""An innocent device: a reading every so often, and how long after publishing each of them is a row that others see.

    python -m tests.support.innocent --port 1883 --dsn postgresql://… --device <uuid> --topic …

A line on standard output for each reading: its ``seq``, when it was published, and when its row was seen
(``time.monotonic``, which all processes of a machine share). SIGTERM ends the publishing; the end is when all rows were
seen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
import mqtt5

from tests.support.databases import Databases
from tests.support.processes import Process
from tests.support.wire import QOS1, Wire

EVERY = 0.01
"""Seconds between two looks at the table: as fine are the delays."""
_SEEN = """
SELECT (data->>'seq')::bigint FROM telemetry WHERE device_id = $1 AND time >= to_timestamp($2::float8)
"""


class Sample(NamedTuple):
    """One reading. ``delay``: seconds from its publishing until its row was seen."""

    seq: int
    published: float
    delay: float


class Innocent(Process):
    """The device as a process of its own: whatever the tests do meanwhile, it is on time."""

    def __init__(
        self, port: int, databases: Databases, *, device: uuid.UUID, topic: str, rate: float = 100
    ) -> None:
        super().__init__("innocent")
        self._arguments = [
            *("--port", str(port), "--dsn", databases.timeseries_dsn, "--device", str(device)),
            *("--topic", topic, "--rate", str(rate)),
        ]

    def command(self) -> Sequence[str]:
        """Publisher and watcher."""
        return [sys.executable, "-m", __name__, *self._arguments]

    def is_ready(self) -> bool:
        """The first row was seen: all of the way works."""
        return bool(self.samples())

    def samples(self) -> list[Sample]:
        """Readings whose rows were seen, in the order of publishing."""
        lines = self.log.read_text("utf-8").split("\n")[:-1]
        return sorted(Sample(*json.loads(line)) for line in lines if line.startswith("["))


class _Device:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._topic, self._device = arguments.topic, uuid.UUID(arguments.device)
        self._interval = 1 / arguments.rate
        self._start_ms = int(time.time() * 1000)
        self._waiting: dict[int, float] = {}
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Publish no more."""
        self._ended.set()

    async def publish(self, port: int) -> None:
        """At the rate; what was late is not made up for in a burst."""
        loop = asyncio.get_running_loop()
        wire = Wire(port)
        wire.socket.setblocking(False)
        reading = asyncio.create_task(self._drain_acks(wire))
        seq = 0
        while not self._ended.is_set():
            due = loop.time() + self._interval
            payload = {"ts": self._start_ms + seq, "metrics": {"seq": seq, "temperature": 21.5}}
            packet = mqtt5.PublishPacket(
                self._topic, json.dumps(payload).encode(), qos=QOS1, packet_id=seq % 65_535 + 1
            )
            self._waiting[seq] = time.monotonic()
            await loop.sock_sendall(wire.socket, packet.write())
            seq += 1
            await asyncio.sleep(max(0.0, due - loop.time()))
        reading.cancel()
        wire.socket.close()

    async def _drain_acks(self, wire: Wire) -> None:
        while await asyncio.get_running_loop().sock_recv(wire.socket, 65_536):
            pass

    async def watch(self, dsn: str) -> None:
        """Until the publishing has ended and every row was seen."""
        connection: Any = await asyncpg.connect(dsn)
        while self._waiting or not self._ended.is_set():
            if self._waiting:
                oldest = (self._start_ms + min(self._waiting)) / 1000 - 0.0005
                rows = await connection.fetch(_SEEN, self._device, oldest)
                self._tell([row[0] for row in rows], time.monotonic())
            await asyncio.sleep(EVERY)
        await connection.close()

    def _tell(self, seen: Sequence[int], now: float) -> None:
        for seq in seen:
            if (published := self._waiting.pop(seq, None)) is not None:
                sys.stdout.write(json.dumps([seq, published, now - published]) + "\n")
        sys.stdout.flush()


async def _run(arguments: argparse.Namespace) -> None:
    device = _Device(arguments)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, device.end)
    await asyncio.gather(device.publish(arguments.port), device.watch(arguments.dsn))


def main() -> None:
    """Publish and watch until SIGTERM, and until every row was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "dsn", "device", "topic", "rate"):
        parser.add_argument(f"--{name}", type={"port": int, "rate": float}.get(name, str), required=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
