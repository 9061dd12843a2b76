"""Replay: dead letters through the same path again, after the cause is gone."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import mqtt5
import pytest

from gateway import clock, decoders
from gateway.daemon import replay
from gateway.daemon.replay import ReplayResult
from gateway.errors import StoreError
from gateway.messages import Reading
from gateway.outcomes import Outcome
from gateway.storage import retry
from gateway.writer.dead_letters import Selection
from tests.integration.conftest import REFUSE_POISON
from tests.support.batching import NOW_US, published, settings_for
from tests.support.databases import Databases, Workshop
from tests.support.flow import Flow
from tests.support.provisioned import provision
from tests.support.servers import Postgres
from tests.support.waiting import eventually_async
from tests.support.written import altered

NOW_MS = NOW_US // 1000


class Scene:
    """A gateway's databases with dead letters of a tenant of the test's own."""

    def __init__(self, databases: Databases, *streams: dict[str, Any]) -> None:
        self.databases, self.tenant = databases, f"t-{uuid.uuid4().hex[:12]}"
        self.stream = f"s-{uuid.uuid4().hex[:12]}"
        self.streams = streams or ({},)
        self.ids: dict[str, uuid.UUID] = {}
        self.waits: list[str] = []
        provision(databases, [], tenant=self.tenant)

    def provision(self, *serials: str) -> None:
        """Enter these devices."""
        self.ids |= provision(self.databases, serials, tenant=self.tenant)

    def message(self, payload: Any, device: str = "A", **rest: Any) -> mqtt5.PublishPacket:
        """A message of this device."""
        return published(f"t/{self.tenant}/{device}", payload, **rest)

    def options(self, **stream: Any) -> Any:
        """The settings, with the stream changed like this."""
        return settings_for(self.databases, {"name": self.stream, **stream})

    async def refuse(self, *messages: mqtt5.PublishPacket, received_us: int = NOW_US) -> None:
        """Have these messages end as dead letters, received at one moment."""
        async with Flow(self.options()) as flow:
            flow.take(*messages, received_us=received_us)
            assert await flow.settle() == {Outcome.DEAD_LETTERED: len(messages)}

    async def replay(
        self, *, limit: int = 1000, stored: bool = False, ids: Any = None, **stream: Any
    ) -> ReplayResult:
        """Replay all of our stream, or these."""
        chosen, result = Selection(ids=ids, stream=self.stream, stored=stored), ReplayResult()
        await replay.run(self.options(**stream), chosen, result, limit=limit, progress=self._progressed)
        return result

    def _progressed(self, _done: int, _total: int, waits: str) -> None:
        if waits and waits not in self.waits:
            self.waits.append(waits)

    def rows(self, device: str = "A") -> list[tuple[int, Any]]:
        """Rows of a device: microseconds after ``NOW_US``, and data."""
        found = self.databases.timeseries(
            "SELECT time, data FROM telemetry WHERE device_id = $1 ORDER BY time", self.ids[device]
        )
        return [(clock.from_datetime(row["time"]) - NOW_US, json.loads(row["data"])) for row in found]

    def letters(self) -> list[tuple[str, int, str | None]]:
        """Reason, number of replays and their outcome, in the order of coming."""
        found = self.databases.timeseries(
            "SELECT reason, replays, replay_outcome FROM dead_letters WHERE topic LIKE $1 ORDER BY received_at",
            f"t/{self.tenant}/%",
        )
        return [tuple(row) for row in found]


@pytest.fixture(scope="module")
def plain(postgres: Postgres, workshops: Callable[[Postgres], Workshop]) -> Iterator[Databases]:
    """Databases on plain PostgreSQL that the tests of this module share."""
    workshop = workshops(postgres)
    made = workshop.migrated()
    yield made
    workshop.drop(made)


async def test_a_letter_is_stored_once_its_cause_is_gone(shared: Databases) -> None:
    """The device is entered, the letter replayed: stored at its original receive time, and noted."""
    scene = Scene(shared)
    await scene.refuse(scene.message({"n": 1}), scene.message({"ts": NOW_MS - 5, "n": 2}))
    scene.provision("A")
    assert await scene.replay() == ReplayResult(replayed=2, stored=2, failed_again=0)
    assert scene.rows() == [(-5000, {"n": 2}), (0, {"n": 1})]
    assert scene.letters() == [("unknown_device", 1, "stored")] * 2
    assert await scene.replay() == ReplayResult()


async def test_replaying_twice_stores_once(shared: Databases) -> None:
    """Asked for again by id, and however many were received in one microsecond: each is there once."""
    scene = Scene(shared)
    payloads: list[Any] = [{"n": 1}, {"n": 1}, [{"n": 2}, {"n": 3}], {"n": 1}]
    await scene.refuse(*map(scene.message, payloads))
    scene.provision("A")
    await scene.replay()
    before = scene.rows()
    assert sorted(data["n"] for _, data in before) == [1, 1, 1, 2, 3]
    assert await scene.replay(stored=True) == ReplayResult(replayed=4, stored=4, failed_again=0)
    assert scene.rows() == before
    (one, *_) = scene.databases.timeseries(
        "SELECT id FROM dead_letters WHERE stream = $1 ORDER BY received_at DESC", scene.stream
    )
    assert await scene.replay(stored=True, ids=[one["id"]]) == ReplayResult(
        replayed=1, stored=1, failed_again=0
    )
    assert scene.rows() == before


async def test_what_its_message_id_refuses_again_stays(shared: Databases) -> None:
    """It was noted as stored, though nothing of it was: with the id free for it, it is."""
    scene = Scene(shared, {})
    scene.provision("A")
    first, other = ({"message_id": "m-1", "ts": NOW_MS + n, "metrics": {"n": n}} for n in range(2))
    async with Flow(scene.options(message_id_reused="dead_letter")) as flow:
        flow.take(scene.message(first), received_us=NOW_US)
        assert await flow.settle() == {Outcome.STORED: 1}
        flow.take(scene.message(other), received_us=NOW_US)
        assert (await flow.settle())[Outcome.DEAD_LETTERED] == 1
    for tries in (1, 2):
        result = await scene.replay(message_id_reused="dead_letter")
        assert result == ReplayResult(replayed=1, stored=0, failed_again=1)
        assert scene.letters() == [("message_id_reused", tries, "dead_lettered")]
    assert await scene.replay(message_id_reused="store") == ReplayResult(replayed=1, stored=1, failed_again=0)
    assert scene.rows() == [(0, {"n": 0}), (1000, {"n": 1})]
    assert scene.letters() == [("message_id_reused", 3, "stored")]


async def test_what_fails_again_stays_with_its_new_reason(shared: Databases) -> None:
    """It is the dead letter it was, not another; its bytes and its receive time are untouched."""
    scene = Scene(shared)
    await scene.refuse(scene.message(b"{"), scene.message({"serial_number": "B", "n": 1}))
    kept = (
        "SELECT id, payload, received_at, topic, qos FROM dead_letters WHERE stream = $1 ORDER BY received_at"
    )
    before = scene.databases.timeseries(kept, scene.stream)
    assert await scene.replay() == ReplayResult(replayed=2, stored=0, failed_again=2)
    scene.provision("A")
    assert await scene.replay() == ReplayResult(replayed=2, stored=0, failed_again=2)
    assert scene.letters() == [("malformed", 2, "dead_lettered"), ("device_mismatch", 2, "dead_lettered")]
    assert scene.databases.timeseries(kept, scene.stream) == before


async def test_good_and_bad_together(shared: Databases) -> None:
    """Stored, met before, failing again and refused by the database, in one batch: each is noted as it ended."""
    scene = Scene(shared)
    await scene.refuse(
        scene.message({"ts": NOW_MS, "n": 1}),
        scene.message(b"{"),
        scene.message({"ts": NOW_MS, "n": 1}),
        scene.message({"ts": NOW_MS, "m": 2}),
        scene.message({"n": 3}, "B"),
        scene.message({"poison": 4}),
        scene.message({"n": 5}),
    )
    scene.provision("A")
    assert await scene.replay() == ReplayResult(replayed=7, stored=4, failed_again=3)
    assert scene.letters() == [
        ("unknown_device", 1, "stored"),
        ("malformed", 1, "dead_lettered"),
        ("unknown_device", 1, "stored"),
        ("unknown_device", 1, "stored"),
        ("unknown_device", 1, "dead_lettered"),
        ("refused_by_database", 1, "dead_lettered"),
        ("unknown_device", 1, "stored"),
    ]
    assert [data for _, data in scene.rows()] == [{"n": 1, "m": 2}, {"n": 5}]


async def test_a_letter_that_the_database_refused_can_be_replayed(shared: Databases) -> None:
    """At the receive time that its reading had been given."""
    scene = Scene(shared)
    scene.provision("A")
    await scene.refuse(scene.message({"poison": 1}), scene.message({"poison": 2}))
    with altered(
        shared.timeseries_dsn,
        "ALTER TABLE telemetry DROP CONSTRAINT no_poison",
        "DELETE FROM telemetry WHERE jsonb_exists(data, 'poison');" + REFUSE_POISON,
    ):
        assert await scene.replay() == ReplayResult(replayed=2, stored=2, failed_again=0)
        assert scene.rows() == [(0, {"poison": 1}), (1, {"poison": 2})]


async def test_receive_times_are_kept_over_pages(plain: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters of one device that fill many pages get the times at which they came, in their order."""
    scene = Scene(plain)
    for n in range(7):
        await scene.refuse(scene.message({"n": n}), received_us=NOW_US + n * 1000)
    scene.provision("A")
    monkeypatch.setattr(replay, "_PAGE", 2)
    assert (await scene.replay()).stored == 7
    assert scene.rows() == [(n * 1000, {"n": n}) for n in range(7)]


