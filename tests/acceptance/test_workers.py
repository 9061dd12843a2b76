"""Several workers under one supervisor: they share the messages, one may die, and the books of all are one."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Callable

import psutil
import pytest

from tests.acceptance.conftest import Scene
from tests.support.daemon import Daemon
from tests.support.databases import Databases
from tests.support.plan import Plan
from tests.support.proof import prove, settled
from tests.support.waiting import eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.slow]

COUNT = 20_000
MakeScene = Callable[..., Scene]


def workers_of(scene: Scene) -> list[int]:
    """Process ids of the workers."""
    return [child.pid for child in psutil.Process(scene.daemon.pid).children()]


def started(scene: Scene, *arguments: str) -> Scene:
    """Two workers, ready."""
    scene.daemon.arguments = ["--workers", "2", *arguments]
    scene.daemon.start()
    eventually(lambda: scene.daemon.ready()[0] == 200, timeout=30, what="both workers ready")
    return scene


def test_workers_share_the_messages(postgres_databases: Databases, make_scene: MakeScene) -> None:
    """Both get some, every message is stored once, and the merged books and metrics speak of both."""
    scene = started(make_scene(postgres_databases))
    plan = Plan(COUNT, devices=100)
    scene.load(plan).result()
    books = settled(scene.daemon, scene.databases, plan)
    assert books["received"] == COUNT
    prove(scene.databases, plan)
    with urllib.request.urlopen(f"http://127.0.0.1:{scene.daemon.port}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    counted = {
        line.split('worker="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith('gateway_messages_received_total{stream="telemetry"')
    }
    assert set(counted) == {"worker-0", "worker-1"}
    assert min(counted.values()) > COUNT / 10
    assert scene.daemon.stop() == 0


def test_a_killed_worker_loses_nothing(postgres_databases: Databases, make_scene: MakeScene) -> None:
    """One worker is killed under load: the other goes on, it comes back, every message ends exactly once."""
    scene = started(make_scene(postgres_databases))
    plan = Plan(COUNT, devices=100)
    load = scene.load(plan, rate=4000)
    eventually(lambda: scene.stored() > COUNT // 4, timeout=30, what="a quarter stored")
    victim = workers_of(scene)[0]
    os.kill(victim, signal.SIGKILL)
    load.result()
    eventually(lambda: len(workers_of(scene)) == 2, timeout=30, what="the killed worker is back")
    eventually(lambda: scene.daemon.ready()[0] == 200, timeout=30, what="ready again")
    expected = plan.expected()
    eventually(
        lambda: (
            scene.stored() == len(expected.stored)
            and scene.databases.count("dead_letters") == expected.dead.total()
        ),
        timeout=60,
        what="every message stored or a dead letter",
    )
    prove(scene.databases, plan)
    assert scene.daemon.stop() == 0


def test_gateways_of_two_hosts_share_the_messages(
    postgres_databases: Databases, make_scene: MakeScene
) -> None:
    """One share group, client ids and nothing else of their own: one is killed and comes back, nothing is lost."""
    group = {"mqtt": {"share_group": "fleet"}}
    scene = make_scene(postgres_databases, group)
    with Daemon(scene.broker.port, postgres_databases, group, name="second") as second:
        gateways = [scene.daemon.start(), second.start()]
        plan = Plan(COUNT, devices=100)
        load = scene.load(plan, rate=4000)
        eventually(lambda: scene.stored() > COUNT // 4, timeout=30, what="a quarter stored")
        assert min(one.status()["total"]["stored"] for one in gateways) > COUNT // 20
        second.kill()
        load.result()
        second.start()  # what the broker had put into its session waits there
        expected = plan.expected()
        eventually(
            lambda: (
                scene.stored() == len(expected.stored)
                and scene.databases.count("dead_letters") == expected.dead.total()
            ),
            timeout=60,
            what="every message stored or a dead letter",
        )
        prove(scene.databases, plan)
        assert [one.stop() for one in gateways] == [0, 0]


def test_workers_divide_streams(postgres_databases: Databases, make_scene: MakeScene) -> None:
    """Without shared subscriptions each stream has its worker; more workers than streams is an error that says so."""
    topics = {"a": "tenants/{tenant}/devices/{device}/telemetry", "b": "other/{tenant}/{device}"}
    streams = [{"name": name, "topic": topic} for name, topic in topics.items()]
    scene = started(make_scene(postgres_databases, {"streams": streams}), "--divide", "streams")
    plan = Plan(2000, devices=10)
    scene.load(plan).result()
    eventually(lambda: scene.stored() == len(plan.expected().stored), timeout=30, what="all stored")
    prove(scene.databases, plan)
    assert scene.daemon.stop() == 0
    refused = scene.daemon.cli("run", "--workers", "3", "--divide", "streams", check=False)
    assert refused.returncode == 2
    assert "3 workers for 2 streams" in refused.stderr
