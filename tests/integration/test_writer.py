"""From a batch to committed rows, on both engines: stored, or a dead letter, each message by itself."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Sequence

import asyncpg
import pytest

from gateway import clock
from gateway.messages import Device
from gateway.outcomes import Outcome, Reason
from gateway.writer import rows
from gateway.writer.copy import Writer
from gateway.writer.layouts.document import encoding
from gateway.writer.work import BatchWrite
from tests.integration.conftest import REFUSE_POISON, Writers
from tests.support.batching import NOW_US, Filling, StubRoute, a_device, published
from tests.support.databases import Databases, Workshop
from tests.support.servers import Postgres
from tests.support.sql import execute
from tests.support.waiting import eventually_async
from tests.support.written import Table, altered, letters_of, name_of, rows_of, written

STORED, DUPLICATE, DEAD = Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED


async def test_readings_are_stored(writer: Writer, table: Table) -> None:
    """One row a reading, under the device's key, with data and metadata as they were."""
    device, filling = a_device(), Filling()
    filling.timed(device, NOW_US, {"temperature": 21.5, "door": None})
    filling.timed(device, NOW_US + 1, {"n": 2**63}, {"site": "A"})
    filling.untimed(device, NOW_US + 2, {"acc": {"x": [1, "°"]}})
    work = await written(writer, filling.batch)
    assert work.outcomes == [STORED] * 3
    assert await rows_of(table, device) == [
        (0, '{"door": null, "temperature": 21.5}', None),
        (1, '{"n": 9223372036854775808}', '{"site": "A"}'),
        (2, '{"acc": {"x": [1, "°"]}}', None),
    ]


async def test_the_same_batch_again_is_all_duplicates(writer: Writer, table: Table) -> None:
    """Readings with times of their own meet themselves; nothing changes, nothing is there twice."""
    device, filling = a_device(), Filling()
    for n in range(5):
        filling.timed(device, NOW_US + n, {"n": n}, {"m": n} if n % 2 else None)
    await written(writer, filling.batch)
    before = await rows_of(table, device)
    work = await written(writer, filling.batch)
    assert work.outcomes == [DUPLICATE] * 5
    assert await rows_of(table, device) == before


async def test_a_batch_larger_than_any_buffer(writer: Writer, table: Table) -> None:
    """Ten thousand readings with large values go in one piece."""
    device, filling = a_device(), Filling()
    for n in range(10_000):
        filling.timed(device, NOW_US + n, {"n": n, "text": "x" * 300})
    assert set((await written(writer, filling.batch)).outcomes) == {STORED}
    found = await table.fetchval("SELECT count(*) FROM telemetry WHERE device_id = $1", device.id)
    assert found == 10_000


# ---------------------------------------------------------------- poison


def with_poison(device: Device, count: int, bad: Sequence[int]) -> Filling:
    """A batch of so many readings, those at ``bad`` with a value that only the database refuses."""
    filling = Filling()
    for n in range(count):
        filling.timed(device, NOW_US + n, {"poison": n} if n in bad else {"n": n})
    return filling


POISONED = {
    "the only one": (1, [0]),
    "the first": (100, [0]),
    "the last": (100, [99]),
    "in the middle": (100, [50]),
    "neighbours": (100, [49, 50]),
    "every other": (32, list(range(0, 32, 2))),
    "all": (24, list(range(24))),
}


@pytest.mark.parametrize(("count", "bad"), POISONED.values(), ids=POISONED)
async def test_poison_costs_itself_only(writer: Writer, table: Table, count: int, bad: list[int]) -> None:
    """The readings that the database refuses become dead letters, with their bytes; all others are stored."""
    device = a_device()
    filling = with_poison(device, count, bad)
    work = await written(writer, filling.batch)
    assert work.outcomes == [DEAD if n in bad else STORED for n in range(count)]
    assert await rows_of(table, device) == [(n, f'{{"n": {n}}}', None) for n in range(count) if n not in bad]
    letters = [(await letters_of(table, work))[work.refused[n].id] for n in bad]
    assert [(row["reason"], row["payload"], row["topic"]) for row in letters] == [
        ("refused_by_database", b'{"poison": %d}' % n, "t/acme/S-1") for n in bad
    ]
    assert all("no_poison" in row["detail"] and "23514" in row["detail"] for row in letters)