async def test_the_newer_value_wins_as_it_would_have(
    plain: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings of one key are united in the order in which they came, over pages too."""
    scene = Scene(plain)
    for n in range(5):
        await scene.refuse(scene.message({"ts": NOW_MS, "n": n}), received_us=NOW_US + n * 1000)
    scene.provision("A")
    monkeypatch.setattr(replay, "_PAGE", 2)
    assert (await scene.replay()).stored == 5
    assert scene.rows() == [(0, {"n": 4})]


async def test_the_limit_takes_the_newest(plain: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the list shows them."""
    scene = Scene(plain)
    for n in range(5):
        await scene.refuse(scene.message({"n": n}), received_us=NOW_US + n)
    scene.provision("A")
    monkeypatch.setattr(replay, "_PAGE", 2)
    assert await scene.replay(limit=3) == ReplayResult(replayed=3, stored=3, failed_again=0)
    assert [data["n"] for _, data in scene.rows()] == [2, 3, 4]


async def test_an_own_id_counts_in_a_replay(plain: Databases) -> None:
    """User properties are part of a letter: what was published again and stored meanwhile is not stored twice."""
    scene = Scene(plain)
    with_id: dict[str, Any] = {"message_id": "property:id"}
    await scene.refuse(scene.message({"n": 1}, user_properties=[("id", "m-1")]))
    scene.provision("A")
    async with Flow(scene.options(**with_id)) as flow:
        flow.take(scene.message({"n": 1}, user_properties=[("id", "m-1")]))
        assert await flow.settle() == {Outcome.STORED: 1}
    assert (await scene.replay(**with_id)).stored == 1
    assert len(scene.rows()) == 1


async def test_a_replay_follows_the_streams_of_today(plain: Databases) -> None:
    """What matched no stream is replayed after one was added; what matches none any more stays a dead letter."""
    scene = Scene(plain)
    scene.provision("A")
    await scene.refuse(scene.message(b"{"))
    async with Flow(scene.options()) as flow:
        flow.take(published(f"new/{scene.tenant}/A", {"n": 1}))
        assert await flow.settle() == {Outcome.DEAD_LETTERED: 1}
    plain.timeseries(
        "UPDATE dead_letters SET stream = $1 WHERE topic = $2", scene.stream, f"new/{scene.tenant}/A"
    )
    result = await scene.replay(topic="new/{tenant}/{device}")
    assert result == ReplayResult(replayed=2, stored=1, failed_again=1)
    assert [data for _, data in scene.rows()] == [{"n": 1}]
    assert scene.letters() == [("no_stream", 1, "dead_lettered")]


async def test_what_configuration_ignores_now_is_not_called_stored(plain: Databases) -> None:
    """It stays a dead letter in sight."""
    scene = Scene(plain)
    await scene.refuse(scene.message({"n": 1}))
    assert await scene.replay(unknown_device="ignore") == ReplayResult(replayed=1, stored=0, failed_again=1)
    assert scene.letters() == [("device_ignored", 1, "dead_lettered")]


async def test_a_database_that_cannot_be_read_ends_the_replay(blank_databases: Databases) -> None:
    """With an error that says what to run, and no task left behind."""
    with pytest.raises(StoreError, match="gateway db upgrade"):
        await replay.run(
            settings_for(blank_databases), Selection(), ReplayResult(), limit=1, progress=lambda *_: None
        )


def _lines(_limits: decoders.Limits) -> decoders.Decode:
    """A format without a brace: a reading a line, none with a time."""
    return lambda payload: [Reading({"n": int(line)}) for line in payload.split()]


async def test_equal_letters_are_told_apart_in_any_format(
    plain: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal readings of one device and one instant, in letters replayed one by one, and again: each is there once."""
    monkeypatch.setitem(decoders._FORMATS, "lines", decoders.Format(_lines))
    monkeypatch.setattr(replay, "_PAGE", 1)
    scene = Scene(plain)
    for payload in (b"1 1 1", b"1", b"1 1", b"1"):
        await scene.refuse(scene.message(payload))
    scene.provision("A", "B")
    assert await scene.replay(decoder="lines") == ReplayResult(replayed=4, stored=4)
    assert [data for _, data in scene.rows()] == [{"n": 1}] * 7
    assert await scene.replay(decoder="lines", stored=True) == ReplayResult(replayed=4, stored=4)
    assert len(scene.rows()) == 7


async def test_a_letter_steps_aside_from_an_equal_reading(plain: Databases) -> None:
    """What the device sent with that very time, and the same values, is another reading."""
    scene = Scene(plain)
    await scene.refuse(scene.message({"n": 1}), scene.message({"n": 1}))
    scene.provision("A")
    async with Flow(scene.options()) as flow:
        flow.take(scene.message({"ts": NOW_MS, "n": 1}))
        assert await flow.settle() == {Outcome.STORED: 1}
    assert (await scene.replay()).stored == 2
    assert [time for time, _ in scene.rows()] == [0, 1, 2]


async def test_a_letter_full_of_braces_dates_no_other(plain: Databases) -> None:
    """Letters of one instant are a microsecond apart, whatever is in them: the readings of others keep their time."""
    scene = Scene(plain)
    await scene.refuse(scene.message(b"{" * 900_000), scene.message({"n": 1}, "B"), scene.message({"n": 2}))
    scene.provision("A", "B")
    assert (await scene.replay()).stored == 2
    assert (scene.rows("B"), scene.rows()) == ([(1, {"n": 1})], [(2, {"n": 2})])


async def test_a_partition_that_is_being_made_refuses_no_letter(
    plain: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed gateway left the DEFAULT partition closed to the day (23514): waited for, not noted as refused."""
    monkeypatch.setattr(retry, "_BOUND_UNKNOWN", 0.0)
    scene, noon = (
        Scene(plain),
        dt.datetime.fromtimestamp(NOW_MS // 86_400_000 * 86_400 - 40.5 * 86_400, dt.UTC),
    )
    await scene.refuse(scene.message({"ts": int(noon.timestamp() * 1000), "n": 1}))
    scene.provision("A")
    start, end = (noon.date() + dt.timedelta(days=n) for n in (0, 1))
    name = f"gateway_without_{start:%Y%m%d}"
    closed = f"CHECK (NOT (time >= '{start} 00:00+00' AND time < '{end} 00:00+00')) NOT VALID"
    with altered(
        plain.timeseries_dsn,
        f"ALTER TABLE telemetry_default ADD CONSTRAINT {name} {closed}",
        f"ALTER TABLE telemetry_default DROP CONSTRAINT {name}",
    ):
        replaying = asyncio.create_task(scene.replay())
        await eventually_async(lambda: scene.waits or replaying.done())
    assert await replaying == ReplayResult(replayed=1, stored=1)
    assert name in scene.waits[0]
    assert scene.letters() == [("unknown_device", 1, "stored")]
