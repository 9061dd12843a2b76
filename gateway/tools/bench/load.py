"""A load: a process of its own that publishes what an order says, at QoS 1 within a wide window.

    python -m gateway.tools.bench.load order.json

Prints a :class:`gateway.tools.bench.orders.Published` at the end. A paced load sends what is due every millisecond.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from gateway import clock, settings
from gateway.errors import GatewayError
from gateway.tools.bench import blocks, shape
from gateway.tools.bench.acks import Acks
from gateway.tools.bench.orders import Order, Published
from gateway.tools.bench.wire import BenchConnection

_WINDOW = 20_000
_PIECE = 1000
_TICK = 0.001
_ACKS_WITHIN = 30.0


class LoadRun:
    """One order being published over one connection."""

    def __init__(self, order: Order, wire: BenchConnection) -> None:
        self._order, self._wire = order, wire
        self._blocks = blocks.Blocks(order.prefix, order.shape, start_ms=order.start_ms, seed=order.seed)
        self._acks = Acks()
        self._window = min(_WINDOW, wire.receive_max)
        self._sent = self._singles = 0
        self._began = self._ended = 0.0
        self._unanswered: list[tuple[int, float]] = []
        self._ack_seconds: list[float] = []
        self._probes = 0

    def run(self) -> Published:
        """Publish, and wait until the broker has acknowledged all of it.

        Raises:
            GatewayError: the broker went away, or acknowledges no more.
        """
        self._began = self._ended = time.monotonic()
        used_before = time.process_time()
        while self._sent < self._order.count - 1 and not self._over():
            due = self._due()
            if due:
                self._send(due)
            self._read(0 if due else _TICK)
        self._send_last()
        self._await_acks()
        return self._published(time.process_time() - used_before)

    def _over(self) -> bool:
        limit = self._order.seconds
        return limit > 0 and time.monotonic() - self._began >= limit

    def _due(self) -> int:
        """How many may be sent now, by window, rate and count."""
        room = self._window - (self._sent - self._acks.count)
        left = self._order.count - 1 - self._sent
        if self._order.rate:
            elapsed = time.monotonic() - self._began
            left = min(left, int(elapsed * self._order.rate) + 1 - self._sent)
        elif room < min(self._window // 4, _PIECE, left):
            return 0  # as acknowledgements trickle in: one large write is cheaper than many small ones
        return max(min(room, left), 0)

    def _send(self, due: int) -> None:
        """Send that many, in one write as far as they stand together."""
        every = self._order.probe_every
        if every and self._sent % every == 0:
            self._send_probe()
            return
        until_probe = every - self._sent % every if every else due
        piece, count = self._blocks.take(min(due, until_probe))
        self._wire.send(piece)
        self._sent += count
        self._ended = time.monotonic()

    def _send_probe(self) -> None:
        """A message whose time is this very moment, in µs."""
        now = time.time()
        payload = b'{"ts":%d,"metrics":{"%s":%d}}' % (
            int(now * clock.MICROS), shape.COUNTER.encode(), self._probes,
        )  # fmt: skip
        self._unanswered.append((self._sent, now))
        self._probes += 1
        self._send_single(shape.PROBE, payload)

    def _send_last(self) -> None:
        kind = self._order.shape
        stamp = b'"ts":%d,' % self._blocks.stamp_ms if kind.timestamps else b""
        payload = b'{%s"metrics":{"%s":0}}' % (stamp, shape.COUNTER.encode())
        self._send_single(shape.LAST, payload)

    def _send_single(self, serial: str, payload: bytes) -> None:
        self._wire.send(blocks.single(self._order.prefix + serial, payload, self._singles))
        self._singles += 1
        self._sent += 1
        self._ended = time.monotonic()

    def _read(self, patience: float) -> None:
        received = self._wire.received(patience)
        if not received:
            return
        self._acks.feed(received)
        now = time.time()
        answered = 0
        for number, sent in self._unanswered:
            if number >= self._acks.count:  # acknowledgements come in order (MQTT 5 §4.6)
                break
            self._ack_seconds.append(now - sent)
            answered += 1
        del self._unanswered[:answered]

    def _await_acks(self) -> None:
        patience = time.monotonic() + _ACKS_WITHIN
        count = self._acks.count
        while self._acks.count < self._sent:
            self._read(0.1)
            if self._acks.count > count:
                count, patience = self._acks.count, time.monotonic() + _ACKS_WITHIN
            if time.monotonic() > patience:
                raise GatewayError(f"the broker acknowledges {count} of {self._sent} messages and no more")

    def _published(self, cpu_seconds: float) -> Published:
        return Published(
            count=self._acks.count,
            seconds=self._ended - self._began,
            stamp_ms=self._blocks.stamp_ms,
            refused=self._acks.refused,
            unmatched=self._acks.unmatched,
            probes=self._probes,
            acks=self._ack_seconds,
            cpu_seconds=cpu_seconds,
        )


def main(path: Path) -> int:
    """Do what the order in this file says."""
    order = msgspec.json.decode(path.read_bytes(), type=Order)
    try:
        with BenchConnection(settings.MqttSettings.model_validate(order.mqtt)) as wire:
            published = LoadRun(order, wire).run()
    except GatewayError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(published).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
