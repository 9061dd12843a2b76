"""Several hosts in a DSN: each has its share of the time, and the one that is asked for is taken."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from gateway.errors import ConfigurationError, StandingError, TransientError
from gateway.storage import pools
from tests.support.batching import database
from tests.support.servers import Postgres


async def port_reached(dsn: str) -> int:
    """Which server answers."""
    connection = await pools.connect(database(dsn, connect_timeout=4), application_name="gateway-odd")
    try:
        return int(await connection.fetchval("SELECT current_setting('port')"))
    finally:
        connection.terminate()


async def test_a_host_that_does_not_answer_is_left(postgres: Postgres) -> None:
    """It takes the connection and is silent, as a server that hangs: the next is taken after half of the time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{postgres.port}"
        dsn, started = f"postgresql://postgres@{hosts}/postgres", time.monotonic()
        assert await port_reached(dsn) == postgres.port
        assert time.monotonic() - started < 3.5
        again = time.monotonic()
        assert await port_reached(dsn) == postgres.port
        assert time.monotonic() - again < 1.5, "a silent host is asked last for a while"


async def test_the_writable_host_is_taken(start_server: Callable[..., Postgres], postgres: Postgres) -> None:
    """Of several; where none is, the text says what each is."""
    other = start_server("postgres", settings={"default_transaction_read_only": "on"})
    both = f"postgresql://postgres@127.0.0.1:{other.port},127.0.0.1:{postgres.port}/postgres"
    assert await port_reached(both) == postgres.port
    assert await port_reached(f"{both}?target_session_attrs=read-only") == other.port
    assert await port_reached(f"{both}?target_session_attrs=any") == other.port
    with pytest.raises(TransientError, match=r"no host answers that is standby .*read-only.*a primary"):
        await port_reached(f"{both}?target_session_attrs=standby")


async def test_an_option_of_nobody_is_named(postgres: Postgres) -> None:
    """Not as an error of the schema."""
    with pytest.raises(ConfigurationError, match="no_such_option"):
        await port_reached(f"{postgres.dsn()}?no_such_option=1")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_is_not_utf8_is_refused(postgres: Postgres, encoding: str) -> None:
    """At the first connection, with the statement that makes one."""
    maker = await pools.connect(database(postgres.dsn()), application_name="gateway-odd")
    name = f"gateway_test_{encoding.lower()}"
    try:
        await maker.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        with pytest.raises(StandingError, match=rf"{encoding}.*ENCODING 'UTF8'"):
            await port_reached(postgres.dsn(name))
    finally:
        await maker.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        maker.terminate()
