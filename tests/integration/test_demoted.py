"""A server that stops being the primary while sessions are open: they are left, and the other host is asked."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import settings
from gateway.devices import registry as registry_module
from gateway.devices.registry import Registry
from gateway.errors import StandingError, TransientError
from gateway.observability.health import Component, ComponentState
from gateway.outcomes import Outcome
from gateway.storage import pools, sessions
from gateway.storage.pools import Pool
from gateway.writer.copy import Writer
from gateway.writer.work import BatchWrite
from tests.integration.conftest import Writers
from tests.support.batching import NOW_US, Filling, a_device, database
from tests.support.databases import Databases, Workshop
from tests.support.provisioned import provision
from tests.support.servers import Postgres
from tests.support.sql import execute, scalar, without_trigger
from tests.support.waiting import eventually, eventually_async
from tests.support.written import written

READ_ONLY = "SHOW transaction_read_only"


@dataclasses.dataclass
class Pair:
    """A primary, and its standby that was promoted without it; the databases as each of them has them."""

    old: Databases
    new: Databases

    def demote(self) -> None:
        """The old one takes no rows any more, and its sessions stay open."""
        self._turn("ON")
        eventually(lambda: scalar(self.old.timeseries_dsn, READ_ONLY) == "on")

    def restore(self) -> None:
        """Undo :meth:`demote`."""
        self._turn("DEFAULT")
        eventually(lambda: scalar(self.old.timeseries_dsn, READ_ONLY) == "off")

    def both(self, dsn: str) -> str:
        """A DSN of the old one, with the new one behind it."""
        return dsn.replace("/gateway_test_", f",127.0.0.1:{self.port}/gateway_test_")

    @property
    def old_port(self) -> int:
        """Of the old one."""
        assert isinstance(self.old.server, Postgres)
        return self.old.server.port

    @property
    def port(self) -> int:
        """Of the new one."""
        assert isinstance(self.new.server, Postgres)
        return self.new.server.port

    def _turn(self, switch: str) -> None:
        dsn = self.old.server.dsn()
        execute(dsn, f"ALTER SYSTEM SET default_transaction_read_only = {switch}")
        execute(dsn, "SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def made() -> Iterator[Pair]:
    """One for all tests."""
    primary = Postgres().start()
    databases = Workshop(primary).migrated()
    standby = Postgres(standby_of=primary).start()
    standby.promote()
    yield Pair(databases, databases.on(standby))
    for server in (primary, standby):
        server.close()


@pytest.fixture
def pair(made: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """The old one is the primary, as far as this process knows."""
    monkeypatch.setattr(sessions, "_newest", {})
    yield made
    made.restore()


@pytest.fixture
async def writer(pair: Pair, make_writer: Writers) -> Writer:
    """To both hosts; it has stored a reading on the old one."""
    made = make_writer(pair.both(pair.old.timeseries_dsn))
    await store(made)
    assert await port(made) != pair.port
    return made


async def store(writer: Writer) -> None:
    """One reading."""
    assert (await written(writer, filled().batch)).outcomes == [Outcome.STORED]


def filled() -> Filling:
    """One reading."""
    filling = Filling()
    filling.timed(a_device(), NOW_US, {"n": 1})
    return filling


async def port(writer: Writer) -> int:
    """Of the server that it writes to."""
    return int(await writer._connection.fetchval("SELECT current_setting('port')"))


async def demoted(pair: Pair, writer: Writer) -> None:
    """The writer's own session has noticed."""
    pair.demote()
    await noticed(writer._connection)


async def noticed(connection: Any) -> None:
    """The session's server has read its configuration again."""

    async def has() -> Any:
        return await connection.fetchval(READ_ONLY) == "on"

    await eventually_async(has)


@pytest.mark.parametrize("suspect", [False, True])
async def test_a_copy_connection_is_left(pair: Pair, writer: Writer, suspect: bool) -> None:
    """At the first refusal (25006), also of work that had failed again and again: stored on the other host at once."""
    await demoted(pair, writer)
    work = BatchWrite(filled().batch)
    work.suspect = suspect
    async with asyncio.timeout(5):
        await writer.write(work)
    assert work.outcomes == [Outcome.STORED]
    assert await port(writer) == pair.port


async def test_an_idle_copy_connection_is_left(pair: Pair, writer: Writer) -> None:
    """Nothing is written that could be refused: the probe finds it."""
    await demoted(pair, writer)
    await writer.probe()
    assert await port(writer) == pair.port


