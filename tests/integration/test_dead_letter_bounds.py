"""Dead letters within bounds, on both engines: payloads are cut, a device has its share of an hour, old ones go."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid

import pytest

from gateway import settings
from gateway.daemon import replay
from gateway.daemon.dead_letter_purge import DeadLetterPurge
from gateway.daemon.replay import ReplayResult
from gateway.errors import StoreError
from gateway.messages import Share
from gateway.mqtt.frames import PacketReader
from gateway.outcomes import Outcome
from gateway.storage import pools
from gateway.writer import dead_letters
from gateway.writer.copy import Writer
from gateway.writer.dead_letters import Selection
from gateway.writer.work import BatchWrite
from tests.support.batching import Filling, StubRoute, database, published, settings_for
from tests.support.databases import Databases
from tests.support.flow import Flow
from tests.support.provisioned import provision
from tests.support.sessions import a_ledger
from tests.support.sql import execute
from tests.support.written import Table, letters_of, written

KIB = 2**10


def writer_of(databases: Databases, **options: object) -> Writer:
    """A writer with these bounds."""
    letters = settings.DeadLettersSettings.model_validate(options)
    return Writer(
        database(databases.timeseries_dsn), a_ledger(str(uuid.uuid4())), horizon=60, letters=letters
    )


async def test_a_large_payload_is_cut(shared: Databases, table: Table) -> None:
    """So much is kept as is allowed, with length and digest of the whole; one that fits is whole, and says nothing."""
    filling, writer = Filling(), writer_of(shared, max_payload_bytes=KIB)
    payloads = [b"{" + b"x" * 5000, b"{" + b"x" * (KIB - 1)]
    ids = [filling.letter(published("t/a", payload)) for payload in payloads]
    found = await letters_of(table, await written(writer, filling.batch))
    await writer.close()
    cut, whole = (found[one] for one in ids)
    assert cut["payload"] == payloads[0][:KIB]
    assert (cut["payload_bytes"], cut["payload_digest"]) == (5001, hashlib.sha256(payloads[0]).digest())
    assert (whole["payload"], whole["payload_bytes"], whole["payload_digest"]) == (payloads[1], None, None)


async def test_a_device_has_its_share_of_an_hour(shared: Databases, table: Table) -> None:
    """Through several connections, what is beyond is counted; another device's are kept; a try again counts once."""
    loud, quiet = f"L-{uuid.uuid4()}", f"Q-{uuid.uuid4()}"
    writers = [writer_of(shared, max_bytes_per_device=KIB * KIB) for _ in range(2)]
    for n in range(4):
        filling = Filling()
        for _ in range(20):
            filling.letter(published("t/loud", b"{" * 30 * KIB), origin=StubRoute(device=loud))
        filling.letter(published("t/quiet", b"{"), origin=StubRoute(device=quiet))
        work = await written(writers[n % 2], filling.batch)
        assert set(work.dead_letter_outcomes) == {Outcome.DEAD_LETTERED}
    for writer in writers:
        await writer.close()
    counts = "SELECT count(*) FROM dead_letters WHERE device = $1"
    kept = [await table.fetchval(counts, device) for device in (loud, quiet)]
    not_kept = "SELECT sum(not_kept) FROM dead_letter_hours WHERE device = $1"
    assert kept == [33, 4]
    assert [await table.fetchval(not_kept, device) for device in (loud, quiet)] == [47, 0]


async def test_a_cut_letter_is_not_replayed(shared: Databases, table: Table) -> None:
    """It stays a dead letter, however often it is tried, and its detail says why; others are replayed."""
    stream = f"s-{uuid.uuid4().hex[:12]}"
    origin, filling = StubRoute(), Filling()
    origin.stream_name = stream
    writer = writer_of(shared, max_payload_bytes=KIB)
    id_ = filling.letter(published("t/a/b", json.dumps({"n": "x" * 5000}).encode()), origin=origin)
    filling.letter(published("t/a/b", b"{"), origin=origin)
    await written(writer, filling.batch)
    await writer.close()
    for _ in range(2):
        result = ReplayResult()
        options = settings_for(shared, {"name": stream})
        await replay.run(options, Selection(stream=stream), result, limit=9, progress=lambda *_: None)
        assert result == ReplayResult(replayed=2, stored=0, failed_again=2)
    row = await table.fetchrow("SELECT reason, detail, replays FROM dead_letters WHERE id = $1", id_)
    assert (row["reason"], row["replays"]) == ("malformed", 2)
    assert row["detail"].count("1024 of its 5009 bytes were kept (dead_letters.max_payload_bytes)") == 1


