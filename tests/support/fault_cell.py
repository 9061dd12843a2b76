"""A cell of the fault matrix: broker, databases, daemon and load, one fault, and the proof that nothing was lost.

A cell goes on as the fault asks: :meth:`Cell.start`, the fault, :meth:`Cell.recovers` once it is mended, and at the
end :meth:`Cell.prove`, which writes the row of the table whatever it finds, and then fails on anything wrong.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.support.daemon import Daemon
from tests.support.databases import Databases
from tests.support.fault_proof import Refused, Verdict, never, verdict
from tests.support.fault_table import Row
from tests.support.fault_watch import Look, Watch
from tests.support.load import Load
from tests.support.plan import TELEMETRY, Plan
from tests.support.provisioned import provision
from tests.support.servers import Mosquitto, Postgres
from tests.support.waiting import eventually
from tests.support.wire import left_in_session

MOST = 2_000_000
"""Messages of a load that goes on until the cell ends it."""
SETTLE_SECONDS = 90.0


class Combination(NamedTuple):
    """Under what a fault is tried."""

    engine: str
    transport: str
    timestamps: bool

    def __str__(self) -> str:
        return f"{self.engine}-{self.transport}-{self.timed}"

    @property
    def timed(self) -> str:
        """Whether readings carry the device's own time."""
        return "timed" if self.timestamps else "untimed"


class Cell:
    """See the module.

    Args:
        fault: as it stands in the table.
        seed: of the load; the session's.
        chance: all chance in the cell.
        record: takes the row.
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
        record: Callable[[Row], None],
    ) -> None:
        self.fault, self.combination, self.seed = fault, combination, seed
        self.broker, self.databases = broker, databases
        self.chance = chance
        self.daemon = Daemon(
            broker.port, databases, {"mqtt": {"transport": combination.transport, "keepalive": 5}}
        )
        self.daemon.configure(settings)
        self.watch = Watch(self.daemon)
        self.plan = Plan(MOST, devices=200, seed=seed, timestamps=combination.timestamps)
        self.notes: list[str] = []
        self._record = record
        self._load: Load | None = None
        self._recoveries: list[float] = []
        self._started = time.monotonic()

    @property
    def server(self) -> Postgres:
        """The database server: stop, kill, freeze it."""
        server = self.databases.server
        assert isinstance(server, Postgres), "a server that is not ours is not to be broken"
        return server

    @property
    def load(self) -> Load:
        """The load, which has been started."""
        assert self._load is not None
        return self._load

    # what goes on ---------------------------------------------------------------------------

    def start(self, *, rate: float = 1000, count: int = MOST, **plan: Any) -> None:
        """Start the daemon, then the load; without a count it goes on until :meth:`published`."""
        provision(self.databases, self.plan.serials)
        self.daemon.start()
        self.watch.start()
        self.publish(rate=rate, count=count, **plan)

    def publish(self, *, rate: float = 1000, count: int = MOST, **plan: Any) -> None:
        """Start the load; the session must exist. ``plan``: fields of :class:`Plan`."""
        # Encoded beforehand: no more than a cell can need.
        most = min(count, int(rate * 240)) if rate else count
        self.plan = dataclasses.replace(self.plan, count=most, **plan)
        self._load = Load(self.broker.port, self.plan, rate=rate, timeout=600).start()

    def stored(self, more: int, *, timeout: float = 60) -> None:
        """Wait until so many more rows are stored than now."""
        wanted = self.rows() + more
        eventually(lambda: self.rows() >= wanted, timeout=timeout, every=0.05, what=f"{wanted} rows")

    def rows(self) -> int:
        """Rows of ``telemetry`` now."""
        return self.databases.count("telemetry")

    def published(self) -> dict[str, Any]:
        """End the load; the broker has acknowledged what was published, and :attr:`plan` is that."""
        self.plan = dataclasses.replace(self.plan, count=self.load.finish())
        told = self.load.result()
        assert not told["unmatched"], f"{told['unmatched']} messages came before the subscription"
        return told

    def lasts(self, seconds: float, holds: Callable[[], None] = lambda: None) -> None:
        """The fault lasts so long; what must hold meanwhile is looked at again and again, and so is the daemon."""
        until = time.monotonic() + seconds

        def over() -> bool:
            assert self.daemon.running, f"the daemon ended:\n{self.daemon.tail()}"
            holds()
            return time.monotonic() > until

        while not over():
            time.sleep(0.05)

    def recovers(self, mend: Callable[[], object], *, timeout: float = 60) -> None:
        """Mend the fault; the daemon becomes ready and settles again, by itself. The time it takes goes into the row."""
        last = self.watch.last()
        mend()
        mended = time.monotonic()
        found = eventually(
            lambda: self.watch.recovery(mended, last), timeout=timeout, what="ready and settling again"
        )
        assert found is not None
        self._recoveries.append(found)

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

    # the end --------------------------------------------------------------------------------

    def prove(self, *, refused: Refused = never, timeout: float = SETTLE_SECONDS) -> Verdict:
        """End the load, wait until all is settled, stop the daemon, and compare.

        Rows + dead letters are the messages published, none is there twice, the books balanced at every look, the
        daemon stops cleanly, and the broker holds nothing for it.
        """
        if self.load.running or self.plan.count == MOST:
            self.published()
        wanted = self.plan.count
        eventually(lambda: self._idle(wanted), timeout=timeout, every=0.2, what=f"{wanted} messages settled")
        code = self.daemon.stop()
        self.watch.close()
        told = verdict(self.databases, self.plan, refused)
        self._record(self._row(told))
        assert told.right, told
        assert not self.watch.unbalanced(), self.watch.unbalanced()[:3]
        assert code == 0, f"the daemon ended with {code}:\n{self.daemon.tail()}"
        assert self.left_at_broker() == []
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
        """Everything is where it belongs, and the daemon holds nothing and says so twice."""
        if self.rows() + self.databases.count("dead_letters") < wanted:
            return None
        looks = self.watch.looks[-2:]
        quiet = len({(look.pid, look.settled) for look in looks}) == 1
        return looks[-1] if quiet and looks[-1].ready and not looks[-1].total["in_flight"] else None

    def _row(self, told: Verdict) -> Row:
        return Row(
            *(self.fault, self.combination.engine, self.combination.transport, self.combination.timed),
            *(told.messages, told.stored, self.watch.duplicates, told.dead_letters, told.lost, told.twice),
            round(max(self._recoveries), 1) if self._recoveries else None,
            self.seed,
            round(time.monotonic() - self._started, 1),
            ", ".join(self.notes),
        )
