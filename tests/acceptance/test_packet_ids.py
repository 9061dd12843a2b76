"""Equal messages under packet ids that come again: each is stored, on brokers of all habits, over ends of all kinds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.databases import Databases
from tests.support.provisioned import provision
from tests.support.session_broker import (
    AEDES,
    DOOR,
    HIVEMQ,
    LOWEST_FREE,
    MOSQUITTO,
    RABBITMQ,
    Habit,
    SessionBroker,
)
from tests.support.sql import locked
from tests.support.waiting import eventually

TABLES = "telemetry", "dead_letters"
STRANGE = b'{"door":'
"""Becomes a dead letter, each time."""


class Door:
    """A broker, a daemon and a device that says the same again and again."""

    def __init__(self, broker: SessionBroker, databases: Databases, settings: dict[str, Any]) -> None:
        self.broker, self.databases = broker, databases
        self.daemon = Daemon(broker.port, databases, settings)
        provision(databases, ["S-1"])

    def rows(self) -> int:
        """What is durable in the tables: readings and dead letters."""
        return self.databases.count("telemetry") + self.databases.count("dead_letters")

    def publish_and_settle(self, count: int, payload: bytes = DOOR) -> None:
        """These are stored, and the broker has read the acks."""
        self.broker.publish(count, payload)
        eventually(lambda: self.broker.idle, timeout=20, what="all are acknowledged")

    def settled_for_good(self) -> None:
        """That the broker has read the acks is durable: some 0.3 s later."""
        kept = "SELECT NOT in_turn OR confirmed >= 30 FROM mqtt_sessions WHERE client_id = $1"
        client_id = self.daemon.client_id
        eventually(lambda: self.databases.timeseries(kept, client_id)[0][0], what="known to a later process")

    def killed_with(self, count: int, payload: bytes = DOOR) -> None:
        """The daemon is killed when it has received so many that it could not store: the database is blocked."""
        received = self.daemon.total()["received"] + count
        with locked(self.databases.timeseries_dsn, *TABLES):
            self.broker.publish(count, payload)
            eventually(lambda: self.daemon.total()["received"] >= received, what=f"{count} are in flight")
            self.daemon.kill()

    def ends_with(self, rows: int) -> None:
        """In the end the broker has nothing left, and the tables have this."""
        eventually(lambda: self.broker.idle, timeout=20, what="all are acknowledged")
        eventually(lambda: not self.daemon.total()["in_flight"], timeout=20, what="all are settled")
        assert self.rows() == rows


MakeDoor = Callable[..., Door]


@pytest.fixture(params=["5", "3.1.1"])
def make_door(postgres_databases: Databases, request: pytest.FixtureRequest) -> Iterator[MakeDoor]:
    """``make_door(habit, settings)``: the daemon runs, over both transports in turn."""
    with contextlib.ExitStack() as stack:

        def make(habit: Habit, settings: dict[str, Any] | None = None) -> Door:
            broker = stack.enter_context(SessionBroker(habit))
            door = Door(broker, postgres_databases, {"mqtt": {"protocol": request.param}, **(settings or {})})
            stack.enter_context(door.daemon).start()
            return door

        yield make


@pytest.mark.parametrize("payload", [DOOR, STRANGE], ids=["reading", "dead letter"])
def test_a_session_that_was_lost(make_door: MakeDoor, payload: bytes) -> None:
    """Ids of the new session say nothing about messages of the old one."""
    door = make_door(MOSQUITTO)
    door.publish_and_settle(30, payload)
    door.broker.forget()
    eventually(lambda: door.broker.subscribed, what="a new session")
    door.killed_with(30, payload)
    door.daemon.start()
    door.ends_with(60)


def test_a_session_that_was_lost_while_the_daemon_was_dead(make_door: MakeDoor) -> None:
    """Killed with acks that the broker may have read; the broker restarts without its sessions before the daemon."""
    door = make_door(MOSQUITTO)
    door.publish_and_settle(30)
    door.daemon.kill()
    door.broker.forget()
    door.daemon.start()
    door.killed_with(30)
    door.daemon.start()
    door.ends_with(60)


@pytest.mark.parametrize(
    ("habit", "before", "payload"),
    [(HIVEMQ, 200, DOOR), (HIVEMQ, 200, STRANGE), (LOWEST_FREE, 30, DOOR)],
    ids=["50 ids, reading", "50 ids, dead letter", "lowest id, reading"],
)
def test_killed_with_equal_messages_in_flight(
    make_door: MakeDoor, habit: Habit, before: int, payload: bytes
) -> None:
    """Ids under which equal messages were stored and acknowledged are used again; the new messages are stored too."""
    door = make_door(habit)
    door.publish_and_settle(before, payload)
    door.settled_for_good()
    door.killed_with(8, payload)
    door.daemon.start()
    door.ends_with(before + 8)


def test_packet_ids_that_begin_anew_at_each_connection(make_door: MakeDoor) -> None:
    """Four graceful restarts under load: what is sent again has got other ids, under which equal ones were stored."""
    door = make_door(RABBITMQ, {"batch": {"max_rows": 20}})
    for restart in range(1, 5):
        door.broker.publish(700)
        eventually(lambda: door.rows() > restart * 700 - 600, timeout=20, what="messages flow")  # noqa: B023
        assert door.daemon.stop() == 0
        door.daemon.start()
    door.ends_with(2800)


@pytest.mark.parametrize("habit", [AEDES, MOSQUITTO], ids=["no DUP", "DUP"])
def test_cut_connections_with_acknowledgements_lost(make_door: MakeDoor, habit: Habit) -> None:
    """Within one process it is known what was not acknowledged for all that is known: none is stored twice."""
    door = make_door(habit)
    door.publish_and_settle(30)
    for cut in range(1, 4):
        door.broker.deaf = True
        door.broker.publish(100)
        eventually(lambda: door.rows() >= 30 + 100 * cut, timeout=20, what="stored")  # noqa: B023
        door.broker.cut()
        door.broker.deaf = False
        eventually(lambda: door.broker.idle, timeout=20, what="all are acknowledged")
    door.ends_with(330)


def test_spooled_messages_of_a_session_that_was_lost(make_door: MakeDoor, tmp_path: Path) -> None:
    """The spool's memory of packet ids is one session's too."""
    door = make_door(MOSQUITTO, {"spool": {"folder": tmp_path / "spool", "after": "300ms"}})
    with locked(door.databases.timeseries_dsn, *TABLES):
        door.broker.publish(30)
        eventually(lambda: door.broker.idle, timeout=20, what="30 are spooled")
        door.broker.forget()
        eventually(lambda: door.broker.subscribed, what="a new session")
        door.broker.deaf = True
        door.broker.publish(30)
        eventually(lambda: door.daemon.total()["received"] >= 60, what="30 more are in flight")
        door.daemon.kill()
        door.broker.deaf = False
    door.daemon.start()
    eventually(lambda: door.rows() >= 60, timeout=20, what="the spool is drained")
    door.ends_with(60)


TIMED = b'{"ts":1700000000000,"metrics":{"n":1}}'


@pytest.mark.parametrize(
    ("habit", "payload", "rows"),
    [(MOSQUITTO, DOOR, 30), (AEDES, STRANGE, 30), (HIVEMQ, TIMED, 1)],
    ids=["untimed", "dead letter, no DUP", "timed, 50 ids"],
)
def test_sent_again_on_the_same_connection(
    make_door: MakeDoor, habit: Habit, payload: bytes, rows: int
) -> None:
    """What is sent again before it was acknowledged is held once, stored once and acknowledged once."""
    door = make_door(habit)
    with locked(door.databases.timeseries_dsn, *TABLES):
        door.broker.publish(30, payload)
        eventually(lambda: door.daemon.total()["received"] == 30, what="30 are in flight")
        door.broker.send_again()
        door.broker.send_again()
        eventually(lambda: door.daemon.total()["received"] == 90, what="each came three times")
        assert door.daemon.total()["in_flight"] == 30
    door.ends_with(rows)
    assert door.broker.acked == list(range(1, 31))
    door.publish_and_settle(10, payload)
    door.ends_with(rows + 10 if rows > 1 else 1)


def test_sent_again_while_it_is_spooled(make_door: MakeDoor, tmp_path: Path) -> None:
    """The same where the database is away for longer than messages wait, and the daemon is killed after it."""
    door = make_door(MOSQUITTO, {"spool": {"folder": tmp_path / "spool", "after": "500ms"}})
    with locked(door.databases.timeseries_dsn, *TABLES):
        door.broker.deaf = True
        door.broker.publish(30)
        eventually(lambda: door.daemon.total()["received"] == 30, what="30 are in flight")
        door.broker.send_again()
        eventually(lambda: door.daemon.total()["spooled"] == 30, what="30 are spooled")
        door.broker.send_again()
        eventually(lambda: door.daemon.total()["received"] == 90, what="each came three times")
        door.daemon.kill()
        door.broker.deaf = False
    door.daemon.start()
    eventually(lambda: door.rows() >= 30, timeout=20, what="the spool is drained")
    door.ends_with(30)


def test_killed_after_it_was_sent_again(make_door: MakeDoor) -> None:
    """That something came twice on one connection says nothing against its packet ids: they are still believed."""
    door = make_door(MOSQUITTO)
    door.publish_and_settle(30)
    with locked(door.databases.timeseries_dsn, *TABLES):
        door.broker.publish(30)
        eventually(lambda: door.daemon.total()["received"] == 60, what="30 are in flight")
        door.broker.send_again()
        eventually(lambda: door.daemon.total()["received"] == 90, what="they came twice")
        door.broker.deaf = True
    eventually(lambda: door.rows() >= 60, what="stored, and not acknowledged")
    door.daemon.kill()
    door.broker.deaf = False
    door.daemon.start()
    door.ends_with(60)


def test_other_bytes_under_an_id_in_flight(make_door: MakeDoor) -> None:
    """A broker that gave up a message and its id: the new one is stored too, and the id acknowledged after both."""
    door = make_door(MOSQUITTO)
    with locked(door.databases.timeseries_dsn, *TABLES):
        door.broker.publish(30)
        eventually(lambda: door.daemon.total()["received"] == 30, what="30 are in flight")
        door.broker.send_again(b'{"door":"opened"}')
        eventually(lambda: door.daemon.total()["received"] == 60, what="30 others under the same ids")
    door.ends_with(60)
    assert door.broker.acked == list(range(1, 31))
