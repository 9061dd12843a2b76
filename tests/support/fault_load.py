"""A load that goes on until it is ended: packets are encoded when they are due, and forgotten.

    python -m tests.support.fault_load --port 1883 --count 20000000 --rate 5000

SIGTERM ends it: no more is published, and the broker acknowledges what was.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import overload

import mqtt5

from tests.support.load import PLANNED, Load, Publisher, packet_id, parser
from tests.support.plan import Plan
from tests.support.wire import QOS1

KEPT = 8192
"""Packets that may have to be sent again: more than the window."""


class Packets(Sequence[bytes]):
    """The packets of a plan, to be asked for in order; only the last ones are kept."""

    def __init__(self, plan: Plan) -> None:
        self._count = plan.count
        self._messages = enumerate(plan.messages())
        self._kept: deque[bytes] = deque(maxlen=KEPT)
        self._made = 0

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[position] for position in range(*at.indices(self._count))]
        while self._made <= at:
            self._kept.append(self._encode())
            self._made += 1
        return self._kept[at - self._made]

    def _encode(self) -> bytes:
        position, message = next(self._messages)
        packet = mqtt5.PublishPacket(message.topic, message.payload, qos=QOS1, packet_id=packet_id(position))
        return packet.write()


class LongLoad(Load):
    """A load that its test ends, by :meth:`Load.finish`; it has begun at once, whatever its count."""

    module = __name__


def main() -> None:
    """Publish what the arguments say, until told to end."""
    arguments = parser().parse_args()
    plan = Plan(**{name: getattr(arguments, name) for name in PLANNED})
    publisher = Publisher(arguments.port, Packets(plan), window=arguments.window, rate=arguments.rate)
    signal.signal(signal.SIGTERM, lambda *_: publisher.finish())
    publisher.run(time.monotonic() + arguments.timeout)
    told = {
        "messages": publisher.count,
        "resent": publisher.resent,
        "reconnects": publisher.reconnects,
        "unmatched": publisher.unmatched,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
