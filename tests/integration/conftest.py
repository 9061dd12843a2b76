"""Databases that the tests of a module share: each takes devices of its own, and leaves the tables as they are.

And installations with roles of least privilege, each a test's own.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.writer.copy import Writer
from tests.support.batching import database
from tests.support.databases import Databases, Workshop
from tests.support.installation import Installation
from tests.support.servers import Server
from tests.support.sessions import a_ledger
from tests.support.sql import execute
from tests.support.written import Table

REFUSE_POISON = "ALTER TABLE telemetry ADD CONSTRAINT no_poison CHECK (NOT jsonb_exists(data, 'poison'))"
"""A reading with this metric is something that only the database refuses (23514)."""

Writers = Callable[..., Writer]


@pytest.fixture(scope="module")
def shared(server: Server, workshops: Callable[[Server], Workshop]) -> Iterator[Databases]:
    """Migrated databases of a module, on both engines, whose telemetry refuses ``poison``."""
    workshop = workshops(server)
    made = workshop.migrated()
    execute(made.timeseries_dsn, REFUSE_POISON)
    yield made
    workshop.drop(made)


@pytest.fixture
async def table(shared: Databases) -> AsyncIterator[Table]:
    """A connection to the shared time-series database, to look at what was written."""
    connection = await asyncpg.connect(shared.timeseries_dsn)
    yield connection
    await connection.close(timeout=5)


@pytest.fixture
async def make_writer() -> AsyncIterator[Writers]:
    """``make_writer(dsn, client_id=…, **options of the database)``; all are closed with the test."""
    made: list[Writer] = []

    def make(dsn: str, client_id: str = "", **options: Any) -> Writer:
        ledger = a_ledger(client_id or str(uuid.uuid4()))
        made.append(Writer(database(dsn, **options), ledger, horizon=3600))
        return made[-1]

    yield make
    for writer in made:
        await writer.close()


@pytest.fixture
def writer(shared: Databases, make_writer: Writers) -> Writer:
    """A writer to the shared database, with a client id of its own."""
    return make_writer(shared.timeseries_dsn)


@pytest.fixture
async def fresh(server: Server, tmp_path: Path) -> AsyncIterator[Installation]:
    """Nothing made yet, on both engines."""
    made = Installation(server, tmp_path / "secrets")
    yield made
    made.remove()


@pytest.fixture
async def installation(fresh: Installation) -> Installation:
    """Initialised, and migrated by the owner."""
    await fresh.init()
    await fresh.upgrade(fresh.roles.owner)
    return fresh
