"""Streams that go to tables of their own: one transaction, each table's conflicts and poison by themselves."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import clock
from gateway.messages import Device
from gateway.outcomes import Outcome
from gateway.writer.copy import Writer
from gateway.writer.layouts import DOCUMENT, TELEMETRY, StreamTarget
from tests.support.batching import NOW_US, Filling, StubRoute, a_device, database
from tests.support.databases import Databases
from tests.support.sessions import a_ledger
from tests.support.sql import execute
from tests.support.written import Table, rows_of, written

STORED, DUPLICATE, DEAD = Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED


@pytest.fixture
async def target(shared: Databases) -> AsyncIterator[StreamTarget]:
    """A second table of the same layout, with a name that must be quoted; it refuses ``poison``, too."""
    made = StreamTarget("Other readings", DOCUMENT)
    execute(shared.timeseries_dsn, f"CREATE TABLE {made.identifier} (LIKE telemetry INCLUDING ALL)")
    yield made
    execute(shared.timeseries_dsn, f"DROP TABLE {made.identifier}")


@pytest.fixture
async def writer(shared: Databases, target: StreamTarget) -> AsyncIterator[Writer]:
    """It writes to both."""
    made = Writer(
        database(shared.timeseries_dsn),
        a_ledger(str(uuid.uuid4())),
        horizon=3600,
        targets=(TELEMETRY, target),
    )
    yield made
    await made.close()


def both(target: StreamTarget, device: Device, *readings: dict[str, Any], timed: bool = True) -> Filling:
    """Each of these readings to both tables, as a message each, a microsecond apart."""
    filling = Filling()
    for n, data in enumerate(readings):
        for table in ("telemetry", target.table):
            add = filling.timed if timed else filling.untimed
            index = add(device, NOW_US + n, data)
            filling.batch.routes[index] = StubRoute(table=table)
    return filling


async def others_of(table: Table, target: StreamTarget, device: Device) -> list[tuple[int, str]]:
    """What the second table has of the device."""
    found = await table.fetch(
        f"SELECT time, data FROM {target.identifier} WHERE device_id = $1 ORDER BY 1", device.id
    )
    return [(clock.from_datetime(row["time"]) - NOW_US, row["data"]) for row in found]


async def test_each_reading_is_in_the_table_of_its_stream(
    writer: Writer, target: StreamTarget, table: Table
) -> None:
    """Straight, and met again: the same batch is all duplicates, in either table."""
    device = a_device()
    await writer.probe()
    filling = both(target, device, {"n": 0}, {"n": 1})
    assert (await written(writer, filling.batch)).outcomes == [STORED] * 4
    assert (await written(writer, filling.batch)).outcomes == [DUPLICATE] * 4
    assert [row[:2] for row in await rows_of(table, device)] == [(0, '{"n": 0}'), (1, '{"n": 1}')]
    assert await others_of(table, target, device) == [(0, '{"n": 0}'), (1, '{"n": 1}')]


async def test_conflicts_are_each_tables_own(writer: Writer, target: StreamTarget, table: Table) -> None:
    """What is taken in one is free in the other; readings that got their receive time give way in each for itself."""
    device, before = a_device(), Filling()
    before.timed(device, NOW_US, {"own": 1})
    await written(writer, before.batch)
    filling = both(target, device, {"n": 0}, {"n": 1}, timed=False)
    assert (await written(writer, filling.batch)).outcomes == [STORED] * 4
    assert [row[:2] for row in await rows_of(table, device)] == [
        (0, '{"own": 1}'), (1, '{"n": 1}'), (2, '{"n": 0}'),
    ]  # fmt: skip
    assert await others_of(table, target, device) == [(0, '{"n": 0}'), (1, '{"n": 1}')]


async def test_poison_costs_itself_only_in_either_table(
    writer: Writer, target: StreamTarget, table: Table
) -> None:
    """It is found in both at once."""
    device = a_device()
    work = await written(writer, both(target, device, {"n": 0}, {"poison": 1}, {"n": 2}).batch)
    assert work.outcomes == [STORED, STORED, DEAD, DEAD, STORED, STORED]
    assert [row[0] for row in await rows_of(table, device)] == [0, 2]
    assert [at for at, _ in await others_of(table, target, device)] == [0, 2]