async def test_old_letters_are_deleted(shared: Databases, table: Table) -> None:
    """What is older than is kept, and its counts; younger ones stay, and nobody may delete those of a day."""
    device, writer, filling = f"D-{uuid.uuid4()}", writer_of(shared), Filling()
    for _ in range(3):
        filling.letter(published("t/a", b"{"), origin=StubRoute(device=device))
    await written(writer, filling.batch)
    await writer.close()
    old = dt.datetime.now(dt.UTC) - dt.timedelta(days=91)
    two = "id IN (SELECT id FROM dead_letters WHERE device = $2 LIMIT 2)"
    await table.execute(f"UPDATE dead_letters SET received_at = $1 WHERE {two}", old, device)
    await table.execute("UPDATE dead_letter_hours SET hour = $1, not_kept = 9 WHERE device = $2", old, device)
    pool = pools.Pool("timeseries", database(shared.timeseries_dsn), size=1)
    assert await DeadLetterPurge(pool, 90 * 86_400).once() >= 2
    with pytest.raises(StoreError):
        await DeadLetterPurge(pool, 3600).once()
    await pool.close()
    assert await table.fetchval("SELECT count(*) FROM dead_letters WHERE device = $1", device) == 1
    assert await table.fetchval("SELECT count(*) FROM dead_letter_hours WHERE device = $1", device) == 0


async def test_names_that_no_index_can_hold(shared: Databases, table: Table) -> None:
    """Are counted all the same, and nothing is refused."""
    writer, filling = writer_of(shared, max_bytes_per_device=KIB * KIB), Filling()
    topic = "t/" + "x" * 60_000
    for _ in range(20):
        filling.letter(published(topic, b"{" * 60 * KIB), origin=StubRoute(device="y" * 60_000))
    work = await written(writer, filling.batch)
    await writer.close()
    assert await table.fetchval("SELECT count(*) FROM dead_letters WHERE topic = $1", topic) == 8
    assert len(work.dead_letter_outcomes) == 20
    execute(shared.timeseries_dsn, "DELETE FROM dead_letters WHERE length(topic) > 50000")


class Invented:
    """A stream of the test's own, in which names are claimed that the registry does not know."""

    def __init__(self, table: Table) -> None:
        self._table, self.stream = table, f"s-{uuid.uuid4().hex[:12]}"

    def batch(self, count: int, share: Share, tenant: str = "acme", device: str | None = None) -> Filling:
        """Letters of 30 KiB; each of another device, unless it is named."""
        filling = Filling()
        for _ in range(count):
            origin = StubRoute(tenant=tenant, device=device or f"G-{uuid.uuid4()}", share=share)
            origin.stream_name = self.stream
            filling.letter(published("t/acme/ghost", b"{" * 30 * KIB), origin=origin)
        return filling

    async def kept(self) -> int:
        """Letters that are there."""
        found: int = await self._table.fetchval(
            "SELECT count(*) FROM dead_letters WHERE stream = $1", self.stream
        )
        return found

    async def hours(self) -> dict[tuple[str | None, str | None], int]:
        """What was only counted, by tenant and device; one row each."""
        found = await self._table.fetch(
            "SELECT tenant, device, not_kept FROM dead_letter_hours WHERE stream = $1", self.stream
        )
        assert len({(row["tenant"], row["device"]) for row in found}) == len(found)
        return {(row["tenant"], row["device"]): row["not_kept"] for row in found}


async def test_devices_that_nobody_entered_have_one_share(shared: Databases, table: Table) -> None:
    """However many names are invented; that of a known device is its own, before and after it is used up."""
    scene, writer = Invented(table), writer_of(shared, max_bytes_unknown=KIB * KIB)
    for filling in (
        scene.batch(20, "tenant"),
        scene.batch(5, "device", device="K-1"),
        scene.batch(30, "tenant"),
        scene.batch(5, "device", device="K-1"),
    ):
        work = await written(writer, filling.batch)
        assert set(work.dead_letter_outcomes) == {Outcome.DEAD_LETTERED}
    await writer.close()
    assert await scene.kept() == 33 + 10
    assert await scene.hours() == {("acme", None): 17, ("acme", "K-1"): 0}
    selected = [Selection(stream=scene.stream, tenant="acme", device=device) for device in (None, "K-1")]
    assert [await dead_letters.not_kept(table, one) for one in selected] == [17, 0]


