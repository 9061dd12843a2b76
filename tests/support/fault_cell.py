"""A cell of the fault matrix: broker, databases, daemon and load, one fault, and the proof that nothing was lost.

A cell goes on as the fault asks: :meth:`FaultCell.start`, the fault, :meth:`FaultCell.recovers` once it is mended,
and at the end :meth:`FaultCell.prove`, which writes the row of the table whatever it finds, and then fails on faults.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tests.support.daemon import Daemon
from tests.support.databases import Databases
from tests.support.fault_load import LongLoad
from tests.support.fault_proof import Refused, Verdict, never, verdict
from tests.support.fault_table import FaultCellRow
from tests.support.fault_watch import Look, Watch
from tests.support.netns import BadLine
from tests.support.plan import TELEMETRY, Plan
from tests.support.provisioned import provision
from tests.support.proxy import Proxy
from tests.support.servers import Mosquitto, Postgres
from tests.support.sql import execute
from tests.support.waiting import eventually
from tests.support.wire import left_in_session

MOST = 10**8
"""Messages of a load that its cell ends."""
LOAD_SECONDS = 600.0
"""After which a load gives up."""
SETTLE_SECONDS = 90.0
HALF_A_DAY_MS = 43_200_000
SLEEP = """
CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$
"""
SLOW = "CREATE TRIGGER slow BEFORE INSERT ON telemetry FOR EACH {each} EXECUTE FUNCTION slow()"


class Combination(NamedTuple):
    """Under what a fault is tried."""

    engine: str
    protocol: str
    timestamps: bool

    def __str__(self) -> str:
        return f"{self.engine}-mqtt{self.protocol}-{self.timed}"

    @property
    def timed(self) -> str:
        """Whether readings carry the device's own time."""
        return "timed" if self.timestamps else "untimed"