async def test_a_message_is_atomic(writer: Writer, table: Table) -> None:
    """One refused reading among ten thousand of its message: no row of it is stored, the message is one dead letter."""
    device, filling = a_device(), Filling()
    encoded = [
        encoding.encode(NOW_US + n, device.columns, {"poison": 1} if n == 7000 else {"n": n}, None)
        for n in range(10_000)
    ]
    filling.message(device, b"".join(encoded), ["all of them"])
    filling.timed(device, NOW_US - 1, {"n": -1})
    work = await written(writer, filling.batch)
    assert work.outcomes == [DEAD, STORED]
    assert await rows_of(table, device) == [(-1, '{"n": -1}', None)]
    (letter,) = (await letters_of(table, work)).values()
    assert letter["payload"] == b'["all of them"]'


async def test_isolation_takes_a_few_transactions(
    start_server: Callable[..., Postgres], make_writer: Writers
) -> None:
    """However many of 1000 are refused, as the server counts: a try of all, one to find them, the good and the bad.

    What cannot be found so, an id that no index can hold, is found by halving: about 2 log2(1000).
    """
    server = start_server("postgres", settings={"autovacuum": "off"})  # its transactions would be counted
    databases = Workshop(server).migrated()
    execute(databases.timeseries_dsn, REFUSE_POISON)
    opening, _ = await taken(databases, make_writer, Filling())
    for bad in ([617], range(0, 1000, 2), range(1000)):
        count, work = await taken(databases, make_writer, with_poison(a_device(), 1000, bad))
        assert work.outcomes == [DEAD if n in bad else STORED for n in range(1000)]
        assert count - opening <= 4
    device, filling = a_device(), Filling()
    for n in range(1000):
        index = filling.timed(device, NOW_US + n, {"n": n})
        filling.batch.ids[index] = [(device.tenant_id, LONG_ID if n == 617 else str(n))]
    count, work = await taken(databases, make_writer, filling)
    assert work.outcomes == [DEAD if n == 617 else STORED for n in range(1000)]
    assert count - opening <= 2 * math.ceil(math.log2(1000)) + 5


async def taken(databases: Databases, make_writer: Writers, filling: Filling) -> tuple[int, BatchWrite]:
    """Transactions in which the batch is written, and those of its connection."""
    before = await transactions(databases)
    writer = make_writer(databases.timeseries_dsn)
    await writer.probe()
    work = await written(writer, filling.batch)
    await writer.close()
    return await transactions(databases) - before, work


LONG_ID = "".join(str(uuid.uuid4()) for _ in range(230))
"""8 kB: more than an index entry."""


async def transactions(databases: Databases) -> int:
    """Transactions in this database so far, once all its sessions have ended, which is when they report the last."""
    admin = await asyncpg.connect(databases.server.dsn())
    name = name_of(databases.timeseries_dsn)
    try:
        await eventually_async(
            lambda: admin.fetchval("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = $1", name)
        )
        found: int = await admin.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1", name
        )
        return found
    finally:
        await admin.close(timeout=5)


async def test_poison_and_conflict_in_one_batch(writer: Writer, table: Table) -> None:
    """Whichever the server meets first: duplicates are duplicates, poison is a dead letter, the rest is stored."""
    for poison_first in (False, True):
        device, filling = a_device(), Filling()
        await written(writer, with_poison(device, 10, []).batch)
        for n in range(20):
            bad = n in ((3, 12) if poison_first else (15,))
            filling.timed(device, NOW_US + n, {"poison": n} if bad else {"n": n})
        work = await written(writer, filling.batch)
        bad_ones = {3, 12} if poison_first else {15}
        expected = [DEAD if n in bad_ones else DUPLICATE if n < 10 else STORED for n in range(20)]
        assert work.outcomes == expected
        kept = set(range(20)) - {n for n in bad_ones if n >= 10}
        assert await rows_of(table, device) == [(n, f'{{"n": {n}}}', None) for n in sorted(kept)]


async def test_another_unique_index_is_no_endless_conflict(
    shared: Databases, writer: Writer, table: Table
) -> None:
    """A unique index of the operator's own refuses a reading: that one is a dead letter, the rest is stored."""
    one, other, filling = a_device(), a_device(), Filling()
    other.tenant_id = one.tenant_id
    other.columns = rows.device_columns(other)
    for n, (device, after) in enumerate(((one, 0), (one, 1), (other, 0), (one, 0))):
        filling.timed(device, NOW_US + after, {"n": n})
    with altered(
        shared.timeseries_dsn,
        f"CREATE UNIQUE INDEX one_a_moment ON telemetry (tenant_id, time) WHERE tenant_id = '{one.tenant_id}'",
        "DROP INDEX one_a_moment",
    ):
        work = await asyncio.wait_for(written(writer, filling.batch), 30)
    assert work.outcomes == [STORED, STORED, DEAD, STORED]
    assert await rows_of(table, one) == [(0, '{"n": 3}', None), (1, '{"n": 1}', None)]


