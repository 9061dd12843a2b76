"""Nothing that a broker delivers or holds is lost, and nothing is stored twice that can be known: on real brokers."""

from __future__ import annotations

import pytest

from tests.brokers.conftest import MakeCell
from tests.support.broker_cell import Kind, still
from tests.support.brokers import PASSWORD, USER, V5
from tests.support.habits import Habits
from tests.support.reference import CLOSED, answer_to
from tests.support.waiting import eventually

LIVE = 200
IN_FLIGHT = 30


def test_live(make_cell: MakeCell) -> None:
    """What is published while all run is stored, each message once."""
    cell = make_cell("live")
    cell.start()
    cell.publish(LIVE)
    cell.prove()


@pytest.mark.parametrize("kind", ["timed", "untimed", "equal"])
def test_killed(make_cell: MakeCell, kind: Kind) -> None:
    """The daemon is killed with messages that are stored and not acknowledged, then with others that are not stored."""
    cell = make_cell(f"killed, {kind}", kind=kind)
    cell.start()
    cell.publish(IN_FLIGHT)
    cell.settled()
    cell.acknowledgements_lost(IN_FLIGHT)
    cell.daemon.kill()
    cell.back()
    cell.daemon.start()
    cell.settled()
    cell.in_flight(IN_FLIGHT)
    cell.back()
    cell.daemon.start()
    doubtful = kind != "timed" and not cell.broker.known_again
    cell.prove(twice=2 * IN_FLIGHT if doubtful else 0)


def test_cut_connections(make_cell: MakeCell) -> None:
    """Three times the connection is cut with acknowledgements lost; the daemon itself goes on."""
    cell = make_cell("cut")
    cell.start()
    cell.publish(IN_FLIGHT)
    cell.settled()
    for _ in range(3):
        cell.acknowledgements_lost(IN_FLIGHT)
        cell.cut()
        cell.back()
        cell.settled()
    doubtful = (
        3 + 2 + 1
    ) * IN_FLIGHT  # where nothing can be known, a message may come again at each later cut
    cell.prove(twice=0 if cell.broker.again_in_process else doubtful)


def test_stopped_and_started(make_cell: MakeCell) -> None:
    """Three times the daemon is stopped and started while messages of equal bytes come."""
    cell = make_cell("stopped", kind="equal")
    cell.start()
    for _ in range(3):
        before = cell.rows()
        with cell.publishing(LIVE):
            eventually(lambda: cell.rows() > before, what="messages flow")  # noqa: B023
            assert cell.daemon.stop() == 0
            cell.reference.leave()
            cell.reference.connect()
            cell.daemon.start()
        cell.settled()
    cell.prove(twice=0 if cell.broker.known_again else 3 * IN_FLIGHT)


def test_broker_restarted(make_cell: MakeCell) -> None:
    """The broker is stopped and started beside the daemon, then with messages that wait for the daemon."""
    cell = make_cell("broker restarted")
    cell.start()
    cell.publish(IN_FLIGHT)
    cell.settled()
    cell.broker.stop()
    cell.broker.start()
    cell.back()
    eventually(cell.daemon.is_ready, timeout=20, what="the daemon is ready again")
    cell.publish(IN_FLIGHT)
    cell.settled()
    if not cell.broker.resumes:
        cell.notes.append("not resumed with messages in flight")
        cell.prove(twice=0 if cell.broker.known_again else IN_FLIGHT)
        return
    assert cell.daemon.stop() == 0
    cell.reference.leave()
    cell.publish(IN_FLIGHT)
    cell.broker.stop()
    cell.broker.start()
    cell.reference.connect()
    cell.daemon.start()
    doubtful = 0 if cell.broker.known_again else IN_FLIGHT
    cell.prove(lost=0 if cell.broker.persistent else IN_FLIGHT, twice=doubtful)


def test_two_workers(make_cell: MakeCell, level: int) -> None:
    """Two workers divide the messages: by a shared subscription where the broker has it, else stream by stream."""
    cell = make_cell("--workers 2")
    cell.daemon.arguments = ["--workers", "2"]
    shared = (
        level == V5 and level in cell.broker.shares
    )  # the gateway shares nothing at 3.1.1, whatever a broker does
    if not shared:
        topics = {
            "a": f"{cell.place}/{{tenant}}/{{device}}",
            "b": f"{cell.place}/other/{{tenant}}/{{device}}",
        }
        cell.daemon.configure({"streams": [{"name": name, "topic": topic} for name, topic in topics.items()]})
        cell.daemon.arguments = ["--workers", "2", "--divide", "streams"]
    cell.notes.append("$share" if shared else "--divide streams")
    cell.start()
    cell.publish(LIVE)
    cell.publish(0 if shared else LIVE, place=f"{cell.place}/other")
    cell.prove()


def test_wrong_password(make_cell: MakeCell, level: int) -> None:
    """The daemon is not ready, says why as far as the broker tells, and goes on trying."""
    wrong = (USER, f"{PASSWORD}?")
    login = dict(zip(("username", "password"), wrong, strict=True))
    cell = make_cell("wrong password", closed=True, settings={"mqtt": login})
    answer = answer_to(cell.broker.port_of(level), wrong, version=level)
    cell.tells(answer)
    says = "check the credentials" if answer == CLOSED else "password"
    cell.daemon.launch()
    eventually(
        lambda: says in cell.daemon.component("mqtt")["detail"], timeout=20, what=f"{says!r} on /ready"
    )
    still(lambda: cell.daemon.ready()[0])
    assert cell.daemon.running
    assert cell.daemon.ready()[0] == 503


def test_auto(make_cell: MakeCell) -> None:
    """``protocol = "auto"`` comes to work by itself, whatever the broker answers to MQTT 5."""
    cell = make_cell("auto", settings={"mqtt": {"protocol": "auto"}})
    cell.start()
    cell.notes.append(f"MQTT {cell.protocol()}")
    cell.publish(LIVE)
    cell.prove()


def test_habits(make_cell: MakeCell, level: int) -> None:
    """What a plain consumer sees of a broker, for the table; the gateway is not asked. All comes while all run."""
    cell = make_cell("habits")
    told = Habits(cell).observe()
    cell.tells("", told)
    assert cell.reference.on_connection(1)
