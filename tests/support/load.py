"""A publisher of its own process, fast enough not to be what is tested: encoded packets, one raw socket.

    python -m tests.support.load --port 1883 --count 100000 --devices 100 --bad-percent 1 --seed 7

QoS 1 within the broker's window. What was not acknowledged when the broker went away is sent again when it
is back; each reading has a key of its own, so a copy of the publisher's making cannot be taken for one of the
gateway's. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mqtt5

from tests.support.plan import Plan
from tests.support.processes import Process
from tests.support.wire import QOS1, Wire

BURST = 500
DUP = 0x08
PLANNED = (
    "count",
    "devices",
    "bad_percent",
    "repeat_percent",
    "seed",
    "timestamps",
    "start_ms",
    "tenant",
    "message_ids",
    "id_round",
    "first",
)
ACCEPTED = (mqtt5.PubAckReasonCode.SUCCESS, mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS)


class Publisher:
    """Publishes packets and sees each acknowledged.

    Args:
        packets: encoded PUBLISH packets, numbered by :func:`packet_id`.
        window: most of them unacknowledged at once; the broker's receive maximum bounds it too.
        rate: packets a second; 0: as fast as the broker takes them.
    """

    def __init__(self, port: int, packets: Sequence[bytes], *, window: int = 2000, rate: float = 0) -> None:
        self._port, self._packets, self._window, self._rate = port, packets, window, rate
        self._count, self._finishing = len(packets), False
        self._unacknowledged: dict[int, int] = {}
        self._room = window
        self._next = 0
        self.resent = self.unmatched = self.refused = self.reconnects = 0

    @property
    def count(self) -> int:
        """How many packets are published, or will be."""
        return self._count

    def finish(self) -> None:
        """Publish no more of them; may be called by a signal."""
        self._finishing = True

    def run(self, deadline: float) -> None:
        """Publish all, through restarts of the broker.

        Raises:
            TimeoutError: not all were acknowledged at ``deadline`` (``time.monotonic``).
        """
        self._started = time.monotonic()
        while self._next < self._count or self._unacknowledged:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._unacknowledged)} messages were not acknowledged")
            try:
                with self._connected() as wire:
                    self._send_again(wire.socket)
                    self._publish(wire, deadline)
            except OSError:
                self.reconnects += 1
                time.sleep(0.05)

    def _connected(self) -> Wire:
        wire = Wire(self._port)
        self._room = min(self._window, wire.connack.receive_max)
        return wire

    def _send_again(self, connection: socket.socket) -> None:
        again = [self._packets[number] for number in sorted(self._unacknowledged.values())]
        self.resent += len(again)
        connection.sendall(b"".join(bytes([packet[0] | DUP]) + packet[1:] for packet in again))

    def _publish(self, wire: Wire, deadline: float) -> None:
        while (self._next < self._count or self._unacknowledged) and time.monotonic() < deadline:
            due = self._due()
            if due:
                self._send(wire.socket, due)
            patience = 0 if due else 0.05
            if select.select([wire.socket], [], [], patience)[0]:
                self._settle(wire.received())

    def _due(self) -> int:
        if self._finishing:
            self._count = self._next
        room = min(self._room - len(self._unacknowledged), self._count - self._next, BURST)
        if self._rate:
            room = min(room, int((time.monotonic() - self._started) * self._rate) + 1 - self._next)
        return max(room, 0)

    def _send(self, connection: socket.socket, count: int) -> None:
        first, self._next = self._next, self._next + count
        self._unacknowledged |= {packet_id(number): number for number in range(first, self._next)}
        connection.sendall(b"".join(self._packets[first : self._next]))

    def _settle(self, packets: Sequence[mqtt5.Packet]) -> None:
        for packet in packets:
            if isinstance(packet, mqtt5.PubAckPacket):
                self._unacknowledged.pop(packet.packet_id, None)
                self.unmatched += packet.reason_code == mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
                self.refused += packet.reason_code not in ACCEPTED


def packet_id(number: int) -> int:
    """Packet id of the message of this number; unique within any window."""
    return number % 65_535 + 1


def encode(plan: Plan) -> list[bytes]:
    """The PUBLISH packets of a plan."""
    return [
        mqtt5.PublishPacket(message.topic, message.payload, qos=QOS1, packet_id=packet_id(position)).write()
        for position, message in enumerate(plan.messages())
    ]


class Load(Process):
    """A plan being published by a process of its own; :meth:`result` waits for its end."""

    module = __name__

    def __init__(
        self, port: int, plan: Plan, *, rate: float = 0, window: int = 2000, timeout: float = 180
    ) -> None:
        super().__init__("load")
        self._timeout = timeout
        speed = ["--port", str(port), "--rate", str(rate), "--window", str(window), "--timeout", str(timeout)]
        self._command = [sys.executable, "-m", self.module, *speed, *plan.arguments()]

    def command(self) -> Sequence[str]:
        """The publisher."""
        return self._command

    def is_ready(self) -> bool:
        """It is at work as soon as it runs."""
        return True

    def finish(self) -> int:
        """End it early: what was published by then is a shorter plan of the same seed; its count."""
        if self.running:
            self.signal(signal.SIGTERM)
        published: int = self.result()["messages"]
        return published

    def result(self) -> dict[str, Any]:
        """What it printed, when every message was acknowledged by the broker."""
        code = self.wait(self._timeout + 10)
        assert code == 0, f"the load failed with {code}:\n{self.tail()}"
        told: dict[str, Any] = json.loads(self.tail().strip().splitlines()[-1])
        return told


def main() -> None:
    """Publish what the arguments say; the plan's sums and the publisher's own go to standard output."""
    arguments = parser().parse_args()
    plan = Plan(**{name: getattr(arguments, name) for name in PLANNED})
    publisher = Publisher(arguments.port, encode(plan), window=arguments.window, rate=arguments.rate)
    signal.signal(signal.SIGTERM, lambda *_: publisher.finish())
    started = time.monotonic()
    publisher.run(started + arguments.timeout)
    plan = replace(plan, count=publisher.count)
    expected = plan.expected()
    told = {
        "messages": plan.count,
        "good": len(expected.stored),
        "repeats": expected.repeats,
        "bad": expected.dead,
        "resent": publisher.resent,
        "reconnects": publisher.reconnects,
        "unmatched": publisher.unmatched,
        "refused": publisher.refused,
        "seconds": round(time.monotonic() - started, 3),
    }
    sys.stdout.write(json.dumps(told) + "\n")


def parser() -> argparse.ArgumentParser:
    """Of the command line: a plan, and how it is published."""
    parser = argparse.ArgumentParser(prog=Path(__file__).stem, description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--bad-percent", type=float, default=1)
    parser.add_argument("--repeat-percent", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--with-timestamps", dest="timestamps", action="store_true", default=True)
    parser.add_argument("--without-timestamps", dest="timestamps", action="store_false")
    parser.add_argument("--message-ids", action="store_true")
    parser.add_argument("--id-round", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--start-ms", type=int, default=Plan(0).start_ms)
    parser.add_argument("--tenant", default="acme")
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--window", type=int, default=2000)
    parser.add_argument("--timeout", type=float, default=180)
    return parser


if __name__ == "__main__":
    main()