async def test_an_id_that_no_index_can_hold_costs_its_message_only(writer: Writer, table: Table) -> None:
    """A message id of 8 kB exceeds an index entry (54000): a dead letter; its neighbour is stored."""
    device, filling = a_device(), Filling()
    for n, own in enumerate((LONG_ID, "short")):
        index = filling.timed(device, NOW_US + n, {"n": n})
        filling.batch.ids[index] = [(device.tenant_id, own)]
    work = await written(writer, filling.batch)
    assert work.outcomes == [DEAD, STORED]
    assert len(await rows_of(table, device)) == 1


# ---------------------------------------------------------------- dead letters


async def test_a_dead_letter_holds_all_of_its_message(writer: Writer, table: Table) -> None:
    """Topic, bytes, reason, detail, who, when, QoS, the retain flag and the user properties."""
    message = published(
        "t/acme/S-1", b"\x00\xff{", retain=True, user_properties=[("trace", "a°"), ("trace", "b")]
    )
    filling = Filling()
    id_ = filling.letter(message, Reason.NOT_UTF8, "byte 1 is no UTF-8")
    other = filling.letter(published("x", b"", qos=0), origin=StubRoute(tenant=None, device=None))
    work = await written(writer, filling.batch)
    found = await letters_of(table, work)
    assert dict(found[id_]) == {
        "id": id_, "received_at": clock.to_datetime(NOW_US), "stream": "telemetry", "topic": "t/acme/S-1",
        "payload": b"\x00\xff{", "reason": "not_utf8", "detail": "byte 1 is no UTF-8", "tenant": "acme",
        "device": "S-1", "qos": 1, "retained": True, "properties": '[["trace", "a°"], ["trace", "b"]]',
        "replays": 0, "replayed_at": None, "replay_outcome": None, "payload_bytes": None, "payload_digest": None,
    }  # fmt: skip
    names = ("payload", "qos", "retained", "properties", "tenant", "device")
    assert [found[other][name] for name in names] == [b"", 0, False, None, None, None]


async def test_a_dead_letter_is_never_refused(writer: Writer, table: Table) -> None:
    """NUL and lone surrogates, which MQTT forbids and lenient brokers pass on, cost a character and no message."""
    device, filling = a_device(), Filling()
    filling.timed(device, NOW_US, {"n": 1})
    message = published("t/a\0/S\0", b"{\0", user_properties=[("k\0", "v\0")])
    id_ = filling.letter(message, detail="with \0 and \ud800", origin=StubRoute(tenant="a\0", device="S\0"))
    work = await asyncio.wait_for(written(writer, filling.batch), 10)
    found = (await letters_of(table, work))[id_]
    assert work.outcomes == [STORED]
    names = ("topic", "payload", "detail", "tenant", "device", "properties")
    assert [found[name] for name in names] == [
        r"t/a\0/S\0", b"{\0", r"with \0 and \ud800", r"a\0", r"S\0", r'[["k\\0", "v\\0"]]'
    ]  # fmt: skip


# ---------------------------------------------------------------- the ledger's row


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        ([], 0),
        (["timed"], 0),
        (["untimed"], 1),
        (["letter"], 1),
        (["id"], 1),
        (["untimed at QoS 0", "letter at QoS 0", "id at QoS 0"], 0),
        (["timed", "untimed", "untimed at QoS 0", "letter", "letter at QoS 0", "id"], 3),
    ],
)
async def test_the_ledger_has_a_row_exactly_when_something_needs_it(
    shared: Databases, make_writer: Writers, table: Table, content: list[str], entries: int
) -> None:
    """For messages that only a packet id can recognise again: readings without a time, dead letters, own ids."""
    device, filling, client = a_device(), Filling(), str(uuid.uuid4())
    for n, what in enumerate(content):
        qos = 0 if "QoS 0" in what else 1
        if what.startswith("letter"):
            filling.letter(published("t", b"{", qos=qos))
        elif what.startswith("untimed"):
            filling.untimed(device, NOW_US + n, {"n": n}, qos=qos)
        else:
            index = filling.timed(device, NOW_US + n, {"n": n}, qos=qos)
            if what.startswith("id"):
                filling.batch.ids[index] = [(device.tenant_id, str(n))]
    await written(make_writer(shared.timeseries_dsn, client), filling.batch)
    found = await table.fetch(
        "SELECT packet_ids, digests FROM redelivery_ledger WHERE client_id = $1", client
    )
    assert [(len(row["packet_ids"]) // 2, len(row["digests"]) // 8) for row in found] == (
        [(entries, entries)] if entries else []
    )
