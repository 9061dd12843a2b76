"""100 000 QoS 1 messages, 1 % of them bad: each ends exactly once, whatever is stopped or killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Scene, combinations
from tests.support.databases import Databases
from tests.support.plan import Plan
from tests.support.processes import Process
from tests.support.proof import prove, settled
from tests.support.servers import Postgres
from tests.support.waiting import eventually, steadily

pytestmark = [pytest.mark.mosquitto, pytest.mark.slow]

COUNT = 100_000
AWAY_SECONDS = 12.0
MEMORY_BOUND = 300 * 2**20
MakeScene = Callable[..., Scene]


def end_well(scene: Scene) -> None:
    """The daemon stops cleanly, and the broker holds nothing for it."""
    assert scene.daemon.stop() == 0
    assert scene.left_at_broker() == []


def stored_share(scene: Scene, share: float) -> None:
    """Wait until this share of the load is stored."""
    wanted = int(COUNT * share)
    eventually(lambda: scene.stored() >= wanted, timeout=60, every=0.1, what=f"{wanted} rows")


def balanced_while_running(scene: Scene, load: Process) -> None:
    """The conservation law holds whenever somebody looks."""
    looks = 0
    while load.running:
        status = scene.daemon.status()
        assert status["balanced"], status["streams"]
        looks += 1
    assert looks > 3


@combinations("timescaledb 5", "postgres 3.1.1")
def test_every_message_ends_exactly_once(databases: Databases, make_scene: MakeScene, protocol: str) -> None:
    """Rows + dead letters + duplicates = messages, to the message; the books say so at every instant."""
    scene = make_scene(databases, {"mqtt": {"protocol": protocol}})
    scene.daemon.start()
    plan = Plan(COUNT, devices=1000, repeat_percent=0.5)
    load = scene.load(plan)
    balanced_while_running(scene, load)
    assert load.result()["unmatched"] == 0
    books = scene.daemon.settle(COUNT)
    expected = plan.expected()
    assert books == {
        "received": COUNT,
        "stored": len(expected.stored),
        "duplicate": expected.repeats,
        "dead_lettered": expected.dead.total(),
        "spooled": 0, "ignored": 0, "in_flight": 0, "balance": 0, "qos0": 0,
    }  # fmt: skip
    prove(databases, plan)
    end_well(scene)


def killed_five_times(scene: Scene, plan: Plan) -> None:
    """Kill -9 under load, at five points of it, and start again each time; then all must be there."""
    scene.daemon.start()
    load = scene.load(plan, rate=12_000)
    for kill in range(1, 6):
        stored_share(scene, kill / 7)
        scene.daemon.kill()
        scene.daemon.start()
    load.result()
    scene.all_delivered()
    settled(scene.daemon, scene.databases, plan)
    end_well(scene)
    prove(scene.databases, plan)


@combinations("postgres 5", "timescaledb 3.1.1")
def test_a_daemon_killed_five_times_loses_nothing(
    databases: Databases, make_scene: MakeScene, protocol: str
) -> None:
    """Killed (-9) under load five times, started again each time: all there, none twice."""
    scene = make_scene(databases, {"mqtt": {"protocol": protocol}}, max_inflight=1000)
    killed_five_times(scene, Plan(COUNT, devices=1000))


@combinations("timescaledb 5", "postgres 3.1.1")
def test_nor_what_has_no_timestamp(databases: Databases, make_scene: MakeScene, protocol: str) -> None:
    """The same with readings that carry no time, which do not meet themselves: the ledger knows them again."""
    scene = make_scene(databases, {"mqtt": {"protocol": protocol}}, max_inflight=1000)
    killed_five_times(scene, Plan(COUNT, devices=1000, timestamps=False))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_absent_database_costs_nothing_but_time(
    own_server: Postgres, own_databases: Databases, make_scene: MakeScene, how: str
) -> None:
    """PostgreSQL stopped fast, or killed, for 12 s: held, the broker's connection kept, then all is stored."""
    scene = make_scene(own_databases, {"mqtt": {"keepalive": 5}}, max_inflight=0)
    scene.daemon.start()
    plan = Plan(COUNT, devices=1000)
    load = scene.load(plan, rate=5_000)
    stored_share(scene, 0.1)
    getattr(own_server, how)()
    stays_away(scene)
    own_server.start()
    eventually(scene.daemon.is_ready, timeout=30, what="ready again")
    load.result()
    settled(scene.daemon, own_databases, plan)
    assert scene.daemon.status()["figures"]["reconnects"] == 0
    end_well(scene)
    prove(own_databases, plan)


def stays_away(scene: Scene) -> None:
    """For as long as the database is away: unready, the books balanced, memory bounded."""
    eventually(lambda: scene.daemon.component("timeseries")["state"] == "waiting", what="the loss is noticed")

    def held() -> None:
        code, body = scene.daemon.ready()
        assert (code, body["components"]["timeseries"]["state"]) == (503, "waiting")
        assert scene.daemon.status()["balanced"]
        assert scene.daemon.memory < MEMORY_BOUND

    steadily(held, seconds=AWAY_SECONDS)


@combinations("timescaledb 5", "postgres 3.1.1")
def test_a_restarted_broker_costs_nothing(databases: Databases, make_scene: MakeScene, protocol: str) -> None:
    """The broker restarts twice under load (persistence on): the session goes on, all there, none twice."""
    scene = make_scene(databases, {"mqtt": {"protocol": protocol}}, max_inflight=1000)
    scene.daemon.start()
    plan = Plan(COUNT, devices=1000)
    load = scene.load(plan, rate=12_000)
    for share in (0.2, 0.5):
        stored_share(scene, share)
        scene.broker.stop()
        scene.broker.start()
    resent = load.result()["resent"]
    scene.all_delivered()
    settled(scene.daemon, databases, plan)
    end_well(scene)
    prove(databases, plan, resent=resent)
