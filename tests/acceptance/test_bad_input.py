"""Bad input through the real broker: each message has its stated end, and stops or slows no other."""

from __future__ import annotations

import datetime as dt
import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Scene, combinations
from tests.support.bad_input import CASES, KEPT, NOW_MS, Case, timed
from tests.support.databases import Databases
from tests.support.plan import TELEMETRY
from tests.support.provisioned import provision
from tests.support.waiting import eventually
from tests.support.wire import Wire

pytestmark = pytest.mark.mosquitto

MakeScene = Callable[..., Scene]
BEFORE_MS, AFTER_MS = NOW_MS - 30_000, NOW_MS + 30_000
"""Times of the good readings sent before and after each bad one, by the same device."""


def topic_of(device: str) -> str:
    """Where this device publishes."""
    return TELEMETRY.format(tenant="acme", device=device)


def serial(position: int) -> str:
    """The device of the case at this position."""
    return f"CASE-{position}"


everywhere = combinations("postgres 5", "timescaledb 5", "timescaledb 3.1.1")


@pytest.fixture
def scene(databases: Databases, make_scene: MakeScene, protocol: str) -> Scene:
    """A daemon that is ready, with a device for each case, and one that is disabled."""
    scene = make_scene(databases, {"mqtt": {"protocol": protocol}})
    provision(databases, [*(serial(position) for position in range(len(CASES))), "OFF"])
    databases.metadata("UPDATE devices SET status = 'disabled' WHERE serial_number = 'OFF'")
    scene.daemon.start()
    return scene


def publish_all(scene: Scene) -> int:
    """Each case between two good readings of its device; how many messages that were."""
    with Wire(scene.broker.port) as wire:
        for position, case in enumerate(CASES):
            own = topic_of(serial(position))
            wire.publish(own, timed('"good": 1', BEFORE_MS))
            wire.publish(case.topic or own, case.payload)
            wire.publish(own, timed('"good": 2', AFTER_MS))
    return 3 * len(CASES)


def found(scene: Scene, position: int, case: Case) -> tuple[Any, ...]:
    """What became of a case: reason and bytes of its dead letter, or how many rows; and its neighbours."""
    letters = scene.databases.timeseries(
        "SELECT reason, payload FROM dead_letters WHERE topic = $1 AND stream = 'telemetry'",
        case.topic or topic_of(serial(position)),
    )
    good, bad = [], 0
    for row in rows_of(scene, position):
        if "good" in row["data"]:
            good.append(row["data"])
        else:
            bad += 1
    return [(row["reason"], row["payload"]) for row in letters], bad, sorted(good)


def rows_of(scene: Scene, position: int) -> list[Any]:
    """The rows of a case's device."""
    device = scene.databases.metadata("SELECT id FROM devices WHERE serial_number = $1", serial(position))
    statement = "SELECT time, data FROM telemetry WHERE device_id = $1 ORDER BY time"
    return scene.databases.timeseries(statement, device[0]["id"])


@everywhere
def test_each_ends_as_stated(scene: Scene) -> None:
    """Stored, or a dead letter with reason, topic and the original bytes; its neighbours are stored."""
    scene.daemon.settle(publish_all(scene))
    good = ['{"good": 1}', '{"good": 2}']
    ended = {case.name: found(scene, position, case) for position, case in enumerate(CASES)}
    stated = {
        case.name: ([(case.reason, case.payload[:KEPT])], 0, good) if case.reason else ([], case.rows, good)
        for case in CASES
    }
    wrong = {name: _short(ended[name]) for name in stated if ended[name] != stated[name]}
    assert wrong == {}
    assert scene.daemon.status()["balanced"]


def _short(end: tuple[Any, ...]) -> str:
    return repr(end)[:300]


@everywhere
def test_what_is_stored_is_stored_faithfully(scene: Scene) -> None:
    """Values and times are those that the device sent."""
    scene.daemon.settle(publish_all(scene))
    for position, case in enumerate(CASES):
        if case.data is None and case.time_ms is None:
            continue
        (row,) = [row for row in rows_of(scene, position) if "good" not in row["data"]]
        if case.data is not None:
            kept = scene.databases.timeseries("SELECT $1::jsonb = $2::jsonb", row["data"], case.data)
            assert kept[0][0], f"{case.name}: {row['data']}"
        if case.time_ms is not None:
            assert row["time"] == dt.datetime.fromtimestamp(case.time_ms / 1000, dt.UTC), case.name


@everywhere
def test_the_same_again_and_otherwise(scene: Scene) -> None:
    """The same reading twice is a duplicate; other metrics under the same key are united, the newer value wins."""
    with Wire(scene.broker.port) as wire:
        for metrics in ('"a": 1, "b": 1', '"a": 1, "b": 1', '"b": 2, "c": 3'):
            wire.publish(topic_of(serial(0)), timed(metrics))
    books = scene.daemon.settle(3)
    assert (books["stored"], books["duplicate"]) == (2, 1)
    (row,) = rows_of(scene, 0)
    assert row["data"] == '{"a": 1, "b": 2, "c": 3}'


