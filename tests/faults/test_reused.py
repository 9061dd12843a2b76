"""Packet ids and counters that come again: what only looks like a redelivery is stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.fault_equal import SERIAL, Equal
from tests.support.plan import TELEMETRY
from tests.support.session_broker import AEDES, HIVEMQ, LOWEST_FREE, MOSQUITTO, RABBITMQ, SessionBroker
from tests.support.waiting import eventually
from tests.support.wire import Wire

ROUNDS = 10 if ALL else 2
IN_FLIGHT = 8
EQUAL = pytest.mark.only(timestamps=False)
"""Messages are of equal bytes, so without a time."""
STEPS = {"batch": {"max_rows": 20}}
HABITS = {
    "in turn": MOSQUITTO,
    "1 to 50": HIVEMQ,
    "the lowest that is free": LOWEST_FREE,
    "anew at each connection": RABBITMQ,
    "in turn, no DUP": AEDES,
}


def known(cell: FaultCell, position: int) -> None:
    """How far the broker has read our acknowledgements is durable, or that it uses ids again."""
    kept = "SELECT NOT in_turn OR confirmed >= $2 FROM mqtt_sessions WHERE client_id = $1"

    def is_kept() -> bool:
        return bool(cell.databases.timeseries(kept, cell.daemon.client_id, position)[0][0])

    eventually(is_kept, what="known to a later process")


def killed(cell: FaultCell, equal: Equal) -> None:
    """Killed (-9) with messages in flight."""
    equal.killed_with(IN_FLIGHT)
    cell.recovers(cell.daemon.start)
    equal.settled()


def stopped(cell: FaultCell, equal: Equal) -> None:
    """SIGTERM while messages come: the broker has read the acknowledgements of what was stored."""
    equal.say(400)
    assert cell.daemon.stop() == 0
    cell.daemon.start()
    equal.settled()


CELLS = [(habit, how) for habit in HABITS for how in (killed, stopped)]
SHORT = [("1 to 50", killed), ("anew at each connection", stopped)]
"""``tests/acceptance/test_packet_ids.py`` has the others, with fewer messages."""


@EQUAL
@pytest.mark.parametrize(("habit", "how"), CELLS if ALL else SHORT)
def test_packet_ids(make_cell: MakeCell, habit: str, how: Callable[[FaultCell, Equal], None]) -> None:
    """Equal messages under ids that equal ones had before: each is a row, whatever the broker's habit."""
    cell = make_cell(f"packet ids {habit}: daemon {how.__name__}, {ROUNDS} times", STEPS)
    with SessionBroker(HABITS[habit]) as broker:
        equal = by_way_of(cell, broker)
        equal.say(200)
        equal.settled()
        known(cell, 200)
        for _ in range(ROUNDS):
            how(cell, equal)
        equal.prove()


def by_way_of(cell: FaultCell, broker: SessionBroker) -> Equal:
    """The daemon is at this broker, and runs."""
    cell.daemon.configure({"mqtt": {"port": broker.port}})
    cell.left = lambda: [] if broker.idle else ["not idle"]
    cell.begin([SERIAL])
    return Equal(cell, lambda payload: broker.publish(1, payload))


@EQUAL
@pytest.mark.mosquitto
def test_the_session_is_lost(make_cell: MakeCell) -> None:
    """Mosquitto restarts without its sessions: ids begin anew, and say nothing of the equal messages before."""
    cell = make_cell(f"broker killed without persistence, daemon killed, {ROUNDS} times")
    cell.begin([SERIAL])
    topic = TELEMETRY.format(tenant="acme", device=SERIAL)

    def publish(payload: bytes) -> None:
        with Wire(cell.broker.port) as wire:
            wire.publish(topic, payload)

    equal = Equal(cell, publish)
    for _ in range(ROUNDS):
        equal.say(30)
        equal.settled()
        connected = len(cell.logged("mqtt connected"))
        cell.broker.kill()
        (cell.broker.folder / "mosquitto.db").unlink(missing_ok=True)
        cell.broker.start()
        eventually(lambda: len(cell.logged("mqtt connected")) > connected, what="connected again")  # noqa: B023
        eventually(cell.daemon.is_ready, what="subscribed")
        equal.killed_with(30)
        cell.recovers(cell.daemon.start)
        equal.settled()
    equal.prove()


@pytest.mark.mosquitto
def test_message_ids(make_cell: MakeCell) -> None:
    """Devices count their messages from the start again, and the daemon is killed (-9): each message is a row."""
    cell = make_cell(f"message_id starts again every 300, daemon kill -9, {ROUNDS} times")
    cell.start(message_ids=True, id_round=300)
    for _ in range(ROUNDS):
        cell.stored(600)
        cell.daemon.kill()
        cell.recovers(cell.daemon.start)
    cell.prove()
