"""Connections to the databases: few, mended by themselves, none left behind."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from gateway.errors import ConfigurationError, StandingError, TransientError
from gateway.storage import pools
from gateway.storage.pools import Pool
from tests.support.batching import database
from tests.support.databases import Databases
from tests.support.losing import Losing
from tests.support.servers import Postgres
from tests.support.waiting import eventually_async, free_port
from tests.support.written import Table

NONE_LEFT = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'gateway-odd'"


async def test_a_connection_that_is_cancelled_while_it_is_made_is_closed(
    shared: Databases, table: Table
) -> None:
    """At any of its steps: no session stays at the server, no socket here."""
    for step in (b"user\0", b"pg_backend_pid"):
        async with Losing(shared.timeseries_dsn) as through:
            through.after = step
            making = asyncio.create_task(pools.connect(database(through.dsn), application_name="gateway-odd"))
            await through.lost.wait()
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
            await eventually_async(lambda: table.fetchval(NONE_LEFT), what=str(step))


async def test_a_pool_mends_itself(shared: Databases, table: Table) -> None:
    """A broken connection is an error for whoever had it, and made anew for the next."""
    pool = Pool("odd", database(shared.timeseries_dsn), size=1)
    asked = "SELECT pg_backend_pid()"
    first = await ask(pool, asked)
    assert await ask(pool, asked) == first
    with pytest.raises(TransientError):
        await ask(pool, "SELECT pg_terminate_backend(pg_backend_pid())")
    second = await ask(pool, asked)
    assert second != first
    await table.execute("SELECT pg_terminate_backend($1, 5000)", second)
    third: int = await eventually_async(lambda: ask_if_possible(pool, asked))
    assert third != second
    await pool.close()
    await eventually_async(lambda: table.fetchval(NONE_LEFT))


async def ask(pool: Pool, query: str) -> int:
    """The answer, on a connection of the pool."""
    async with pool.connection() as connection:
        answer: int = await connection.fetchval(query)
        return answer


async def ask_if_possible(pool: Pool, query: str) -> int:
    """The answer; 0 when there is none now."""
    with contextlib.suppress(TransientError):
        return await ask(pool, query)
    return 0


async def test_errors_of_a_pool_are_the_gateways(shared: Databases) -> None:
    """Translated at one door, with the database's name; others' errors pass as they are."""
    pool = Pool("odd", database(shared.timeseries_dsn), size=1)
    with pytest.raises(StandingError, match=r"odd.*gateway db upgrade"):
        await ask(pool, "SELECT * FROM nowhere")
    with pytest.raises(LookupError):
        async with pool.connection():
            raise LookupError("not of a database")
    await pool.close()


async def test_nobody_waits_for_ever_for_a_connection_that_failed(postgres: Postgres) -> None:
    """A database that is not there, again and again: each time an error, and the pool's place is free."""
    pool = Pool("odd", database(f"postgresql://postgres@127.0.0.1:{free_port()}/x"), size=1)
    for _ in range(3):
        with pytest.raises(TransientError, match="odd"):
            async with asyncio.timeout(5), pool.connection():
                pass
    await pool.close()
    with pytest.raises(StandingError, match="gateway db init"):
        await pools.connect(database(postgres.dsn("no-such-database")), application_name="gateway-odd")


async def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path, postgres: Postgres) -> None:
    """And a DSN that is none is told without its text, which may hold a secret."""
    missing = database(postgres.dsn(), password_file=tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="missing"):
        await pools.connect(missing, application_name="gateway-odd")
    with pytest.raises(ConfigurationError) as refused:
        await pools.connect(database("secret://nonsense"), application_name="gateway-odd")
    assert "gateway-odd" in str(refused.value)


@pytest.mark.parametrize("who", ["cancelled", "timed out"])
async def test_a_question_given_up_costs_its_connection(shared: Databases, who: str) -> None:
    """Its answer may never come, and the next who asks must not wait for it."""
    pool = Pool("odd", database(shared.timeseries_dsn), size=1)
    first = await ask(pool, "SELECT pg_backend_pid()")
    with pytest.raises(TimeoutError if who == "cancelled" else TransientError):
        async with asyncio.timeout(0.2 if who == "cancelled" else None), pool.connection() as connection:
            await connection.execute("SELECT pg_sleep(60)", timeout=None if who == "cancelled" else 0.2)
    assert await ask(pool, "SELECT pg_backend_pid()") != first
    await pool.close()