async def test_tenants_that_nobody_entered_share_their_streams(shared: Databases, table: Table) -> None:
    """A name that was invented makes no share; tenants that are known have one each."""
    scene, writer = Invented(table), writer_of(shared, max_bytes_unknown=KIB * KIB)
    for n in range(20):
        await written(writer, scene.batch(2, "stream", tenant=f"ghost-{n}").batch)
    for tenant in ("acme", "globex"):
        await written(writer, scene.batch(20, "tenant", tenant=tenant).batch)
    await writer.close()
    assert await scene.kept() == 33 + 20 + 20
    assert await scene.hours() == {(None, None): 7, ("acme", None): 0, ("globex", None): 0}


async def test_what_was_written_without_an_answer_is_counted_once(shared: Databases, table: Table) -> None:
    """A commit that was done counts its bytes; tried again, it is found in the ledger."""
    scene, writer = Invented(table), writer_of(shared, max_bytes_unknown=KIB * KIB)
    filling = scene.batch(50, "tenant")
    work = BatchWrite(filling.batch)
    written_as = work.next.id
    await writer.write(work)
    again = BatchWrite(filling.batch)
    again.next.id, again.next.uncertain = written_as, True
    await writer.write(again)
    await writer.close()
    assert await scene.kept() == 33
    assert await scene.hours() == {("acme", None): 17}


async def test_who_is_unknown_is_what_the_registry_says(shared: Databases, table: Table) -> None:
    """From the topic to the count: invented devices and tenants, whatever is wrong with their messages, known ones."""
    tenant, stream = f"t-{uuid.uuid4().hex[:12]}", f"s-{uuid.uuid4().hex[:12]}"
    provision(shared, ["K-1", "K-2"], tenant=tenant)
    bound = {"max_payload_bytes": KIB}
    async with Flow(settings_for(shared, {"name": stream}, validation=bound)) as flow:
        flow.take(*(published(f"t/{tenant}/K-{1 + n % 2}", b"{") for n in range(4)))
        await flow.settle()
        for payload in (b"{}", b"x" * 2 * KIB):
            flow.take(*(published(f"t/{tenant}/ghost-{n}", payload) for n in range(20)))
            flow.take(*(published(f"t/ghost-{n}/K-1", payload) for n in range(20)))
        assert await flow.settle() == {Outcome.DEAD_LETTERED: 84}
    found = await table.fetch("SELECT tenant, device, bytes FROM dead_letter_hours WHERE stream = $1", stream)
    assert {(row["tenant"], row["device"]) for row in found} == {
        (tenant, "K-1"), (tenant, "K-2"), (tenant, None), (None, None),
    }  # fmt: skip
    assert len(found) == 4
    names = await table.fetch("SELECT DISTINCT tenant, device FROM dead_letters WHERE stream = $1", stream)
    assert len(names) == 42, "each letter names what its topic names"


async def test_a_topic_without_end_is_cut_and_not_replayed(shared: Databases, table: Table) -> None:
    """It is kept as a topic of its stream, in the books of that; its letter stays one and says why."""
    tenant, stream = f"t-{uuid.uuid4().hex[:12]}", f"s-{uuid.uuid4().hex[:12]}"
    provision(shared, ["x" * 100], tenant=tenant)
    reader = PacketReader(2**20, longest_topic=KIB)
    topic = f"t/{tenant}/" + "x" * 60_000
    async with Flow(settings_for(shared, {"name": stream})) as flow:
        flow.take(*reader.feed(published(topic, {"n": 1}).write()).messages)
        await flow.settle()
        assert flow.ended(stream) == {Outcome.DEAD_LETTERED: 1}
    for _ in range(2):
        result = ReplayResult()
        options = settings_for(shared, {"name": stream})
        await replay.run(options, Selection(stream=stream), result, limit=9, progress=lambda *_: None)
        assert result == ReplayResult(replayed=1, stored=0, failed_again=1)
    row = await table.fetchrow("SELECT * FROM dead_letters WHERE stream = $1", stream)
    digest = hashlib.sha256(topic.encode()).hexdigest()
    assert f"...[{len(topic)} bytes, SHA-256 {digest}]..." in row["topic"]
    assert len(row["topic"]) < 1200
    assert (row["reason"], row["replays"], row["payload"]) == ("payload_too_large", 2, b'{"n": 1}')
    assert f"a topic of {len(topic)} bytes (mqtt.max_topic_bytes = {KIB})" in row["detail"]
    why = "cannot be replayed: of its topic only the ends were kept (mqtt.max_topic_bytes)"
    assert row["detail"].count(why) == 1