async def test_without_another_host_it_is_told(pair: Pair, make_writer: Writers) -> None:
    """Also while nothing comes: unready, with what to do; and ready again when it takes rows."""
    alone = make_writer(pair.old.timeseries_dsn)
    await store(alone)
    await demoted(pair, alone)
    for attempt in (alone.probe, lambda: store(alone), alone.probe):
        with pytest.raises(StandingError, match=r"25006.*point the DSN at the primary"):
            await attempt()
    pair.restore()
    await store(alone)
    await alone.probe()


async def test_a_trigger_that_says_so_holds_nobody_up(pair: Pair, make_writer: Writers) -> None:
    """25006 on a server that takes rows: told, not tried for ever."""
    execute(
        pair.new.timeseries_dsn,
        "CREATE FUNCTION says() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE read_only_sql_transaction; END$$; "
        "CREATE TRIGGER says BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION says()",
    )
    try:
        with pytest.raises(StandingError, match="25006"):
            async with asyncio.timeout(5):
                await make_writer(pair.new.timeseries_dsn).write(BatchWrite(filled().batch))
    finally:
        execute(pair.new.timeseries_dsn, without_trigger("says"))


async def test_a_pool_leaves_it_before_it_asks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that only reads would be answered, with what was true before."""
    monkeypatch.setattr(pools, "_LOOK_EVERY", 0.0)
    pool = Pool("odd", database(pair.both(pair.old.timeseries_dsn)), size=1)
    try:
        async with pool.connection() as connection:
            old = connection
            pair.demote()
            await noticed(old)
        async with pool.connection() as connection:
            there = await connection.fetchval("SELECT current_setting('port')")
        assert int(there) == pair.port
        assert old.is_closed()
    finally:
        await pool.close()


async def test_the_registry_asks_elsewhere(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing changes any more where nothing can be written: a device disabled at the new primary is noticed."""
    monkeypatch.setattr(registry_module, "_POLL_SECONDS", 0.1)
    ids = provision(pair.new, ["A"])
    pool = Pool("metadata", database(pair.both(pair.old.metadata_dsn)), size=2)
    component = Component("metadata")
    registry = Registry(pool, settings.RegistrySettings(), component, lambda _device: None)
    following = asyncio.create_task(registry.follow())
    try:
        await eventually_async(lambda: component.state is ComponentState.READY)
        pair.demote()
        await eventually_async(lambda: component.state is ComponentState.WAITING)
        await eventually_async(lambda: component.state is ComponentState.READY)
        entry = registry.entry("acme", "A")
        await registry.resolve([entry])
        assert entry.device is not None
        pair.new.metadata("UPDATE devices SET status = 'disabled' WHERE id = $1", ids["A"])
        await eventually_async(lambda: entry.device is None, timeout=3)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await pool.close()


async def test_a_former_primary_gets_nothing(pair: Pair, writer: Writer) -> None:
    """It works again and does not know that it was replaced: what it took would be lost. It is named."""
    await demoted(pair, writer)
    await store(writer)
    pair.restore()
    await writer.close()
    await store(writer)
    assert await port(writer) == pair.port
    await writer.close()
    only_old = pair.both(pair.old.timeseries_dsn).replace(f",127.0.0.1:{pair.port}/", ",127.0.0.1:1/")
    with pytest.raises(TransientError, match="former primary, of timeline 1: one of timeline 2 was seen"):
        await pools.connect(database(only_old), application_name="gateway-odd")


async def test_sessions_with_a_former_primary_are_left(pair: Pair, make_writer: Writers) -> None:
    """As soon as one session has seen the new one: the others stand, and would write to what was replaced."""
    idle, pool = (
        make_writer(pair.both(pair.old.timeseries_dsn)),
        Pool("odd", database(pair.both(pair.old.timeseries_dsn))),
    )
    await store(idle)
    async with pool.connection() as held:
        pass
    seen = await pools.connect(
        database(pair.both(pair.old.timeseries_dsn).replace(f":{pair.old_port},", ":1,")),
        application_name="gateway-odd",
    )
    seen.terminate()
    await store(idle)
    assert await port(idle) == pair.port
    async with pool.connection() as connection:
        assert int(await connection.fetchval("SELECT current_setting('port')")) == pair.port
    assert held.is_closed()
    await pool.close()
