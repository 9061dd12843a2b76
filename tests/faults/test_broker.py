"""The broker restarts, is killed, and forgets."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

COUNT = 30_000 if ALL else 8_000
TIMES = 10 if ALL else 2
MORE = 200
SLOW = 0.005
"""Seconds that each row takes until the last fault: the backlog lasts some times longer than all faults take."""
SMALL = {"batch": {"max_rows": 200}}


def backlog(cell: FaultCell, **plan: Any) -> None:
    """The broker holds the whole load in the session: from here on nobody publishes.

    So all copies that come are the broker's own: a publisher that sends again what the broker did not acknowledge
    makes new messages, which nobody can tell from readings.
    """
    cell.slow(SLOW, "ROW")
    cell.subscribe()
    cell.publish(count=COUNT, **plan)
    cell.published(early=False)


def goes_on(cell: FaultCell) -> None:
    """It stores, or tells copies of what is stored: all that was in flight may come again first."""

    def ended() -> int:
        return cell.watch.ended("stored") + cell.watch.ended("duplicate")

    wanted = ended() + MORE
    eventually(lambda: ended() >= wanted, timeout=60, what=f"{wanted} messages settled")


def test_restarted(make_cell: MakeCell) -> None:
    """Stopped and started while it delivers: it keeps the session, and sends again what was not acknowledged."""
    cell = make_cell(f"broker restart, {TIMES} times while it delivers", SMALL, max_inflight=100)
    backlog(cell)
    cell.daemon.start()
    for _ in range(TIMES):
        goes_on(cell)
        cell.broker.stop()
        cell.unready("mqtt", state="waiting")
        cell.recovers(cell.broker.start)
    cell.slow(0)
    cell.prove()


def test_killed(make_cell: MakeCell) -> None:
    """Killed (-9): it goes back to what it saved, and sends again what was acknowledged since.

    Those copies come as if they were new. Readings with a time meet themselves; readings without one carry an id.
    """
    cell = make_cell(f"broker kill -9, {TIMES} times while it delivers", SMALL, max_inflight=100, autosave=0)
    backlog(cell, message_ids=not cell.combination.timestamps, bad_percent=0)
    saved = cell.broker.folder / "mosquitto.db"
    cell.broker.signal(signal.SIGUSR1)
    eventually(lambda: saved.stat().st_size > 50 * COUNT, what="the broker has saved its sessions")
    cell.daemon.start()
    for _ in range(TIMES):
        goes_on(cell)
        cell.broker.kill()
        cell.unready("mqtt", state="waiting")
        cell.recovers(cell.broker.start)
    cell.slow(0)
    cell.prove()


def test_session_lost(make_cell: MakeCell) -> None:
    """A broker without persistence forgets us: what we hold is stored all the same, and we subscribe anew.

    What it had not delivered is gone with it, so everything has been delivered here, and nothing is settled yet.
    """
    cell = make_cell("broker killed without persistence", max_inflight=0)
    cell.start()
    cell.stored(500)
    cell.server.suspend()
    eventually(lambda: cell.daemon.total()["in_flight"] > 500, what="messages are held")
    cell.published()
    eventually(lambda: cell.daemon.total()["received"] == cell.messages, what="all is delivered")
    cell.broker.kill()
    (cell.broker.folder / "mosquitto.db").unlink(missing_ok=True)
    cell.broker.start()
    cell.recovers(cell.server.resume, noticed=lambda look: look.figures["reconnects"] > 0)
    told = cell.logged("mqtt connected")
    assert [line["session_present"] for line in told] == [False, False]
    cell.publish(count=2000)
    cell.published(early=False)
    cell.prove()