class FaultCell:
    """See the module.

    Args:
        fault: as it stands in the table.
        seed: of the load; the session's.
        chance: all chance in the cell.
        record: takes the row.

    Attributes:
        left: what the broker still holds at the end; :meth:`left_at_broker`, unless the cell has another broker.
    """

    def __init__(
        self,
        fault: str,
        combination: Combination,
        *,
        seed: int,
        chance: random.Random,
        broker: Mosquitto,
        databases: Databases,
        settings: Mapping[str, Any],
        record: Callable[[FaultCellRow], None],
    ) -> None:
        self.fault, self.combination, self.seed = fault, combination, seed
        self.broker, self.databases = broker, databases
        self.chance = chance
        self.daemon = Daemon(
            broker.port, databases, {"mqtt": {"protocol": combination.protocol, "keepalive": 5}}
        )
        self.daemon.configure(settings)
        self.watch = Watch(self.daemon)
        self.plans: list[Plan] = []
        self.notes: list[str] = []
        self.left: Callable[[], Sequence[Any]] = self.left_at_broker
        self._record = record
        self._plan = Plan(0, devices=200, seed=seed, timestamps=combination.timestamps)
        self._load: LongLoad | None = None
        self._recoveries: list[float] = []
        self._slowed = False
        self._started = time.monotonic()

    @property
    def server(self) -> Postgres:
        """The database server: stop, kill, freeze it."""
        server = self.databases.server
        assert isinstance(server, Postgres), "a server that is not ours is not to be broken"
        return server

    @property
    def load(self) -> LongLoad:
        """The load, which has been started."""
        assert self._load is not None
        return self._load

    # what goes on ---------------------------------------------------------------------------

    def start(self, *, rate: float = 1000, **plan: Any) -> None:
        """Start the daemon, then a load that goes on until :meth:`published`; ``plan``: fields of :class:`Plan`."""
        self.begin()
        self.publish(rate=rate, **plan)

    def start_long_ago(self, *, rate: float = 1000) -> None:
        """:meth:`start` for millions of messages: device times go on by 1 ms a message, and must not overtake us."""
        self.start(rate=rate, start_ms=int(time.time() * 1000) - HALF_A_DAY_MS)

    def begin(self, serials: Sequence[str] | None = None) -> None:
        """Start the daemon, and no load; ``serials``: the devices, those of the plan by default."""
        provision(self.databases, self._plan.serials if serials is None else serials)
        self.daemon.start()
        self.watch.start()

    def subscribe(self) -> None:
        """Leave a session at the broker, in which messages collect: the daemon is started and stopped."""
        provision(self.databases, self._plan.serials)
        self.daemon.start()
        assert self.daemon.stop() == 0
        self.watch.start()

    def publish(
        self, *, rate: float = 0, count: int | None = None, timeout: float = LOAD_SECONDS, **plan: Any
    ) -> None:
        """Start a load, after the one before; the session must exist. Without a count it goes on."""
        if self._load is not None:
            self.published()
        most = MOST if count is None else count
        first = self.messages
        self._plan = dataclasses.replace(self._plan, first=first, count=most, **plan)
        self._load = LongLoad(self.broker.port, self._plan, rate=rate, timeout=timeout).start()

    def published(self, *, early: bool = True) -> None:
        """See the load to its end, now or in its own time; the broker has acknowledged all of it."""
        load, self._load = self._load, None
        assert load is not None
        try:
            count = load.finish() if early else load.result()["messages"]
            assert not load.result()["unmatched"], "messages came before the subscription"
            self.plans.append(dataclasses.replace(self._plan, count=count))
        finally:
            load.close()

    @property
    def messages(self) -> int:
        """How many were published by loads that have ended."""
        return sum(plan.count for plan in self.plans)

    def by_way_of(
        self,
        *,
        broker: Proxy | None = None,
        database: Proxy | None = None,
        metadata: Proxy | None = None,
    ) -> None:
        """Have the daemon connect through these proxies, in clear text; before it is started."""
        if broker is not None:
            self.daemon.configure({"mqtt": {"host": broker.host, "port": broker.port}})
        for name, dsn, proxy in (
            ("metadata", self.databases.metadata_dsn, metadata or database),
            ("timeseries", self.databases.timeseries_dsn, database),
        ):
            if proxy is not None:
                server, there = f"@127.0.0.1:{self.server.port}/", f"@{proxy.host}:{proxy.port}/"
                ours = f"{dsn.replace(server, there)}?sslmode=disable"
                self.daemon.configure({"databases": {name: {"dsn": ours}}})

    def on(self, line: BadLine) -> None:
        """Have the daemon run on the other host; before it is started."""
        self.daemon.prefix, self.daemon.host = line.inside(), line.aside
        self.daemon.configure({"observability": {"listen": line.aside}})

    def stored(self, more: int, *, timeout: float = 60) -> None:
        """Wait until so many more messages are stored than now, as the daemon counts them."""
        wanted = self.watch.ended("stored") + more
        eventually(
            lambda: self.watch.ended("stored") >= wanted, timeout=timeout, what=f"{wanted} messages stored"
        )

    def rows(self) -> int:
        """Rows of ``telemetry`` now."""
        return self.databases.count("telemetry")

    def slow(self, seconds: float, each: Literal["ROW", "STATEMENT"] = "STATEMENT") -> None:
        """From now on each row, or statement, that is written into ``telemetry`` takes so long; 0: no more.

        ``each``: of the first call.
        """
        execute(self.databases.timeseries_dsn, SLEEP.format(seconds=seconds))
        if seconds and not self._slowed:
            execute(self.databases.timeseries_dsn, SLOW.format(each=each))
            self._slowed = True
        # The trigger stays: to drop it takes locks for which it and a COPY under way may wait for each other.

    def lasts(self, seconds: float, holds: Callable[[], None] = lambda: None) -> None:
        """The fault lasts so long; what must hold meanwhile is looked at again and again, and so is the daemon."""
        until = time.monotonic() + seconds

        def over() -> bool:
            assert self.daemon.running, f"the daemon ended:\n{self.daemon.tail()}"
            holds()
            return time.monotonic() > until

        while not over():
            time.sleep(0.05)

    def recovers(
        self,
        mend: Callable[[], object],
        *,
        noticed: Callable[[Look], bool] = lambda _look: True,
        timeout: float = 60,
    ) -> None:
        """Mend the fault; the daemon is ready and settles again by itself; the time that takes goes into the row.

        Args:
            noticed: what must have been seen as well, where the daemon goes on for a while before it notices.
        """
        last = self.watch.last()
        mend()
        mended = time.monotonic()

        def recovered() -> float:
            found = self.watch.recovery(mended, last, noticed)
            assert found is not None, f"not ready, or nothing settled: {self.daemon.status()}"
            return found

        self._recoveries.append(eventually(recovered, timeout=timeout, what="ready and settling again"))

    def unready(self, component: str, *words: str, state: str | None = None, timeout: float = 20) -> None:
        """Wait until ``/ready`` is 503 and this component says why, in these words."""

        def says() -> bool:
            code, body = self.daemon.ready()
            found = body["components"][component]
            return (
                code == 503
                and (state is None or found["state"] == state)
                and all(word in found["detail"] for word in words)
            )

        eventually(says, timeout=timeout, what=f"{component} {state or 'unready'}, naming {words}")

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The daemon's log lines of this event with these fields, over all its lives."""
        lines = [json.loads(line) for line in self.daemon.tail(2**30).splitlines() if line.startswith("{")]
        return [
            line
            for line in lines
            if line.get("event") == event and all(line.get(name) == value for name, value in fields.items())
        ]

    def all_settled(self, *, lost: int = 0, timeout: float = SETTLE_SECONDS) -> None:
        """Wait until all that was published is in the tables, and the daemon holds nothing; no load may run."""
        wanted = self.messages - lost
        every = max(0.2, wanted / 10**6)  # to count takes its time
        eventually(
            lambda: self._idle(wanted), timeout=timeout, every=every, what=f"{wanted} messages settled"
        )

    def quiet(self, least: int = 0, *, timeout: float = SETTLE_SECONDS) -> None:
        """Wait until so many messages are in the tables, and the daemon and its spool hold nothing."""
        eventually(lambda: self._idle(least), timeout=timeout, every=0.2, what=f"{least} messages settled")

    # the end --------------------------------------------------------------------------------

    def prove(self, *, refused: Refused = never, lost: int = 0, timeout: float = SETTLE_SECONDS) -> Verdict:
        """End the load, wait until all is settled, stop the daemon, and compare.

        Rows + dead letters are the messages published, none is there twice, the books balanced at every look, the
        daemon stops cleanly, and the broker holds nothing for it.

        Args:
            refused: see :func:`tests.support.fault_proof.verdict`.
            lost: messages that a disk lost after they were durable: so many, and no more.
        """
        if self._load is not None:
            self.published()
        self.all_settled(lost=lost, timeout=timeout)
        return self.end(lambda: verdict(self.databases, self.plans, refused), lost=lost)

    def end(self, judge: Callable[[], Verdict], *, lost: int = 0) -> Verdict:
        """All is settled: stop the daemon and compare, as :meth:`prove` does, but by this judgement."""
        code = self.daemon.stop()
        self.watch.close()
        told = judge()
        self._record(self._row(told, destroyed=lost))
        assert told.right(lost), told
        assert not self.watch.unbalanced(), self.watch.unbalanced()[:3]
        assert code == 0, f"the daemon ended with {code}:\n{self.daemon.tail()}"
        assert self.left() == []
        assert not self.logged("defect"), self.logged("defect")[:3]
        return told

    def left_at_broker(self) -> list[Any]:
        """What the broker still holds for the daemon, which must have ended."""
        topic = TELEMETRY.format(tenant="nobody", device="marker")
        return left_in_session(self.broker.port, self.daemon.client_id, topic)

    def close(self) -> None:
        """End all that was started here."""
        self.watch.close()
        for process in (self._load, self.daemon):
            if process is not None:
                process.close()

    def _idle(self, wanted: int) -> Look | None:
        """So many are somewhere, and the daemon holds nothing and says so twice."""
        if self.rows() + self.databases.count("dead_letters") < wanted:
            return None
        looks = self.watch.looks[-2:]
        quiet = len({(look.pid, look.settled) for look in looks}) == 1
        last = looks[-1]
        spooled = last.figures["spool_messages"] if self.daemon.has_spool else 0
        held = last.total["in_flight"] or spooled
        return last if quiet and last.ready and not held else None

    def _row(self, told: Verdict, *, destroyed: int) -> FaultCellRow:
        return FaultCellRow(
            *(self.fault, self.combination.engine, self.combination.protocol, self.combination.timed),
            *(
                told.messages,
                told.stored,
                self.watch.ended("duplicate"),
                told.dead_letters,
                told.lost,
                told.twice,
            ),
            round(max(self._recoveries), 1) if self._recoveries else None,
            self.seed,
            round(time.monotonic() - self._started, 1),
            ", ".join(self.notes),
            destroyed,
        )
