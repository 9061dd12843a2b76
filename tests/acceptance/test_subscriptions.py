"""What is no longer configured is no longer subscribed to, and no session is left to collect what nothing reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Scene
from tests.support.databases import Databases
from tests.support.plan import TELEMETRY
from tests.support.provisioned import provision
from tests.support.waiting import eventually
from tests.support.wire import Wire

MakeScene = Callable[..., Scene]
DEVICE = "tenants/acme/devices/press/telemetry"


def publish(scene: Scene, *values: int, topic: str = DEVICE) -> None:
    """Readings without a time: one that comes twice is two rows."""
    with Wire(scene.broker.port) as wire:
        for value in values:
            assert wire.publish(topic, json.dumps({"value": value}).encode()).reason_code.value in (0, 0x10)


def stored(scene: Scene) -> list[int]:
    """What is stored, in order."""
    rows = scene.databases.timeseries("SELECT (data->>'value')::int FROM telemetry ORDER BY 1")
    return [row[0] for row in rows]


def stores(scene: Scene, *values: int) -> None:
    """In the end these are stored, each once."""
    eventually(lambda: set(values) <= set(stored(scene)), timeout=30, what=f"{values} are stored")
    assert stored(scene) == sorted(values)


def subscriptions(scene: Scene, client_id: str) -> list[str]:
    """What the gateway knows that the broker holds for a client id."""
    rows = scene.databases.timeseries("SELECT filters FROM mqtt_sessions WHERE client_id = $1", client_id)
    return rows[0][0] if rows else []


def ended(scene: Scene, client_id: str) -> None:
    """In the end the session of this client id subscribes to nothing."""
    eventually(lambda: not subscriptions(scene, client_id), timeout=30, what=f"{client_id} is ended")


def start(scene: Scene, *arguments: str) -> None:
    """Start the daemon, and wait until it is ready."""
    scene.daemon.arguments = arguments
    scene.daemon.start()
    eventually(scene.daemon.is_ready, timeout=30, what="ready")


@pytest.fixture
def scene(postgres_databases: Databases, make_scene: MakeScene, protocol: str) -> Scene:
    """A daemon by either version, and one device."""
    provision(postgres_databases, ["press"])
    return make_scene(postgres_databases, {"mqtt": {"protocol": protocol}})


def stream(topic: str) -> dict[str, Any]:
    """The only stream."""
    return {"name": "telemetry", "topic": topic}


def test_a_narrowed_topic_is_unsubscribed(scene: Scene) -> None:
    """What only the earlier configuration asked for comes no more, while running and after the next start."""
    scene.daemon.configure({"streams": [stream("tenants/{tenant}/devices/{device}/#")]})
    start(scene)
    publish(scene, 1)
    stores(scene, 1)
    assert scene.daemon.stop() == 0
    scene.daemon.configure({"streams": [stream(TELEMETRY)]})
    start(scene)
    narrow = [TELEMETRY.format(tenant="+", device="+")]
    eventually(lambda: subscriptions(scene, scene.daemon.client_id) == narrow, what="unsubscribed")
    publish(scene, 2, topic="tenants/acme/devices/press/events")
    publish(scene, 3)
    stores(scene, 1, 3)
    assert scene.daemon.total()["received"] == 1
    assert scene.daemon.stop() == 0


def test_a_stream_that_is_gone_is_unsubscribed_although_the_daemon_was_killed(scene: Scene) -> None:
    """What a process subscribed to is known to the next one, however it ended."""
    more = {"name": "other", "topic": "other/{tenant}/{device}"}
    scene.daemon.configure({"streams": [stream(TELEMETRY), more]})
    start(scene)
    scene.daemon.kill()
    scene.daemon.configure({"streams": [stream(TELEMETRY)]})
    start(scene)
    eventually(lambda: len(subscriptions(scene, scene.daemon.client_id)) == 1, what="unsubscribed")
    publish(scene, 1, topic="other/acme/press")
    publish(scene, 2)
    stores(scene, 2)
    assert scene.daemon.total()["received"] == 1
    assert scene.daemon.stop() == 0


@pytest.mark.parametrize("protocol", ["5"], indirect=True)
def test_one_process_two_workers_one_process(scene: Scene) -> None:
    """Each message is stored once, also those that came while none ran; no session of before collects any more."""
    first, name = "tenants/{tenant}/devices/{device}/first", scene.daemon.client_id
    scene.daemon.configure({"streams": [stream(TELEMETRY), {"name": "first", "topic": first}]})
    workers = ("--workers", "2")  # with --divide streams: tests/faults/test_changed.py
    start(scene)
    publish(scene, 1, 2)
    stores(scene, 1, 2)
    for arguments, values, gone in (
        (workers, (3, 4, 5, 6), [name]),
        ((), (7, 8, 9, 10), [f"{name}-0", f"{name}-1"]),
        (workers, (11, 12, 13, 14), [name]),
    ):
        assert scene.daemon.stop() == 0
        publish(scene, *values[:2])
        start(scene, *arguments)
        for client_id in gone:
            ended(scene, client_id)
        publish(scene, *values[2:])
        stores(scene, *range(1, values[-1] + 1))
    assert scene.daemon.stop() == 0


@pytest.mark.parametrize("protocol", ["5"], indirect=True)
def test_a_session_under_a_client_id_given_up_is_named_and_ended(scene: Scene) -> None:
    """The log names it with the command, which stores what is in it and ends its subscriptions."""
    start(scene)
    publish(scene, 1)
    stores(scene, 1)
    assert scene.daemon.stop() == 0
    former = scene.daemon.client_id
    publish(scene, 2)
    scene.daemon.configure({"mqtt": {"client_id": f"{former}-new"}})
    start(scene)
    eventually(lambda: f"gateway session end {former}" in scene.daemon.tail(), what="it is named")
    listed = json.loads(scene.daemon.cli("session", "list", "--json").stdout)
    assert {one["client_id"]: one["in_use"] for one in listed} == {former: False, f"{former}-new": True}
    refused = scene.daemon.cli("session", "end", f"{former}-new", check=False)
    assert refused.returncode == 2
    assert "stop it first" in refused.stderr
    assert "1 messages read" in scene.daemon.cli("session", "end", former).stdout
    stores(scene, 1, 2)
    assert subscriptions(scene, former) == []
    publish(scene, 3)
    stores(scene, 1, 2, 3)
    assert scene.daemon.stop() == 0


def test_a_session_that_is_gone_is_told(scene: Scene) -> None:
    """A broker that was restarted without persistence has lost what it held: a warning, not silence."""
    start(scene)
    assert "mqtt session lost" not in scene.daemon.tail()
    assert scene.daemon.stop() == 0
    with Wire(scene.broker.port, client_id=scene.daemon.client_id):
        pass  # a clean start ends the session
    start(scene)
    eventually(lambda: "mqtt session lost" in scene.daemon.tail(), what="it is told")
    status = scene.daemon.status()
    assert status["ready"]
    assert "no session of ours any more" in status["components"]["session"]["detail"]
    assert scene.daemon.stop() == 0
