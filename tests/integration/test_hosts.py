"""Several hosts in a DSN: each has its share of the time, and the one that is asked for is taken."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import ConfigurationError, StandingError, TransientError
from gateway.storage import places, pools
from tests.support.batching import database
from tests.support.certificates import Authority
from tests.support.servers import Postgres
from tests.support.silent_address import SILENT, silent


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


NAME = "db.example"


def name_has(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """The database host's name has these addresses, in this order; there is no other name."""

    async def found(name: str) -> list[str]:
        if name == NAME:
            return list(addresses)
        raise OSError(f"no such name: {name}")

    monkeypatch.setattr(places, "_addresses", found)


async def test_a_name_whose_first_address_drops_syn(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a firewall: the next has its share of the time, and is asked first from then on."""
    name_has(monkeypatch, SILENT, "127.0.0.1")
    dsn = f"postgresql://postgres@{NAME}:{postgres.port}/postgres"
    with silent(postgres.port):
        for most in (3.5, 1.5):
            started = time.monotonic()
            assert await port_reached(dsn) == postgres.port
            assert time.monotonic() - started < most


async def test_a_name_whose_first_address_hangs(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and answers nothing, as a frozen primary; all addresses that failed are named."""
    name_has(monkeypatch, SILENT, "127.0.0.1")
    dsn = f"postgresql://postgres@{NAME}:{postgres.port}/postgres"
    with socket.create_server((SILENT, postgres.port)):
        assert await port_reached(dsn) == postgres.port
    name_has(monkeypatch, SILENT, "127.0.0.3")
    refused = rf"{NAME}:{postgres.port} \(127\.0\.0\.3\): .*111.*; {NAME}:{postgres.port} \(127\.0\.0\.2\): "
    with pytest.raises(TransientError, match=refused):
        await port_reached(dsn)


async def test_a_name_of_two_servers(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the DSN asks for is asked of each address."""
    other = Postgres(settings={"default_transaction_read_only": "on"})
    other.host, other.port = SILENT, postgres.port
    other.start()
    name_has(monkeypatch, SILENT, "127.0.0.1")
    dsn = f"postgresql://postgres@{NAME}:{postgres.port}/postgres?target_session_attrs="
    try:
        for asked, found in (("read-write", "off"), ("read-only", "on")):
            connection = await pools.connect(database(dsn + asked), application_name="gateway-odd")
            assert await connection.fetchval("SHOW default_transaction_read_only") == found
            connection.terminate()
    finally:
        other.close()


@pytest.mark.timescaledb
async def test_the_certificate_is_the_names(
    start_server: Callable[..., Postgres], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever address is taken: verify-full asks for the name, and another name is refused.

    On Debian's PostgreSQL, for that of the wheel is built without TLS.
    """
    authority = Authority(tmp_path)
    issued = authority.issue("server", NAME)
    server = start_server("timescaledb")
    for source, target in ((issued.certificate, "server.crt"), (issued.key, "server.key")):
        there = server.cluster / target
        shutil.copy(source, there)
        there.chmod(0o600)
        server._own(there)
    server.stop()
    server.settings["ssl"] = "on"
    server.start()
    name_has(monkeypatch, SILENT, "127.0.0.1")
    for negotiation in ("postgres", "direct"):
        options = f"sslmode=verify-full&sslrootcert={authority.file}&sslnegotiation={negotiation}"
        dsn = f"postgresql://postgres@{NAME}:{server.port}/postgres?{options}"
        with silent(server.port):
            assert await port_reached(dsn) == server.port
        with pytest.raises(ConfigurationError, match="certificate verify failed: IP address mismatch"):
            await port_reached(dsn.replace(NAME, "127.0.0.1"))


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
