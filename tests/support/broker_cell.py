"""One cell of the broker matrix: a broker, the daemon, a publisher, and a plain consumer that suffers the same."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

from tests.support import reference
from tests.support.broker_table import BrokerCellRow
from tests.support.brokers import V5, AnyBroker
from tests.support.daemon import Daemon
from tests.support.databases import Databases
from tests.support.fault_acks import LostAcks
from tests.support.provisioned import provision
from tests.support.reference import Reference
from tests.support.sql import locked
from tests.support.waiting import eventually

Kind = Literal["timed", "untimed", "equal"]
PROTOCOLS = {V5: "5", 4: "3.1.1"}
QUIET_SECONDS = 0.7
"""What has not changed for so long will not: brokers and daemon are on loopback."""
SETTLE_SECONDS = 12.0


class BrokerCell:
    """All but the daemon runs when it is made.

    Args:
        level: of the protocol that gateway, consumer and publisher speak.
        place: first part of the topics, of this cell alone.
        kind: whether readings carry a time, or are all of the same bytes.

    Attributes:
        published: messages so far.
        notes: what else was seen; goes into the table.
    """

    def __init__(
        self,
        name: str,
        broker: AnyBroker,
        databases: Databases,
        level: int,
        *,
        place: str,
        kind: Kind = "untimed",
        settings: Mapping[str, Any] | None = None,
        record: Callable[[BrokerCellRow], None],
    ) -> None:
        self.name, self.broker, self.databases, self.level = name, broker, databases, level
        self.place, self.kind, self._record = place, kind, record
        self.published = 0
        self.notes: list[str] = []
        self._started = time.monotonic()
        self.proxy = LostAcks(broker.port_of(level))
        login = dict(zip(("username", "password"), broker.login or (), strict=False))
        own = {
            "mqtt": {"protocol": PROTOCOLS[level], "refused_retry": "1s", **login},
            "streams": [{"name": "telemetry", "topic": f"{place}/{{tenant}}/{{device}}"}],
        }
        own["mqtt"] |= (settings or {}).get("mqtt", {})
        self.proxy.__enter__()
        self.daemon = Daemon(self.proxy.port, databases, own)
        self.reference = Reference(broker.port_of(level), f"{place}/#", version=level, login=broker.login)
        provision(databases, ["S-1"])

    def start(self) -> None:
        """The daemon and the consumer, with sessions of their own."""
        self.reference.connect()
        self.daemon.start()

    def publish(self, count: int, place: str | None = None) -> None:
        """So many messages; returns when the broker has them."""
        first, self.published = self.published, self.published + count
        messages = [
            (f"{place or self.place}/acme/S-1", self._payload(number))
            for number in range(first, self.published)
        ]
        reference.publish(
            self.broker.port_of(self.level), messages, version=self.level, login=self.broker.login
        )

    @contextmanager
    def publishing(self, count: int) -> Iterator[None]:
        """So many messages while the block runs."""
        with ThreadPoolExecutor(1) as thread:
            sent = thread.submit(self.publish, count)
            yield
            sent.result()

    def _payload(self, number: int) -> bytes:
        if self.kind == "equal":
            return b'{"door":"closed"}'
        values: dict[str, Any] = {"seq": number}
        if self.kind == "timed":
            values = {"ts": 1_700_000_000_000 + number, "metrics": values}
        return json.dumps(values).encode()

    def rows(self) -> int:
        """Rows of ``telemetry`` now."""
        return self.databases.count("telemetry")

    def settled(self) -> None:
        """All that was published is stored and acknowledged, or nothing moves any more."""
        try:
            eventually(
                lambda: self.rows() >= self.published and self._idle(), timeout=SETTLE_SECONDS, every=0.1
            )
        except AssertionError:
            still(self.rows)

    def acknowledgements_lost(self, count: int) -> None:
        """So many messages are published; what of them is delivered is stored, and the broker reads no acks."""
        self.proxy.losing = self.reference.holding = True
        self.publish(count)
        eventually(lambda: self.reference.holding and self.reference.held, what="the consumer has something")
        still(self.rows)

    def in_flight(self, count: int) -> None:
        """So many messages are published; nothing is stored of what the daemon receives. Then it is killed."""
        before = self.daemon.total()["received"]
        self.reference.holding = True
        with locked(self.databases.timeseries_dsn, "telemetry", "dead_letters"):
            self.publish(count)
            eventually(lambda: self.daemon.total()["received"] > before, what="something is in flight")
            still(lambda: self.daemon.total()["received"])
            self.daemon.kill()

    def cut(self) -> None:
        """The daemon's connection breaks (RST); returns when it has another, and what comes again has come."""
        before = len(self._protocols())
        self.proxy.losing = False  # for the next connection; this one stays deaf
        self.proxy.cut()
        eventually(lambda: len(self._protocols()) > before, timeout=20, what="connected again")
        still(lambda: self.daemon.total()["received"])

    def back(self) -> None:
        """The consumer connects again, and acknowledges."""
        self.proxy.losing = False
        self.reference.drop()
        self.reference.holding = False
        self.reference.connect()

    def prove(self, *, twice: int = 0, lost: int = 0) -> BrokerCellRow:
        """Wait for the end, count rows, and compare with what the consumer saw.

        Args:
            twice: rows beyond one a message that are allowed, since with this broker it cannot be known.
            lost: messages that the broker is known to lose; the consumer must have lost as many.
        """
        self.settled()
        late = max(QUIET_SECONDS, self.broker.late)
        still(lambda: self.rows() + len(self.reference.deliveries), quiet=late)
        missing, surplus = self._compared()
        row = BrokerCellRow(
            *(self.broker.title, self.broker.version(), self.level, self.name),
            messages=self.published,
            rows=self.rows(),
            lost=missing,
            twice=surplus,
            reference_lost=self.reference.lost(self.published, equal=self.kind == "equal"),
            reference_again=0 if self.kind == "equal" else self.reference.again(),
            seconds=round(time.monotonic() - self._started, 1),
            note=", ".join(self.notes),
        )
        self._record(row)
        assert missing <= max(lost, row.reference_lost) or not self.broker.keeps, row
        assert surplus <= max(twice, row.reference_again), row
        assert not self.databases.count("dead_letters"), row
        return row

    def protocol(self) -> str:
        """Of the daemon's last connection."""
        return self._protocols()[-1]

    def _protocols(self) -> list[str]:
        """Of all its connections, as it logged."""
        lines = [json.loads(line) for line in self.daemon.tail(2**20).splitlines() if line.startswith("{")]
        return [line["protocol"] for line in lines if line["event"] == "mqtt connected"]

    def tells(self, answer: str, habits: Mapping[str, str] | None = None) -> None:
        """A row without messages: what was seen."""
        self._record(
            BrokerCellRow(
                *(self.broker.title, self.broker.version(), self.level, self.name),
                seconds=round(time.monotonic() - self._started, 1),
                note=answer,
                habits=dict(habits or {}),
            )
        )

    def close(self) -> None:
        """End all that was started here; sessions stay at the broker, on topics that nobody uses again."""
        self.daemon.close()
        self.reference.close()
        self.proxy.__exit__()

    def _idle(self) -> bool:
        return not self.daemon.running or not self.daemon.total()["in_flight"]

    def _compared(self) -> tuple[int, int]:
        """Messages without a row, and rows beyond one a message."""
        if self.kind == "equal":
            missing = self.published - self.rows()
            return max(missing, 0), max(-missing, 0)
        rows = self.databases.timeseries("SELECT (data->>'seq')::int AS seq FROM telemetry")
        found = Counter(row["seq"] for row in rows)
        expected = Counter(range(self.published))
        return (expected - found).total(), (found - expected).total()


def still(probe: Callable[[], int], *, quiet: float = QUIET_SECONDS, timeout: float = 30) -> int:
    """The value, once it has not changed for so many seconds."""
    seen = [(probe(), time.monotonic())]

    def unchanged() -> bool:
        if (found := probe()) != seen[0][0]:
            seen[0] = (found, time.monotonic())
        return time.monotonic() - seen[0][1] > quiet

    eventually(unchanged, timeout=timeout, every=0.05, what="nothing moves any more")
    return seen[0][0]
