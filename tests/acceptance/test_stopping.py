"""How the daemon stops: in order and within its deadline, at once when told twice, and with a true exit code."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Scene
from tests.support.daemon import gateway
from tests.support.databases import Databases
from tests.support.plan import Plan
from tests.support.proof import prove, settled
from tests.support.servers import Postgres
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

MakeScene = Callable[..., Scene]
DEADLINE = 3.0


def test_sigterm_under_load_is_a_clean_stop(
    postgres_databases: Databases, make_scene: MakeScene, protocol: str
) -> None:
    """Stopped three times under load: exit code 0 within the deadline, and nothing lost over the restarts."""
    scene = make_scene(postgres_databases, {"mqtt": {"protocol": protocol}}, max_inflight=1000)
    scene.daemon.start()
    plan = Plan(30_000)
    load = scene.load(plan, rate=10_000)
    for share in (0.2, 0.4, 0.6):
        wanted = int(plan.count * share)
        eventually(lambda: scene.stored() >= wanted, timeout=30, every=0.1, what=f"{wanted} rows")  # noqa: B023
        assert scene.daemon.stop(timeout=20) == 0
        scene.daemon.start()
    load.result()
    settled(scene.daemon, postgres_databases, plan)
    assert scene.daemon.stop() == 0
    assert scene.left_at_broker() == []
    prove(postgres_databases, plan)


def held_without_database(scene: Scene, server: Postgres) -> None:
    """The daemon holds messages that it cannot write."""
    scene.daemon.start()
    load = scene.load(Plan(2_000, bad_percent=0), rate=2_000)
    eventually(lambda: scene.stored() > 100, what="messages flow")
    server.stop()
    load.result()
    eventually(lambda: scene.daemon.total()["in_flight"] > 0, what="messages are held")


def test_a_deadline_that_passes_is_told(
    own_server: Postgres, own_databases: Databases, make_scene: MakeScene
) -> None:
    """SIGTERM while the database is away: at the deadline it ends with 5, and the broker keeps what is unsettled."""
    scene = make_scene(own_databases, {"shutdown": {"deadline": DEADLINE}}, max_inflight=1000)
    held_without_database(scene, own_server)
    started = time.monotonic()
    assert scene.daemon.stop() == 5
    assert DEADLINE <= time.monotonic() - started < DEADLINE + 6
    own_server.start()
    scene.daemon.start()
    eventually(lambda: scene.stored() == 2_000, timeout=20, what="what was unsettled is delivered again")


def test_a_second_signal_stops_at_once(
    own_server: Postgres, own_databases: Databases, make_scene: MakeScene
) -> None:
    """Two signals: no waiting for the deadline, exit code 5, and nothing is lost by the haste."""
    scene = make_scene(own_databases, {"shutdown": {"deadline": "10min"}}, max_inflight=1000)
    held_without_database(scene, own_server)
    scene.daemon.signal(signal.SIGTERM)
    eventually(lambda: scene.daemon.ready()[1]["stopping"], what="it says that it is stopping")
    assert scene.daemon.running
    started = time.monotonic()
    scene.daemon.signal(signal.SIGINT)
    assert scene.daemon.wait() == 5
    assert time.monotonic() - started < 6
    own_server.start()
    scene.daemon.start()
    eventually(lambda: scene.stored() == 2_000, timeout=20, what="what was unsettled is delivered again")


def test_usage_exits_with_2() -> None:
    """A mistyped option is usage: 2, and no traceback."""
    done = gateway("run", "--no-such-option", config=Path("none.toml"), check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_taken_port_exits_with_3(postgres_databases: Databases, make_scene: MakeScene) -> None:
    """What waiting cannot mend is a failed start: 3, naming the address and the setting."""
    scene = make_scene(postgres_databases)
    scene.daemon.configure({"observability": {"port": scene.broker.port}})
    done = scene.daemon.cli("run", check=False)
    assert done.returncode == 3
    assert str(scene.broker.port) in done.stderr
    assert "observability.port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mqtt": {"prot": 1}}, "mqtt.prot"),
        ({"streams": [{"name": "t", "topic": "{tenant}/{device}", "qos": 2}]}, "qos"),
        ({"streams": [{"name": "t", "topic": "{tenant}/{device}", "decoder": "cobol"}]}, "cobol"),
    ],
    ids=["unknown key", "qos 2", "unknown decoder"],
)
def test_a_wrong_configuration_exits_with_4(
    postgres_databases: Databases, make_scene: MakeScene, wrong: dict[str, object], words: str
) -> None:
    """A mistake in the configuration is told before anything is started: 4, naming the key."""
    scene = make_scene(postgres_databases)
    scene.daemon.configure(wrong)
    done = scene.daemon.cli("run", check=False)
    assert done.returncode == 4
    assert words in done.stderr
    assert "Traceback" not in done.stderr
