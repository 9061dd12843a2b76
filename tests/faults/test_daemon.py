"""The daemon itself is killed and stopped under load."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_acks import LostAcks
from tests.support.fault_cell import FaultCell
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

KILLS = 50 if ALL else 8
STOPS = 10 if ALL else 3
DEADLINE = 5.0
LIVES = 4
BACKLOG = 40_000
"""Messages in flight; a life receives nearly all of them before it is killed."""
IN_STEPS = {"batch": {"max_rows": 1000}, "buffer": {"max_bytes": "256MiB"}}


def test_killed_at_random_moments(make_cell: MakeCell) -> None:
    """Killed (-9) under load, some time after it began to settle or while it starts; started again at once."""
    cell = make_cell(f"daemon kill -9, {KILLS} times")
    cell.start()
    cell.stored(200)
    for _ in range(KILLS):
        cell.daemon.kill()
        if cell.chance.random() < 0.5:
            cell.recovers(cell.daemon.launch)
            time.sleep(cell.chance.uniform(0, 0.3))
        else:
            cell.daemon.launch()
            time.sleep(cell.chance.uniform(0, 1.2))
        assert cell.load.running
    cell.daemon.kill()
    cell.recovers(cell.daemon.start)
    cell.prove()


def test_killed_before_its_acknowledgements_arrive(make_cell: MakeCell) -> None:
    """Killed (-9) again and again with much in flight, all of which comes again each time.

    What the earliest life stored is known to the last, although more messages were received than there are packet ids.
    """
    cell = make_cell(f"daemon kill -9, {LIVES} times, acknowledgements lost", IN_STEPS, max_inflight=0)
    with LostAcks(cell.broker.port) as proxy:
        cell.by_way_of(broker=proxy)
        cell.subscribe()
        cell.publish(count=BACKLOG)
        cell.published(early=False)
        cell.slow(0.3)
        proxy.losing = True
        for _ in range(LIVES):
            cell.daemon.launch()
            cell.stored(3000)
            cell.daemon.kill()
        proxy.losing = False
        cell.slow(0)
        cell.recovers(cell.daemon.start)
        cell.prove()


def test_stopped(make_cell: MakeCell) -> None:
    """SIGTERM under load: exit code 0 within the deadline, each time, and nothing is delivered in vain."""
    cell = make_cell(f"daemon SIGTERM, {STOPS} times", {"shutdown": {"deadline": DEADLINE}})
    cell.start()
    for _ in range(STOPS):
        cell.stored(1000)
        started = time.monotonic()
        assert cell.daemon.stop() == 0
        assert time.monotonic() - started < DEADLINE
        cell.recovers(cell.daemon.start)
    cell.prove()


def held(cell: FaultCell) -> None:
    """The database hangs, and the daemon holds what it cannot write."""
    cell.start()
    cell.stored(500)
    cell.server.suspend()
    eventually(lambda: cell.daemon.total()["in_flight"] > 500, what="messages are held")
    cell.daemon.signal(signal.SIGTERM)
    eventually(lambda: cell.daemon.ready()[1]["stopping"], what="it says that it is stopping")


def test_a_deadline_that_passes(make_cell: MakeCell) -> None:
    """SIGTERM while the database hangs: at the deadline it ends with 5; what was held comes again."""
    cell = make_cell("daemon SIGTERM, database hangs", {"shutdown": {"deadline": DEADLINE}})
    started = time.monotonic()
    held(cell)
    assert cell.daemon.wait(DEADLINE + 6) == 5
    assert time.monotonic() - started > DEADLINE
    cell.server.resume()
    cell.recovers(cell.daemon.start)
    cell.prove()


def test_a_second_signal(make_cell: MakeCell) -> None:
    """A second SIGTERM ends it at once with 5, whatever the deadline; what was held comes again."""
    cell = make_cell("daemon second SIGTERM, database hangs", {"shutdown": {"deadline": "10min"}})
    held(cell)
    started = time.monotonic()
    cell.daemon.signal(signal.SIGTERM)
    assert cell.daemon.wait(10) == 5
    assert time.monotonic() - started < 6
    cell.server.resume()
    cell.recovers(cell.daemon.start)
    cell.prove()
