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
from gateway.outcomes import Outcome
from gateway.storage import pools
from gateway.writer.copy import Writer
from gateway.writer.dead_letters import Selection
from tests.support.batching import Filling, StubRoute, database, published, settings_for
from tests.support.databases import Databases
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


async def test_a_device_without_a_name_has_the_share_of_its_topic(shared: Databases, table: Table) -> None:
    """Names that no index can hold, and none at all: counted all the same, and nothing is refused."""
    writer, filling = writer_of(shared, max_bytes_per_device=KIB * KIB), Filling()
    topics = [f"t/{uuid.uuid4()}", "t/" + "x" * 60_000]
    for topic in topics:
        for _ in range(20):
            filling.letter(published(topic, b"{" * 60 * KIB), origin=StubRoute(device=None))
    filling.letter(published("t", b"{"), origin=StubRoute(device="y" * 60_000))
    work = await written(writer, filling.batch)
    await writer.close()
    kept = [
        await table.fetchval("SELECT count(*) FROM dead_letters WHERE topic = $1", topic) for topic in topics
    ]
    assert kept == [16, 8]
    assert len(work.dead_letter_outcomes) == 41
    execute(shared.timeseries_dsn, "DELETE FROM dead_letters WHERE length(topic) > 50000")
