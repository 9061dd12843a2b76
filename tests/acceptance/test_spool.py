"""The disk spool in the daemon: what the database keeps waiting is acknowledged, survives, and comes back once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Scene
from tests.support.databases import Workshop
from tests.support.load import Load
from tests.support.plan import Plan
from tests.support.proof import prove, settled
from tests.support.provisioned import provision
from tests.support.servers import Postgres
from tests.support.waiting import eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.slow]

COUNT = 12_000
RATE = 3_000
MakeScene = Callable[..., Scene]


@pytest.fixture
def server(start_server: Callable[..., Postgres]) -> Postgres:
    """A PostgreSQL of the test's own, with fsync on."""
    return start_server("postgres", durable=True)


def spooling_scene(server: Postgres, make_scene: MakeScene, **more: Any) -> Scene:
    """A daemon with a spool, its databases on this server, and the broker's default window of 20."""
    scene = make_scene(Workshop(server).migrated(), more)
    scene.daemon.configure({"spool": {"folder": str(scene.daemon.folder / "spool"), "after": "0.5s"}})
    scene.daemon.start()
    return scene


def until_spooled(scene: Scene, count: int) -> None:
    """Wait until so many messages are on disk: the window of 20 would stop them were they not acknowledged."""
    eventually(lambda: scene.daemon.total()["spooled"] >= count, timeout=60, what=f"{count} spooled")


@pytest.mark.parametrize("timestamps", [True, False], ids=["timed", "untimed"])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_waits_goes_to_disk_and_comes_back(
    server: Postgres, make_scene: MakeScene, protocol: str, timestamps: bool
) -> None:
    """PostgreSQL is killed under load: messages are spooled and acknowledged; when it is back, all are there once."""
    scene = spooling_scene(server, make_scene, mqtt={"protocol": protocol})
    plan = Plan(COUNT, devices=100, timestamps=timestamps)
    load = scene.load(plan, rate=RATE)
    eventually(lambda: scene.stored() > COUNT // 10, timeout=30, what="a tenth stored")
    server.kill()
    until_spooled(scene, COUNT // 4)
    server.start()
    load.result()
    settled(scene.daemon, scene.databases, plan)
    prove(scene.databases, plan)
    spool = scene.daemon.status()["figures"]
    assert spool["spool_messages"] == 0
    assert scene.daemon.stop() == 0
    assert scene.left_at_broker() == []


def test_a_killed_daemon_finds_its_spool_again(server: Postgres, make_scene: MakeScene) -> None:
    """Killed (-9) three times while it spools readings without a time: nothing lost, none twice."""
    scene = spooling_scene(server, make_scene)
    # Slow enough to last through the kills: unknown devices are spooled in groups of a window, half a second each.
    plan = Plan(COUNT // 2, devices=100, timestamps=False)
    load = scene.load(plan, rate=RATE / 8)
    eventually(lambda: scene.stored() > COUNT // 20, timeout=30, what="a tenth stored")
    server.kill()
    for _ in range(3):
        until_spooled(scene, 40)
        scene.daemon.kill()
        scene.daemon.launch()
        eventually(lambda: scene.daemon.ready()[0] == 503, timeout=30, what="it runs, and is not ready")
    server.start()
    load.result()
    settled(scene.daemon, scene.databases, plan)
    prove(scene.databases, plan)
    assert scene.daemon.stop() == 0


def test_a_spool_is_drained_without_the_daemon(server: Postgres, make_scene: MakeScene) -> None:
    """The daemon ends with all in the spool (exit 0); `gateway spool drain` brings everything into the tables."""
    scene = spooling_scene(server, make_scene)
    plan = Plan(2000, devices=100)
    provision(scene.databases, plan.serials, tenant=plan.tenant)
    server.stop()
    load = Load(scene.broker.port, plan, rate=RATE).start()
    try:
        load.result()
    finally:
        load.close()
    until_spooled(scene, plan.count)
    assert scene.daemon.stop() == 0
    server.start()
    ended = json.loads(scene.daemon.cli("spool", "drain", "--json").stdout)
    expected = plan.expected()
    assert ended == {"stored": len(expected.stored), "dead_lettered": expected.dead.total()}
    prove(scene.databases, plan)
    assert scene.daemon.cli("spool", "drain").stdout.strip() == "nothing was spooled"
