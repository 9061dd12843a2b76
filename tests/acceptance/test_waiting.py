"""Servers that are not there at the start, or lack a migration: the daemon waits, says for what, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.acceptance.conftest import Scene
from tests.support.databases import Databases
from tests.support.plan import Plan
from tests.support.proof import prove, settled
from tests.support.servers import Postgres
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

MakeScene = Callable[..., Scene]
PLAN = Plan(500, devices=10)


def unready(scene: Scene, component: str, state: str, *words: str) -> None:
    """Wait until ``/ready`` is 503 and this component says what is waited for, in these words."""

    def says() -> bool:
        code, body = scene.daemon.ready()
        found = body["components"][component]
        assert (code, found["state"]) == (503, state), body
        missing = [word for word in words if word not in found["detail"]]
        assert not missing, f"{missing} not in {found['detail']!r}"
        return True

    eventually(says, timeout=20, what=f"{component} {state}, naming {words}")


def flows(scene: Scene) -> None:
    """Messages published now are stored."""
    scene.load(PLAN).result()
    settled(scene.daemon, scene.databases, PLAN)
    prove(scene.databases, PLAN)


def test_a_broker_that_comes_later(
    postgres_databases: Databases, make_scene: MakeScene, protocol: str
) -> None:
    """Without a broker the daemon is alive and unready, names the address, and connects when it is there."""
    scene = make_scene(postgres_databases, {"mqtt": {"protocol": protocol}})
    scene.broker.stop()
    scene.daemon.launch()
    unready(scene, "mqtt", "waiting", str(scene.broker.port))
    eventually(lambda: scene.daemon.component("timeseries")["state"] == "ready", what="the database is there")
    scene.broker.start()
    eventually(scene.daemon.is_ready, what="ready")
    flows(scene)


def test_a_database_that_comes_later(
    own_server: Postgres, own_databases: Databases, make_scene: MakeScene
) -> None:
    """Without databases the daemon is alive and unready, names the address, and goes on when they are there."""
    scene = make_scene(own_databases)
    own_server.stop()
    scene.daemon.launch()
    unready(scene, "timeseries", "waiting", str(own_server.port))
    unready(scene, "metadata", "waiting", str(own_server.port))
    own_server.start()
    eventually(scene.daemon.is_ready, timeout=20, what="ready")
    flows(scene)


def test_a_missing_migration_holds_everything(
    databases: Databases, blank_databases: Databases, make_scene: MakeScene
) -> None:
    """No table, no dead letters: held, unready with what to run, stored once ``gateway db upgrade`` has run."""
    scene = make_scene(replace(databases, timeseries_dsn=blank_databases.timeseries_dsn))
    scene.daemon.launch()
    unready(scene, "timeseries", "failed", "gateway db upgrade")
    eventually(lambda: scene.daemon.component("mqtt")["state"] == "ready", what="subscribed")
    load = scene.load(PLAN)
    assert load.result()["unmatched"] == 0
    eventually(lambda: scene.daemon.total()["in_flight"] > 0, what="messages are held")
    scene.daemon.cli("db", "upgrade")
    eventually(scene.daemon.is_ready, timeout=20, what="ready")
    settled(scene.daemon, scene.databases, PLAN)
    prove(scene.databases, PLAN)
