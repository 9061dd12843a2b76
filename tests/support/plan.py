"""What a load publishes, and so what must be found afterwards. The seed decides all of it."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

GOOD = "good"
BAD = ("unknown_device", "malformed", "timestamp_in_future", "bad_text", "not_utf8", "device_mismatch")
"""Kinds of bad messages, named as the reasons for which they become dead letters."""
YEAR_MS = 365 * 86_400_000
TELEMETRY = "tenants/{tenant}/devices/{device}/telemetry"
"""Topic template of the streams that tests configure."""


@dataclass(frozen=True)
class Planned:
    """One message to publish. Its number is in the payload as ``seq``; only repeats share one."""

    number: int
    kind: str
    topic: str
    payload: bytes
    repeat: bool = False


@dataclass(frozen=True)
class Plan:
    """A load.

    Attributes:
        count: how many messages, repeats included.
        bad_percent: how many of them are bad.
        repeat_percent: how many publish again, later and byte for byte, a good reading with a timestamp.
        timestamps: whether readings carry the device's own time, ``start_ms`` + seq.
        message_ids: whether readings carry an id of their own, so that a publisher may send them again.
        id_round: after so many messages these ids start again, as after a device's reboot; 0: never.
        first: number of the first message; another plan may have published those before it.
    """

    count: int
    devices: int = 100
    bad_percent: float = 1.0
    repeat_percent: float = 0.0
    seed: int = 1
    timestamps: bool = True
    start_ms: int = field(default_factory=lambda: int(time.time() * 1000) - 3_600_000)
    tenant: str = "acme"
    message_ids: bool = False
    id_round: int = 0
    first: int = 0
    serials: list[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "serials", [f"LOAD-{number:06}" for number in range(self.devices)])

    def messages(self) -> Iterator[Planned]:
        """All messages, in the order in which they are published."""
        chance = random.Random(self.seed)
        latest: Planned | None = None
        for number in range(self.first, self.first + self.count):
            draw = chance.random() * 100
            if draw < self.bad_percent:
                yield self._bad(number, BAD[chance.randrange(len(BAD))])
            elif latest is not None and draw < self.bad_percent + self.repeat_percent:
                yield Planned(latest.number, GOOD, latest.topic, latest.payload, repeat=True)
            else:
                latest = self._good(number)
                yield latest

    def expected(self) -> Expected:
        """What must be in the tables when all is settled."""
        messages = list(self.messages())
        return Expected(
            stored=sorted(m.number for m in messages if m.kind == GOOD and not m.repeat),
            repeats=sum(m.repeat for m in messages),
            dead=Counter(m.kind for m in messages if m.kind != GOOD),
            dead_payloads=Counter(m.payload for m in messages if m.kind != GOOD),
        )

    def arguments(self) -> list[str]:
        """The plan for the command line of ``tests.support.load``."""
        return [
            *("--count", str(self.count), "--devices", str(self.devices), "--seed", str(self.seed)),
            *("--bad-percent", str(self.bad_percent), "--repeat-percent", str(self.repeat_percent)),
            *("--start-ms", str(self.start_ms), "--tenant", self.tenant, "--first", str(self.first)),
            *("--id-round", str(self.id_round)),
            "--with-timestamps" if self.timestamps else "--without-timestamps",
            *(["--message-ids"] if self.message_ids else []),
        ]

    def _good(self, number: int) -> Planned:
        serial = self.serials[number % self.devices]
        return Planned(number, GOOD, self._topic(serial), self._reading(number, self.start_ms + number))

    def _bad(self, number: int, kind: str) -> Planned:
        serial = f"GHOST-{number % 9}" if kind == "unknown_device" else self.serials[number % self.devices]
        ahead = YEAR_MS if kind == "timestamp_in_future" else 0
        payload = self._reading(number, self.start_ms + number + ahead, always_timed=bool(ahead))
        return Planned(number, kind, self._topic(serial), _spoiled(payload, kind))

    def _topic(self, serial: str) -> str:
        return TELEMETRY.format(tenant=self.tenant, device=serial)

    def _reading(self, number: int, ts: int, *, always_timed: bool = False) -> bytes:
        metrics = {"seq": number, "temperature": 20 + number % 100 / 10, "vibration": number % 77 / 8}
        timed = {"ts": ts} if self.timestamps or always_timed else {}
        named = {"message_id": f"m{number % (self.id_round or sys.maxsize)}"} if self.message_ids else {}
        return json.dumps({**timed, **named, "metrics": metrics}).encode()


@dataclass(frozen=True)
class Expected:
    """The end of a load.

    Attributes:
        stored: ``seq`` of every row of ``telemetry``, sorted.
        repeats: how many messages are copies of stored ones.
        dead: dead letters by reason.
        dead_payloads: payload of every dead letter.
    """

    stored: list[int]
    repeats: int
    dead: Counter[str]
    dead_payloads: Counter[bytes]


def _spoiled(payload: bytes, kind: str) -> bytes:
    match kind:
        case "malformed":
            return payload[:-4]
        case "bad_text":
            return payload[:-2] + b', "note": "a\\u0000b"}}'
        case "not_utf8":
            return payload[:-2] + b', "note": "\xff"}}'
        case "device_mismatch":
            return payload[:-1] + b', "serial_number": "SOMEBODY-ELSE"}'
    return payload
