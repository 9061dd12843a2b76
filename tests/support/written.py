"""What a writer wrote, as the tables tell, and the tables changed for a while."""

from __future__ import annotations

import contextlib
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any, TypeAlias

import asyncpg

from gateway import clock
from gateway.batches import Batch
from gateway.messages import Device
from gateway.writer.copy import Writer
from gateway.writer.work import BatchWrite
from tests.support.batching import NOW_US
from tests.support.sql import execute

Table: TypeAlias = asyncpg.Connection
"""A connection of the test's own, to look at what is there."""


async def written(writer: Writer, batch: Batch) -> BatchWrite:
    """The batch, written."""
    work = BatchWrite(batch)
    await writer.write(work)
    return work


async def rows_of(table: Table, device: Device) -> list[tuple[int, str, str | None]]:
    """The device's rows: microseconds after ``NOW_US``, data, metadata."""
    found = await table.fetch("SELECT * FROM telemetry WHERE device_id = $1 ORDER BY time", device.id)
    assert {row["tenant_id"] for row in found} <= {device.tenant_id}
    return [(clock.from_datetime(row["time"]) - NOW_US, row["data"], row["metadata"]) for row in found]


async def letters_of(table: Table, work: BatchWrite) -> dict[uuid.UUID, Any]:
    """The dead letters of this work that are in the table, by id."""
    ids = [letter.id for letter in (*work.batch.dead_letters, *work.refused.values())]
    found = await table.fetch("SELECT * FROM dead_letters WHERE id = ANY($1)", ids)
    return {row["id"]: row for row in found}


def name_of(dsn: str) -> str:
    """The database that a DSN names."""
    return urllib.parse.urlsplit(dsn).path[1:]


def as_user(dsn: str, user: str, password: str) -> str:
    """The same database by another user."""
    there = urllib.parse.urlsplit(dsn)
    return there._replace(netloc=f"{user}:{password}@{there.netloc.rpartition('@')[2]}").geturl()


@contextlib.contextmanager
def altered(dsn: str, change: str, undo: str) -> Iterator[None]:
    """A shared database, changed for a while."""
    execute(dsn, change)
    try:
        yield
    finally:
        execute(dsn, undo)