@combinations("postgres 5", "postgres 3.1.1")
def test_a_topic_of_no_stream(scene: Scene) -> None:
    """What an earlier configuration subscribed to still comes: it is kept as a dead letter, and settled."""
    streams = scene.daemon.settings["streams"]
    scene.daemon.stop()
    scene.daemon.configure({"streams": [*streams, {"name": "old", "topic": "old/{tenant}/{device}"}]})
    scene.daemon.start()
    scene.daemon.stop()
    scene.daemon.configure({"streams": streams})
    with Wire(scene.broker.port) as wire:
        wire.publish("old/acme/CASE-0", timed('"n": 1'))
        wire.publish(topic_of("CASE-0"), timed('"n": 2'))
    scene.daemon.start()
    scene.daemon.settle(2)
    (letter,) = scene.databases.timeseries("SELECT topic, payload, reason FROM dead_letters")
    assert tuple(letter) == ("old/acme/CASE-0", timed('"n": 1'), "no_stream")
    assert scene.stored() == 1


@combinations("postgres 5", "postgres 3.1.1")
def test_the_brokers_own_topics(scene: Scene) -> None:
    """A stream of everything does not take ``$SYS``; a stream of kind ``ignore`` does, and counts it."""
    everything = {"name": "everything", "topic": "#", "tenant": "acme"}
    scene.daemon.stop()
    scene.daemon.configure({"streams": [{"name": "sys", "topic": "$SYS/#", "kind": "ignore"}, everything]})
    scene.daemon.start()
    eventually(lambda: scene.daemon.total()["ignored"] > 10, what="$SYS is ignored")
    status = scene.daemon.status()
    assert status["balanced"]
    assert status["streams"]["everything"]["received"] == 0
    assert scene.databases.count("dead_letters") == 0


@combinations("postgres 5", "timescaledb 5")
def test_what_is_flagged_breaks_no_query(scene: Scene) -> None:
    """Text, truth and fractions in fields of numbers are stored beside the data: casts of the field go on working."""
    scene.databases.metadata(
        "INSERT INTO field_mappings (device_type_id, field_name, data_type) "
        "SELECT t.id, f.name, f.kind FROM device_types t, "
        "(VALUES ('t', 'float'), ('n', 'int'), ('b', 'bool')) f (name, kind)"
    )
    values = ["21.5", '"hot"', "true", '{"c": 5}', "[1]", '"NaN"', "1.5", "3.0", str(2**70), "null"]
    with Wire(scene.broker.port) as wire:
        for number, value in enumerate(values):
            metrics = f'"t": {value}, "n": {value}, "b": {value}'
            wire.publish(topic_of(serial(0)), timed(metrics, NOW_MS - number))
    books = scene.daemon.settle(len(values))
    assert books["stored"] == len(values)
    (row,) = scene.databases.timeseries(
        "SELECT avg((data->>'t')::float) AS t, array_agg((data->>'n')::bigint) FILTER (WHERE data->>'n' <> '') AS n, "
        "bool_and((data->>'b')::boolean) AS b FROM telemetry"
    )
    assert tuple(row) == (pytest.approx((21.5 + 1.5 + 3 + 2**70) / 4), [3], True)
    kept = scene.databases.timeseries(
        "SELECT metadata->'invalid'->>'t' FROM telemetry WHERE metadata->'violations'->>'t' = 'invalid_field'"
    )
    assert sorted(row[0] for row in kept) == sorted(["hot", "true", '{"c": 5}', "[1]", "NaN"])


@combinations("postgres 5")
def test_the_time_stands_where_the_stream_says(scene: Scene) -> None:
    """A key that another stream has is none here: flagged, at the receive time, and counted."""
    scene.daemon.stop()
    (stream,) = scene.daemon.settings["streams"]
    scene.daemon.configure({"streams": [{**stream, "time_keys": ["at"]}]})
    scene.daemon.start()
    with Wire(scene.broker.port) as wire:
        wire.publish(topic_of(serial(0)), b'{"at": %d, "n": 1}' % NOW_MS)
        wire.publish(topic_of(serial(0)), b'{"ts": %d, "metrics": {"n": 2}}' % NOW_MS)
    scene.daemon.settle(2)
    rows = scene.databases.timeseries("SELECT time, data, metadata FROM telemetry ORDER BY time")
    assert [row["data"] for row in rows] == ['{"n": 1}', '{"n": 2}']
    assert rows[0]["time"] == dt.datetime.fromtimestamp(NOW_MS / 1000, dt.UTC)
    assert rows[1]["time"] > rows[0]["time"]
    assert json.loads(rows[1]["metadata"]) == {"ts": NOW_MS, "violations": {"ts": "time_not_used"}}
    with urllib.request.urlopen(
        f"http://{scene.daemon.host}:{scene.daemon.port}/metrics", timeout=5
    ) as answer:
        text = answer.read().decode()
    assert 'gateway_flagged_total{reason="time_not_used",stream="telemetry"} 1.0' in text
