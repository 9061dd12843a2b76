"""The daemon, its servers and a load, as one scene."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.databases import Databases
from tests.support.load import Load
from tests.support.plan import TELEMETRY, Plan
from tests.support.provisioned import provision
from tests.support.servers import Mosquitto
from tests.support.waiting import eventually
from tests.support.wire import Wire, left_in_session

_MARKER = TELEMETRY.format(tenant="nobody", device="marker")


class Scene:
    """A broker, migrated databases, and a daemon that is not started yet; all end with the test."""

    def __init__(self, broker: Mosquitto, databases: Databases, settings: dict[str, Any]) -> None:
        self.broker, self.databases = broker, databases
        self.daemon = Daemon(broker.port, databases, settings)
        self._loads: list[Load] = []

    def load(self, plan: Plan, *, rate: float = 0) -> Load:
        """Enter the plan's devices into the registry and start publishing it; the session must exist."""
        provision(self.databases, plan.serials, tenant=plan.tenant)
        self._loads.append(Load(self.broker.port, plan, rate=rate))
        return self._loads[-1].start()

    def stored(self) -> int:
        """Rows of ``telemetry`` now."""
        return self.databases.count("telemetry")

    def all_delivered(self) -> None:
        """Wait until the daemon has come to a message that is published now.

        After a kill the broker sends again what was stored, as it had not read the acknowledgements: the tables are
        complete long before it has sent all.
        """
        marker = secrets.token_bytes(16)
        with Wire(self.broker.port) as wire:
            wire.publish(_MARKER, marker)
        remove = "DELETE FROM dead_letters WHERE payload = $1 RETURNING id"
        eventually(
            lambda: self.databases.timeseries(remove, marker), timeout=60, every=0.1, what="the last message"
        )

    def left_at_broker(self) -> list[Any]:
        """What the broker still holds for the daemon, which must have ended."""
        return left_in_session(self.broker.port, self.daemon.client_id, _MARKER)

    def close(self) -> None:
        """End all that was started here."""
        for process in (*self._loads, self.daemon):
            process.close()


@pytest.fixture
def make_scene(
    start_mosquitto: Callable[..., Mosquitto], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Scene]]:
    """``make_scene(databases, settings, max_inflight=…)``: the broker runs, the daemon does not yet."""
    made: list[Scene] = []

    def make(databases: Databases, settings: dict[str, Any] | None = None, **broker: Any) -> Scene:
        made.append(Scene(start_mosquitto(**broker), databases, settings or {}))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture(params=["5", "3.1.1"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Both versions of MQTT in turn."""
    found: str = request.param
    return found


def combinations(*chosen: str) -> pytest.MarkDecorator:
    """Some pairs of engine and protocol, such as ``"timescaledb 5"``: each load takes its time."""
    pairs = [
        pytest.param(
            *pair.split(), marks=pytest.mark.timescaledb if pair.startswith("timescaledb") else (), id=pair
        )
        for pair in chosen
    ]
    return pytest.mark.parametrize(("server", "protocol"), pairs, indirect=True)
