"""Per device and time the order of arrival decides, whatever connection writes it and however long it lay somewhere."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.messages import Device
from gateway.observability import events, metrics
from gateway.outcomes import OnConflict, Outcome
from gateway.writer.copy import Writer
from gateway.writer.experience import Experience
from tests.integration.test_pipeline import NOW_MS, Tenant
from tests.support.batching import NOW_US, Filling, a_device, database, settings_for
from tests.support.databases import Databases
from tests.support.flow import Flow
from tests.support.sessions import a_ledger
from tests.support.sql import without_trigger
from tests.support.waiting import eventually_async
from tests.support.written import Table, altered, rows_of, written

STORED, DUPLICATE = Outcome.STORED, Outcome.DUPLICATE
A_TIME = NOW_US - 60_000_000


async def in_order(
    writer: Writer, device: Device, on_conflict: OnConflict, readings: Sequence[tuple[int, dict[str, Any]]]
) -> list[Outcome]:
    """Write readings of one time, each its own batch: (received, data); how each ended."""
    outcomes = []
    for received, data in readings:
        filling = Filling()
        filling.timed(device, NOW_US, data, on_conflict=on_conflict, received_us=A_TIME + received)
        outcomes += (await written(writer, filling.batch)).outcomes
    return outcomes


@pytest.mark.parametrize(
    ("on_conflict", "kept"),
    [("merge", {"a": "new", "b": "old", "c": "new"}), ("replace", {"a": "new", "c": "new"}),
     ("keep", {"a": "old", "b": "old"})],
)  # fmt: skip
@pytest.mark.parametrize("late", [True, False])
async def test_the_later_received_is_the_newer(
    writer: Writer, table: Table, on_conflict: OnConflict, kept: dict[str, str], late: bool
) -> None:
    """What was spooled, set apart or a dead letter may be written after what came later: the same row in the end."""
    device = a_device()
    readings = [(0, {"a": "old", "b": "old"}), (1, {"a": "new", "c": "new"})]
    await in_order(writer, device, on_conflict, readings[::-1] if late else readings)
    ((_, data, _),) = await rows_of(table, device)
    assert json.loads(data) == kept
    # Once more, as after a lost answer: nothing changes.
    assert await in_order(writer, device, on_conflict, readings) == [DUPLICATE, DUPLICATE]
    assert [json.loads(data) for _, data, _ in await rows_of(table, device)] == [kept]


async def test_the_later_received_is_the_newer_in_one_batch(writer: Writer, table: Table) -> None:
    """A batch may hold them in another order, as when one waited for a look-up; equal receive times keep theirs."""
    device, filling = a_device(), Filling()
    readings = ((5, {"a": 5}), (3, {"a": 3, "b": 3}), (4, {"b": 4}), (5, {"c": 1}), (5, {"c": 2}))
    for received, data in readings:
        filling.timed(device, NOW_US, data, received_us=A_TIME + received)
    await written(writer, filling.batch)
    ((_, found, _),) = await rows_of(table, device)
    assert json.loads(found) == {"a": 5, "b": 4, "c": 2}


async def test_rows_of_before_are_older_than_all(writer: Writer, table: Table) -> None:
    """Rows without a receive time, of an earlier release: what comes now is newer."""
    device = a_device()
    await table.execute(
        "INSERT INTO telemetry (time, device_id, tenant_id, data) VALUES (to_timestamp($1::float8), $2, $3, $4)",
        NOW_US / 1e6, device.id, device.tenant_id, '{"a": 1, "b": 1}',
    )  # fmt: skip
    await in_order(writer, device, "merge", [(0, {"a": 2})])
    ((_, data, _),) = await rows_of(table, device)
    assert json.loads(data) == {"a": 2, "b": 1}


async def test_two_connections_and_the_same_keys(shared: Databases, table: Table) -> None:
    """Many updates of few keys in batches in any order: each key has its last value, and no deadlock is waited for."""
    dice, experience, devices = random.Random(11), Experience(), [a_device(f"S-{n}") for n in range(20)]
    batches = []
    for key in range(15):  # four batches that begin with new keys, side by side
        for update in dice.sample(range(4), 4):
            filling = Filling()
            for device in dice.sample(devices, len(devices)):
                filling.timed(device, NOW_US + key, {"n": update}, received_us=A_TIME + update)
            batches.append(filling.batch)
    waiting, before = iter(batches), await deadlocks(table)

    async def connection() -> None:
        book = a_ledger("order")
        writer = Writer(database(shared.timeseries_dsn), book, horizon=60, experience=experience)
        for batch in waiting:
            await written(writer, batch)
        await writer.close()

    await asyncio.gather(*(connection() for _ in range(4)))
    for device in devices:
        assert [json.loads(data) for _, data, _ in await rows_of(table, device)] == [{"n": 3}] * 15
    assert await deadlocks(table) - before <= 4  # once each at most, before it is known that keys are shared


async def deadlocks(table: Table) -> int:
    """How many the server met in this database."""
    await table.execute("SELECT pg_stat_clear_snapshot()")
    found: int = await table.fetchval(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return found


async def test_what_overwrites_is_counted_and_told(
    shared: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 samples at a resolution of a second are 10 rows: 90 are counted, in one batch or several, told once."""
    monkeypatch.setattr(events, "_told", set())
    tenant, stream = Tenant(shared), "overwriting"
    counted = metrics.readings_overwritten.labels(stream)._value.get
    before, numbers = counted(), itertools.count()
    with structlog.testing.capture_logs() as logs:
        async with Flow(settings_for(shared, {"name": stream})) as flow:
            for size in (45, 55):  # the fifth second is in both
                flow.take(*(sample(tenant, next(numbers)) for _ in range(size)))
                await flow.settle()
            flow.take(sample(tenant, 99))  # the same again overwrites nothing
            others = ({"ts": NOW_MS // 1000 * 1000, "metrics": {name: 1}} for name in ("other", "third"))
            flow.take(*map(tenant.message, others))
            await flow.settle()
    assert len(tenant.rows()) == 10
    assert counted() - before == 90
    told = [line for line in logs if line["event"] == "readings overwritten"]
    assert [line["stream"] for line in told] == [stream]


def sample(tenant: Tenant, n: int) -> Any:
    """The n-th of a hundred within ten seconds, whose time has no fraction."""
    return tenant.message({"ts": NOW_MS // 1000 * 1000 + n // 10 * 1000, "metrics": {"n": n}})


@pytest.mark.parametrize(
    ("on_conflict", "kept"),
    [
        ("merge", {"n": "new", "a": 1, "b": 2}),
        ("replace", {"n": "new", "b": 2}),
        ("keep", {"n": "old", "a": 1}),
    ],
)
async def test_what_lay_in_the_spool_is_older(
    shared: Databases, tmp_path: Path, on_conflict: OnConflict, kept: dict[str, Any]
) -> None:
    """Spooled while the table was away, drained after a later reading was stored: the order of arrival decides."""
    tenant, stream = Tenant(shared), {"on_conflict": on_conflict}
    with_spool = settings_for(shared, stream, spool={"folder": tmp_path, "after": 0.05})
    away = "ALTER TABLE telemetry RENAME TO away", "ALTER TABLE away RENAME TO telemetry"
    with altered(shared.timeseries_dsn, *away):
        async with Flow(with_spool) as flow:
            flow.base.open()
            flow.take(tenant.message({"ts": NOW_MS, "metrics": {"n": "old", "a": 1}}))
            assert await flow.settle() == {Outcome.SPOOLED: 1}
    async with Flow(settings_for(shared, stream)) as flow:
        flow.take(tenant.message({"ts": NOW_MS, "metrics": {"n": "new", "b": 2}}))
        assert await flow.settle() == {STORED: 1}
    async with Flow(with_spool) as flow:
        flow.base.open()
        spool = flow.base.spool
        assert spool is not None
        await eventually_async(lambda: spool.empty)
    assert tenant.data() == [kept]


AT_RANDOM = """
CREATE FUNCTION at_random() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(random() * 0.02); RETURN NULL; END $$;
CREATE TRIGGER at_random BEFORE INSERT ON telemetry FOR EACH STATEMENT EXECUTE FUNCTION at_random()
"""
"""Batches overtake each other."""


async def test_a_careful_process_keeps_the_order(shared: Databases, tmp_path: Path) -> None:
    """After an end without a word a delivery is taken one by one, and comes into several batches of two connections."""
    tenant = Tenant(shared, "A", "B")
    options = settings_for(shared, spool={"folder": tmp_path}, batch={"max_rows": 8})
    with altered(shared.timeseries_dsn, AT_RANDOM, without_trigger("at_random")):
        async with Flow(options) as flow:
            flow.base.open()
            flow.base.suspects.careful = True
            for key in range(20):
                messages = [
                    tenant.message({"ts": NOW_MS + key, "n": n}, device) for n in range(40) for device in "AB"
                ]
                flow.take(*messages, by=flow.path.sink)
            await eventually_async(lambda: not flow.path.sink.busy)
            assert set(await flow.settle()) <= {STORED, DUPLICATE}
    assert [tenant.data(device) for device in "AB"] == [[{"n": 39}] * 20] * 2
