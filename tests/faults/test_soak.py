"""Half the top speed for a long time, with a fault every 20 s: run by ``make soak`` alone, for ``MINUTES=``.

In its second half the daemon itself is left alone, so that one life of it meets many faults: what it takes at the end
of that life is compared with what it took at its beginning.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from tests.faults.conftest import SOAK_MINUTES, MakeCell
from tests.faults.test_database_away import OURS
from tests.support.fault_cell import FaultCell
from tests.support.fault_watch import Look
from tests.support.sql import execute
from tests.support.waiting import eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.soak]

EVERY = 20.0
TOP_SECONDS = 15
WARM = 0.2
"""Share of a life before which its memory is not looked at: caches and pools fill."""
MEMORY_GROWTH, MEMORY_SLACK = 1.1, 8 * 2**20
FEW = 2
"""Descriptors and tasks that may be more for a reason: a second connection of a pool."""


class Soak:
    """The faults, done to a cell whose load goes on at a given rate."""

    def __init__(self, cell: FaultCell, rate: float) -> None:
        self.cell, self.rate = cell, rate

    def publish(self) -> None:
        """Go on with the load."""
        self.cell.publish(rate=self.rate, timeout=3600 + 60 * SOAK_MINUTES)

    def daemon_killed(self) -> None:
        """And started at once."""
        self.cell.daemon.kill()
        self.cell.recovers(self.cell.daemon.launch)

    def daemon_stopped(self) -> None:
        """In order; nothing is left unsettled."""
        assert self.cell.daemon.stop() == 0
        self.cell.recovers(self.cell.daemon.start)

    def database_stopped(self) -> None:
        """Fast stop, for as long as it takes to spool."""
        self.cell.server.stop()
        self.cell.lasts(self.cell.chance.uniform(1, 8))
        self.cell.recovers(self.cell.server.start)

    def database_killed(self) -> None:
        """Kill -9; recovery from its log follows."""
        self.cell.server.kill()
        self.cell.lasts(self.cell.chance.uniform(0, 5))
        self.cell.recovers(self.cell.server.start)

    def database_hangs(self) -> None:
        """It answers nothing, and commits later what it was sent."""
        self.cell.server.suspend()
        self.cell.lasts(self.cell.chance.uniform(1, 8))
        self.cell.recovers(self.cell.server.resume)

    def sessions_killed(self) -> None:
        """Again and again."""
        self.cell.lasts(3, lambda: execute(self.cell.server.dsn(), OURS))
        self.cell.recovers(lambda: None)

    def broker_restarted(self) -> None:
        """While it delivers. Nobody publishes: a publisher that sends again makes new messages."""
        self.cell.published()
        self.cell.broker.stop()
        self.cell.recovers(self.broker_back)

    def broker_killed(self) -> None:
        """When it has saved all that it knows: what it forgets is lost, whoever is connected to it."""
        self.cell.published()
        self.cell.all_settled()
        saved = self.cell.broker.folder / "mosquitto.db"
        before = saved.stat().st_mtime_ns if saved.exists() else 0
        self.cell.broker.signal(signal.SIGUSR1)
        eventually(
            lambda: saved.exists() and saved.stat().st_mtime_ns > before,
            what="the broker has saved its sessions",
        )
        self.cell.broker.kill()
        self.cell.recovers(self.broker_back)

    def broker_back(self) -> None:
        """With a load."""
        self.cell.broker.start()
        self.publish()

    def goes_on(self, faults: Sequence[Callable[[], None]], seconds: float) -> Counter[str]:
        """One of these faults every 20 s, by chance; how often each was done."""
        done: Counter[str] = Counter()
        next_at = time.monotonic()
        until = next_at + seconds
        while (next_at := next_at + EVERY) < until:
            self.cell.lasts(max(1.0, next_at - time.monotonic()))
            fault = self.cell.chance.choice(faults)
            done[fault.__name__.replace("_", " ")] += 1
            fault()
        return done


def test_soak(make_cell: MakeCell) -> None:
    """Nothing lost, nothing twice; memory is flat, and no descriptors or tasks are leaked."""
    cell = make_cell(f"soak, {SOAK_MINUTES:g} min, a fault every {EVERY:g} s", autosave=0)
    cell.daemon.configure({"spool": {"folder": cell.daemon.folder / "spool"}})
    soak = Soak(cell, top_speed(cell) / 2)
    soak.publish()
    others = [soak.database_stopped, soak.database_killed, soak.database_hangs, soak.sessions_killed]
    others += [soak.broker_restarted, soak.broker_killed]
    done = soak.goes_on([*others, soak.daemon_killed, soak.daemon_stopped], 30 * SOAK_MINUTES)
    soak.daemon_stopped()
    began = time.monotonic()
    done += soak.goes_on(others, 30 * SOAK_MINUTES)
    cell.notes += [
        f"{soak.rate:.0f} messages/s",
        ", ".join(f"{what} {count}" for what, count in done.items()),
    ]
    grown = growth(cell, [look for look in cell.watch.looks if look.at > began])
    cell.prove(timeout=300 + 30 * SOAK_MINUTES)
    assert grown == []


def top_speed(cell: FaultCell) -> float:
    """Messages a second that are stored while the publisher goes as fast as it can; then all is settled."""
    cell.start_long_ago(rate=0)
    cell.stored(1000)
    before, began = cell.watch.ended("stored"), time.monotonic()
    cell.lasts(TOP_SECONDS)
    speed = (cell.watch.ended("stored") - before) / (time.monotonic() - began)
    cell.published()
    cell.all_settled(timeout=300)
    return speed


def growth(cell: FaultCell, looks: Sequence[Look]) -> list[str]:
    """What one life takes more of in its second half than in its first; also notes what it took."""
    assert len({look.pid for look in looks}) == 1, "the daemon did not live through it"
    looks = looks[int(WARM * len(looks)) :]
    early, late = looks[: len(looks) // 2], looks[len(looks) // 2 :]
    memory = [max(look.memory for look in half) for half in (early, late)]
    descriptors = [statistics.median(look.descriptors for look in half) for half in (early, late)]
    tasks = [statistics.median(look.figures["tasks"] for look in half) for half in (early, late)]
    cell.notes.append(f"memory {memory[0] / 2**20:.0f} then {memory[1] / 2**20:.0f} MiB")
    cell.notes.append(f"descriptors {descriptors[0]:g} then {descriptors[1]:g}")
    cell.notes.append(f"tasks {tasks[0]:g} then {tasks[1]:g}")
    grown = {
        "memory": memory[1] > memory[0] * MEMORY_GROWTH + MEMORY_SLACK,
        "descriptors": descriptors[1] > descriptors[0] + FEW,
        "tasks": tasks[1] > tasks[0] + FEW,
    }
    return [what for what, grew in grown.items() if grew]
