"""One device, or one log-in, against all others: it delays them by a second at most, and costs bounded memory.

A row is a function that attacks and says how many messages it published; add one to ``ROWS``. It gets the scene and
how much it shall do: ``few`` in the short form, ``many`` with ``GATEWAY_FAULTS=all``. What an attack needs first (a
constraint, readings that are taken) it makes itself, outside of what is measured, in ``prepare``.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import _made
from tests.faults.conftest import AGAINST_ALL, ALL, engines
from tests.support.against_all import DELAY_ALLOWED, MEMORY_ALLOWED, Scene, Stage
from tests.support.databases import Workshop
from tests.support.servers import Mosquitto, Server
from tests.support.sql import execute

pytestmark = pytest.mark.mosquitto


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        attack: publishes so much, and returns how many messages the daemon must settle for it.
        few, many: what it is given, in the short form and in the long one.
        prepare: run before, while nothing is measured.
        delay: seconds, p99 of the innocent device's readings.
        memory: bytes, the daemon's peak.
    """

    name: str
    attack: Callable[[Scene, int], int]
    few: int
    many: int
    prepare: Callable[[Scene], object] = lambda _scene: None
    delay: float = DELAY_ALLOWED
    memory: int = MEMORY_ALLOWED


def now_ms() -> int:
    """The time of a device whose clock is right."""
    return int(time.time() * 1000)


def reading(ts: int, **metrics: float) -> bytes:
    """Native JSON."""
    return json.dumps({"ts": ts, "metrics": metrics or {"t": 1}}).encode()


def unknown_devices(scene: Scene, count: int) -> int:
    """A topic of its own for each message, of a device that nobody entered."""
    one = reading(now_ms())
    return scene.publish((scene.topic(f"ghost-{number}"), one) for number in range(count))


def poison_is_refused(scene: Scene) -> None:
    """An operator's constraint: readings with this metric are what only the database refuses."""
    execute(
        scene.databases.timeseries_dsn,
        "ALTER TABLE telemetry ADD CONSTRAINT no_poison CHECK (NOT jsonb_exists(data, 'poison'))",
    )


def refused_by_the_database(scene: Scene, count: int) -> int:
    """A burst of readings that are fine but for the database."""
    start = now_ms()
    return scene.publish((scene.topic(), reading(start + n, poison=n)) for n in range(count))


def readings_of_one_time(scene: Scene, count: int) -> int:
    """Messages of ten thousand readings, all of one device and time, each with fields of its own."""
    ts = now_ms()
    return scene.publish(
        (scene.topic(), json.dumps([{"ts": ts, "metrics": {f"f{n}-{k}": k}} for k in range(10_000)]).encode())
        for n in range(count)
    )


def one_row_that_grows(scene: Scene, count: int) -> int:
    """Messages of a megabyte into one row, each with fields of its own."""
    ts = now_ms()
    return scene.publish(
        (scene.topic(), reading(ts, **{f"{n}-{k:06}": k * 1.000001 for k in range(30_000)}))
        for n in range(count)
    )


def long_topics(scene: Scene, count: int) -> int:
    """The same with topics of 60 KB."""
    one = reading(now_ms())
    return scene.publish((scene.topic(f"{number:060000}"), one) for number in range(count))


def topics_like_addresses(scene: Scene, count: int) -> int:
    """Topics in which the log looks for passwords of URLs."""
    name = "a%3A%2F%2F" * 1200
    return scene.publish((scene.topic(f"{name}{number}"), b"{}") for number in range(count))


def empty_properties(scene: Scene, count: int) -> int:
    """MQTT 5 user properties without end."""
    now = now_ms()
    return scene.publish(((scene.topic(), reading(now - i)) for i in range(count)), [("", "")] * 300_000)


def readings_of_other_days(scene: Scene, count: int) -> int:
    """Each of a day of its own, as far back as is believed, and again: days that no chunk is there for."""
    now = now_ms()
    return scene.publish(
        (scene.topic(), reading(now - (8 + n % 3600) * 86_400_000 - n // 3600)) for n in range(count)
    )


ROWS = [
    Row("messages that the database refuses", refused_by_the_database, 1500, 3000, poison_is_refused),
    Row("readings of ever other days", readings_of_other_days, few=600, many=9_000),
    Row("messages of 10 000 readings of one time", readings_of_one_time, few=1, many=10),
    Row("messages of 1 MB merged into one row", one_row_that_grows, few=4, many=60),
    Row("distinct topics of 60 KB", long_topics, few=200, many=10_000),
    Row("topics like encoded URLs", topics_like_addresses, few=20, many=200),
    Row("messages of 300 000 empty user properties", empty_properties, few=4, many=20),
    Row("distinct short topics of unknown devices", unknown_devices, few=5_000, many=300_000),
]


@pytest.fixture(scope="module", params=engines() if ALL else engines()[-1:])
def engine(request: pytest.FixtureRequest) -> Server:
    """What the scenes of this module run on."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def stage(engine: Server, workshops: Callable[[Server], Workshop]) -> Iterator[Stage]:
    """The stage that all rows of an engine share."""
    # The window is that of config/mosquitto.conf.
    with _made("mosquitto", lambda: Mosquitto(max_inflight=2000)) as broker:
        made = Stage(workshops(engine), broker.start())
        yield made
        made.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_one_costs_all_others(stage: Stage, row: Row) -> None:
    """The innocent device's readings are all stored, 99 % of them within a second; memory is bounded; no restart."""
    with stage.scene() as scene:
        row.prepare(scene)
        found = scene.measure(row.name, lambda: row.attack(scene, row.many if ALL else row.few))
        AGAINST_ALL.append(found)
        assert found.p99 <= row.delay, found
        assert found.memory <= row.memory, found
