"""Behind a connection pooler nothing of a session lasts, and nothing of the promises hangs on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from gateway import settings
from gateway.devices.registry import Registry
from gateway.errors import StandingError, TransientError, UsageError
from gateway.observability.health import Component, ComponentState
from gateway.outcomes import Outcome
from gateway.storage import migrate, pools
from gateway.storage.pools import Pool
from gateway.writer.copy import Writer
from tests.integration.conftest import Writers
from tests.support.batching import NOW_US, Filling, a_device, database
from tests.support.databases import Databases
from tests.support.provisioned import provision
from tests.support.servers import PgBouncer, Postgres
from tests.support.sql import execute, query
from tests.support.waiting import eventually_async
from tests.support.written import written

Start = Callable[..., PgBouncer]
COMMITS = "SELECT DISTINCT told FROM seen"
WATCH = """
CREATE TABLE seen (told text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END$$;
CREATE TRIGGER tell AFTER INSERT ON telemetry FOR EACH STATEMENT EXECUTE FUNCTION tell();
"""
WATCH_TIMESCALE = WATCH.replace("STATEMENT", "ROW")


@pytest.fixture(params=["session", "transaction"])
def pooler(request: pytest.FixtureRequest, server: Postgres, start_pgbouncer: Start) -> PgBouncer:
    """A PgBouncer in both modes that can be served, before both engines."""
    # A session each in session mode; fewer than clients in transaction mode, so that they change hands.
    return start_pgbouncer(server, request.param, sessions=20 if request.param == "session" else 4)


@pytest.fixture
async def elsewhere(pooler: PgBouncer, databases: Databases) -> AsyncIterator[None]:
    """Other clients of the pooler, with statements, temporary tables and settings of their own in its sessions."""
    clients = []
    for _ in range(3):
        client = await asyncpg.connect(pooler.dsn(databases.timeseries_dsn))
        await client.execute("CREATE TEMPORARY TABLE IF NOT EXISTS gateway_staged (old integer)")
        await client.execute("SET synchronous_commit = off")
        with contextlib.suppress(asyncpg.DuplicatePreparedStatementError):
            await client.execute("PREPARE __asyncpg_stmt_1__ AS SELECT 1")
        clients.append(client)
    yield
    for client in clients:
        await client.close()


@pytest.mark.usefixtures("elsewhere")
async def test_every_commit_is_durable_behind_a_pooler(
    pooler: PgBouncer, databases: Databases, make_writer: Writers
) -> None:
    """Straight, staged and with a ledger row, on a database that commits asynchronously by default."""
    dsn = databases.timeseries_dsn
    name = dsn.rpartition("/")[2]
    execute(dsn, f"ALTER DATABASE {name} SET synchronous_commit = off")
    execute(dsn, WATCH_TIMESCALE if databases.engine == "timescaledb" else WATCH)
    writers = [make_writer(pooler.dsn(dsn), command_timeout=10) for _ in range(4)]
    device = a_device()

    async def some(number: int, writer: Writer) -> None:
        for n in range(6):
            filling = Filling()
            filling.timed(device, NOW_US + 100 * number + n, {"n": n})
            for _ in range(2):  # the second meets the first: staged
                await written(writer, filling.batch)
            second = Filling()
            second.untimed(device, NOW_US + 10_000 + 100 * number + n, {"n": n})
            assert (await written(writer, second.batch)).outcomes == [Outcome.STORED]

    await asyncio.gather(*(some(number, writer) for number, writer in enumerate(writers)))
    assert [row["told"] for row in query(dsn, COMMITS)] == ["on"]
    assert databases.count("telemetry") == 4 * 6 * 2


@pytest.mark.usefixtures("elsewhere")
async def test_a_disabled_device_is_noticed_behind_a_pooler(pooler: PgBouncer, databases: Databases) -> None:
    """Within seconds: what the registry relies on comes through."""
    ids = provision(databases, ["A"])
    pool = Pool("metadata", database(pooler.dsn(databases.metadata_dsn)), size=2)
    component = Component("metadata")
    registry = Registry(pool, settings.RegistrySettings(), component, lambda _device: None)
    following = asyncio.create_task(registry.follow())
    try:
        await eventually_async(lambda: component.state is ComponentState.READY)
        entry = registry.entry("acme", "A")
        await registry.resolve([entry])
        assert entry.device is not None
        databases.metadata("UPDATE devices SET status = 'disabled' WHERE id = $1", ids["A"])
        await eventually_async(lambda: entry.device is None, timeout=3)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await pool.close()


async def test_migrations_are_refused_behind_a_pooler(pooler: PgBouncer, blank_databases: Databases) -> None:
    """A lock of a session would lock nothing there, or for ever: the text says what to point where."""
    with pytest.raises(UsageError, match=r"pooler.*GATEWAY__DATABASES__METADATA__DSN.*server itself"):
        await migrate.upgrade("metadata", database(pooler.dsn(blank_databases.metadata_dsn)))
    held = blank_databases.metadata("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert held[0][0] == 0
    assert await migrate.current("metadata", database(pooler.dsn(blank_databases.metadata_dsn))) is None


async def test_statement_mode_is_refused(start_pgbouncer: Start, postgres: Postgres) -> None:
    """Nothing can be written as a whole there: one sentence with the way out."""
    pooler = start_pgbouncer(postgres, "statement")
    with pytest.raises(StandingError, match="pool_mode = transaction"):
        await pools.connect(database(pooler.dsn(postgres.dsn())), application_name="gateway-odd")


async def test_an_option_that_the_pooler_refuses_is_named(start_pgbouncer: Start, postgres: Postgres) -> None:
    """Not as an error of the schema."""
    pooler = start_pgbouncer(postgres, "transaction")
    given = database(pooler.dsn(postgres.dsn()) + "?geqo=off")
    with pytest.raises(Exception, match=r"(?s)geqo.*take it out of the DSN"):
        await pools.connect(given, application_name="gateway-odd")


async def test_a_pooler_that_is_full_is_waited_for(start_pgbouncer: Start, postgres: Postgres) -> None:
    """Or has no server: that is no option of the DSN, and another host is asked."""
    full = start_pgbouncer(postgres, "transaction", extra=["max_client_conn = 1"])
    first = await pools.connect(database(full.dsn(postgres.dsn())), application_name="gateway-odd")
    with pytest.raises(TransientError, match="no more connections allowed"):
        await pools.connect(database(full.dsn(postgres.dsn())), application_name="gateway-odd")
    both = f"postgresql://postgres@127.0.0.1:{full.port},127.0.0.1:{postgres.port}/postgres"
    second = await pools.connect(database(both), application_name="gateway-odd")
    assert (first.pooled, second.pooled) == (True, False)
    for connection in (first, second):
        connection.terminate()
