"""The writer when something is wrong, on both engines: held, gone on with where it stopped, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import uvloop

from gateway.batches import Batch
from gateway.errors import StandingError, TransientError
from gateway.messages import Device
from gateway.outcomes import Outcome
from gateway.writer.copy import Writer
from gateway.writer.work import BatchWrite
from tests.integration.conftest import Writers
from tests.support.batching import NOW_US, Filling, a_device, database, published
from tests.support.databases import Databases, migrate
from tests.support.losing import COMMIT, COPY_DONE, Losing
from tests.support.sessions import a_ledger
from tests.support.sql import execute, without_trigger
from tests.support.waiting import eventually_async
from tests.support.written import Table, altered, as_user, letters_of, name_of, rows_of, written

STORED, DUPLICATE, DEAD = Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED

# ---------------------------------------------------------------- standing errors


async def test_a_missing_table_is_held_for(blank_databases: Databases, make_writer: Writers) -> None:
    """Nothing is a dead letter for want of a migration; the error says what to run; then the work goes on."""
    dsn, device, filling = blank_databases.timeseries_dsn, a_device(), Filling()
    filling.timed(device, NOW_US, {"n": 1})
    work, writer = BatchWrite(filling.batch), make_writer(dsn)
    for attempt in (writer.probe, lambda: writer.write(work)):
        with pytest.raises(StandingError, match="gateway db upgrade") as error:
            await attempt()
        assert error.value.sqlstate == "42P01"
        assert "telemetry" in str(error.value)
    assert not work.refused
    migrate(dsn, "timeseries")
    await writer.probe()
    await writer.write(work)
    assert work.outcomes == [STORED]
    assert blank_databases.count("telemetry") == 1


async def test_a_revoked_privilege_is_held_for(shared: Databases, make_writer: Writers, table: Table) -> None:
    """A role that may not write: held, with the privilege named; granted, it goes on by itself."""
    dsn, device, filling, role = shared.timeseries_dsn, a_device(), Filling(), f"weak_{uuid.uuid4().hex[:8]}"
    filling.timed(device, NOW_US, {"n": 1})
    work, writer = BatchWrite(filling.batch), make_writer(as_user(dsn, role, "weak"))
    create = (
        f"CREATE ROLE {role} LOGIN PASSWORD 'weak'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    with altered(dsn, create, f"DROP OWNED BY {role}; DROP ROLE {role}"):
        for _ in range(5):  # and is not looked for in the messages
            with pytest.raises(StandingError, match="GRANT") as error:
                await writer.write(work)
            assert error.value.sqlstate == "42501"
        execute(dsn, f"GRANT INSERT ON telemetry TO {role}")
        await writer.write(work)
        await writer.close()
    assert await rows_of(table, device) == [(0, '{"n": 1}', None)]


async def test_row_level_security_is_held_for(shared: Databases, make_writer: Writers, table: Table) -> None:
    """COPY is refused (0A000) to a role without BYPASSRLS: no reading is to blame; the error says what to alter."""
    dsn, device, filling, role = shared.timeseries_dsn, a_device(), Filling(), f"weak_{uuid.uuid4().hex[:8]}"
    filling.timed(device, NOW_US, {"n": 1})
    work, writer = BatchWrite(filling.batch), make_writer(as_user(dsn, role, "weak"))
    create = f"CREATE ROLE {role} LOGIN PASSWORD 'weak'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; "
    create += "ALTER TABLE telemetry ENABLE ROW LEVEL SECURITY"
    undo = f"ALTER TABLE telemetry DISABLE ROW LEVEL SECURITY; DROP OWNED BY {role}; DROP ROLE {role}"
    with altered(dsn, create, undo):
        for _ in range(5):
            with pytest.raises(StandingError, match="BYPASSRLS"):
                await writer.write(work)
        assert not work.refused
        execute(dsn, f"ALTER ROLE {role} BYPASSRLS")
        await writer.close()
        await writer.write(work)
        await writer.close()
    assert await rows_of(table, device) == [(0, '{"n": 1}', None)]


async def test_a_read_only_server_is_held_for(shared: Databases, writer: Writer, table: Table) -> None:
    """Read-only by a setting that only new sessions see changed: mended, the same writer goes on by itself."""
    device, filling = a_device(), Filling()
    filling.timed(device, NOW_US, {"n": 1})
    work, change = BatchWrite(filling.batch), f"ALTER DATABASE {name_of(shared.timeseries_dsn)}"
    read_only = "default_transaction_read_only"
    with altered(shared.server.dsn(), f"{change} SET {read_only} = on", f"{change} RESET {read_only}"):
        with pytest.raises(StandingError, match="read-only") as error:
            await writer.write(work)
        assert error.value.sqlstate == "25006"
    await writer.write(work)
    assert await rows_of(table, device) == [(0, '{"n": 1}', None)]


async def test_a_missing_partition_is_held_for(postgres_databases: Databases, make_writer: Writers) -> None:
    """Somebody dropped the DEFAULT partition: PostgreSQL calls that a violated check, yet no reading is to blame."""
    dsn, device, filling = postgres_databases.timeseries_dsn, a_device(), Filling()
    filling.timed(device, 1_000_000_000_000_000, {"n": 1})
    work, writer = BatchWrite(filling.batch), make_writer(dsn)
    change = "ALTER TABLE telemetry DETACH PARTITION telemetry_default"
    with altered(dsn, change, "ALTER TABLE telemetry ATTACH PARTITION telemetry_default DEFAULT"):
        with pytest.raises(StandingError, match="ATTACH PARTITION"):
            await writer.write(work)
        assert not work.refused
    await writer.write(work)
    assert work.outcomes == [STORED]
    assert postgres_databases.count("telemetry") == 1


async def test_commits_are_durable_where_the_server_would_not_care(shared: Databases, writer: Writer) -> None:
    """``synchronous_commit = off`` on the server is raised: an acknowledgement must not outlive its row."""
    change = f"ALTER DATABASE {name_of(shared.timeseries_dsn)}"
    off = f"{change} SET synchronous_commit = off"
    with altered(shared.server.dsn(), off, f"{change} RESET synchronous_commit"):
        await writer.probe()
    assert await writer._connection.fetchval("SHOW synchronous_commit") == "on"


# ---------------------------------------------------------------- lost connections


@contextlib.asynccontextmanager
async def locked(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Nobody can write to telemetry meanwhile; yields the connection that holds the lock."""
    holder = await asyncpg.connect(dsn)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE telemetry IN EXCLUSIVE MODE")
            yield holder
    finally:
        await holder.close(timeout=5)


BLOCKED = """
SELECT pid FROM pg_stat_activity
WHERE application_name = 'gateway-writer' AND wait_event_type = 'Lock' AND datname = current_database()
"""


async def blocked(connection: Any) -> Any:
    """A writer's backend that waits for a lock; a transaction would see the sessions of its first look for ever."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return await connection.fetchval(BLOCKED)


async def test_a_killed_backend_loses_nothing(shared: Databases, make_writer: Writers, table: Table) -> None:
    """Terminated in the middle of COPY: an error to be waited out; the same work again, and all is there once."""
    dsn, device, filling, client = shared.timeseries_dsn, a_device(), Filling(), str(uuid.uuid4())
    for n in range(10):
        filling.timed(device, NOW_US + n, {"n": n})
        filling.untimed(device, NOW_US + 1000 + n, {"n": n})
    filling.letter(published("t", b"{"))
    work, writer = BatchWrite(filling.batch), make_writer(dsn, client)
    await writer.probe()
    async with locked(dsn) as holder:
        writing = asyncio.create_task(writer.write(work))
        pid = await eventually_async(lambda: blocked(holder))
        await holder.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(TransientError):
            await writing
    await writer.write(work)
    assert work.outcomes == [STORED] * 20
    assert [at for at, *_ in await rows_of(table, device)] == [*range(10), *range(1000, 1010)]
    assert len(await letters_of(table, work)) == 1
    assert await table.fetchval("SELECT count(*) FROM redelivery_ledger WHERE client_id = $1", client) == 1


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_session_that_takes_nothing(
    shared: Databases, loop: Callable[[], asyncio.AbstractEventLoop], ends: bool
) -> None:
    """More than the sockets hold is on its way: the driver waits for room to send, and looks at nothing else."""
    with asyncio.Runner(loop_factory=loop) as runner:
        unasked: list[object] = []
        runner.get_loop().set_exception_handler(lambda _loop, context: unasked.append(context))
        runner.run(_write_to_one_that_takes_nothing(shared.timeseries_dsn, ends=ends))
        gc.collect()
    assert unasked == []


async def _write_to_one_that_takes_nothing(dsn: str, *, ends: bool) -> None:
    device, filling = a_device(), Filling()
    for n in range(8000):
        filling.timed(device, NOW_US + n, {"n": n, "padding": "x" * 2000})
    work, book = BatchWrite(filling.batch), a_ledger("takes nothing")
    writer = Writer(database(dsn, command_timeout=3), book, horizon=3600)
    await writer.probe()
    async with locked(dsn) as holder:
        writing = asyncio.create_task(writer.write(work))
        pid = await eventually_async(lambda: blocked(holder))
        if ends:
            await holder.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(TransientError):
            async with asyncio.timeout(20):
                await writing
    await writer.close()
    another = Writer(database(dsn), book, horizon=3600)
    await another.write(work)
    await another.close()
    assert work.outcomes == [STORED] * 8000


WAIT_AT_THE_DOOR = """
CREATE FUNCTION wait_at_the_door() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_exists(NEW.data, 'wait') THEN PERFORM pg_advisory_xact_lock(42); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER wait_at_the_door BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION wait_at_the_door();
"""


async def test_work_goes_on_where_it_stopped(shared: Databases, writer: Writer, table: Table) -> None:
    """What was committed before the connection broke stays done, refusals included; only the rest is tried again."""
    device, filling = a_device(), Filling()
    for n, data in enumerate(({"n": 0}, {"poison": 1}, {"n": 2}, {"wait": 3})):
        filling.timed(device, NOW_US + n, data)
    work = BatchWrite(filling.batch)
    work.next.sifted = True  # by halving
    with altered(shared.timeseries_dsn, WAIT_AT_THE_DOOR, without_trigger("wait_at_the_door")):
        await table.execute("SELECT pg_advisory_lock(42)")
        writing = asyncio.create_task(writer.write(work))
        pid = await eventually_async(lambda: blocked(table))
        assert await rows_of(table, device) == [(0, '{"n": 0}', None)]
        await table.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(TransientError):
            await writing
        # And the dead letter, by itself.
        assert [list(stretch.indices) for stretch in work.left] == [[], [2, 3]]
        await table.execute("SELECT pg_advisory_unlock(42)")
        await writer.write(work)
    assert work.outcomes == [STORED, DEAD, STORED, STORED]
    assert [at for at, *_ in await rows_of(table, device)] == [0, 2, 3]
    assert len(await letters_of(table, work)) == 1


async def test_a_server_that_does_not_answer_in_time(
    shared: Databases, make_writer: Writers, table: Table
) -> None:
    """A statement that exceeds ``command_timeout`` is an error to be waited out, and leaves a writer that works."""
    dsn, device, filling = shared.timeseries_dsn, a_device(), Filling()
    filling.timed(device, NOW_US, {"n": 1})
    filling.untimed(device, NOW_US + 1, {"n": 2})
    work, writer = BatchWrite(filling.batch), make_writer(dsn, command_timeout=0.3)
    await writer.probe()
    async with locked(dsn):
        with pytest.raises(TransientError, match="in time"):
            await writer.write(work)
    await write_until_done(writer, work)
    assert work.outcomes == [STORED, STORED]
    assert [at for at, *_ in await rows_of(table, device)] == [0, 1]


async def write_until_done(writer: Writer, work: BatchWrite) -> None:
    """What the path does about errors that pass, without its patience."""
    async with asyncio.timeout(20):
        while work.left:
            with contextlib.suppress(TransientError):
                await writer.write(work)


async def lose_the_answer(
    through: Losing, table: Table, writer: Writer, work: BatchWrite, device: Device
) -> None:
    """Write the work; its commit arrives, the answer to it does not."""
    through.after = COMMIT if work.known_again() else COPY_DONE
    writing = asyncio.create_task(writer.write(work))
    await through.lost.wait()
    expected = len(work.batch.numbers)
    await eventually_async(
        lambda: table.fetchval(
            "SELECT count(*) = $2 FROM telemetry WHERE device_id = $1", device.id, expected
        )
    )
    through.cut()
    with pytest.raises(TransientError):
        await writing


@pytest.mark.parametrize("content", ["timed", "untimed", "untimed at QoS 0", "letters", "ids", "mixed"])
async def test_a_commit_whose_answer_is_lost_is_not_repeated(
    shared: Databases, make_writer: Writers, table: Table, content: str
) -> None:
    """The retry finds what the first try committed: nothing is there twice, and nothing counts as lost."""
    device, filling = a_device(), Filling()
    for n in range(3):
        if content.startswith("untimed") or (content == "mixed" and n):
            filling.untimed(device, NOW_US + n, {"n": 0}, qos=0 if "QoS 0" in content else 1)
        else:
            index = filling.timed(device, NOW_US + n, {"n": 0})
            if content == "ids":
                filling.batch.ids[index] = [(device.tenant_id, str(n))]
        if content in ("letters", "mixed"):
            filling.letter(published("t", b"{"))
    work = BatchWrite(filling.batch)
    async with Losing(shared.timeseries_dsn) as through:
        writer = make_writer(through.dsn)
        await writer.probe()
        await lose_the_answer(through, table, writer, work, device)
        before = await rows_of(table, device)
        await writer.write(work)
        await writer.close()
    assert await rows_of(table, device) == before
    assert len(await letters_of(table, work)) == len(filling.batch.dead_letters)
    recognised = content not in (
        "timed",
        "untimed at QoS 0",
    )  # the others are found in the table: docs/adr/0003
    assert work.outcomes == [STORED if recognised else DUPLICATE] * 3


WAITS_FOR_STANDBY = """
SELECT pid FROM pg_stat_activity
WHERE application_name = 'gateway-writer' AND wait_event = 'SyncRep' AND datname = current_database()
"""


@contextlib.asynccontextmanager
async def without_its_standby(shared: Databases) -> AsyncIterator[None]:
    """The server waits at every COMMIT for a synchronous standby, which is away."""
    setting = "ALTER SYSTEM {} synchronous_standby_names"
    execute(shared.server.dsn(), setting.format("SET") + " = 'nobody'")
    try:
        await eventually_async(lambda: commit_waits(shared))
        yield
    finally:
        execute(shared.server.dsn(), setting.format("RESET"))
        execute(shared.server.dsn(), "SELECT pg_reload_conf()")


async def commit_waits(shared: Databases) -> Any:
    """Whether a COMMIT waits; the server obeys a reload in its own time."""
    execute(shared.server.dsn(), "SELECT pg_reload_conf()")
    connection = await asyncpg.connect(shared.timeseries_dsn)
    try:
        await connection.execute("SELECT pg_logical_emit_message(true, 'test', '')", timeout=0.2)
    except TimeoutError:
        return True
    finally:
        connection.terminate()
    return False


@pytest.mark.parametrize("ended", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize("content", ["timed", "untimed"])
async def test_nothing_is_stored_before_the_synchronous_standby_has_it(
    shared: Databases, make_writer: Writers, table: Table, content: str, ended: str
) -> None:
    """A wait for it that is cut off leaves the rows at the primary, for all to see: they are not acknowledged then."""
    device, filling = a_device(), Filling()
    getattr(filling, content)(device, NOW_US, {"n": 1})
    work = BatchWrite(filling.batch)
    writer = make_writer(shared.timeseries_dsn, command_timeout=20.0)
    await writer.probe()
    async with without_its_standby(shared):
        writing = asyncio.create_task(writer.write(work))
        pid = await eventually_async(lambda: table.fetchval(WAITS_FOR_STANDBY))
        await table.execute(f"SELECT {ended}($1::int)", pid)
        with pytest.raises(TransientError):
            await writing
        await eventually_async(
            lambda: table.fetchval("SELECT count(*) = 1 FROM telemetry WHERE device_id = $1", device.id)
        )
        again = asyncio.create_task(write_until_done(writer, work))
        await eventually_async(lambda: waits_anew(table, pid))
        assert not again.done()
        assert work.left
    await again
    assert await rows_of(table, device) == [(0, '{"n": 1}', None)]


async def waits_anew(table: Table, before: int) -> Any:
    """Whether another session of the writer than before waits for the standby."""
    await table.execute("SELECT pg_stat_clear_snapshot()")
    return any(row["pid"] != before for row in await table.fetch(WAITS_FOR_STANDBY))


@pytest.mark.parametrize("why", ["a constraint", "a row that grows too large", "for a while"])
async def test_what_failed_is_free_once_it_is_written(shared: Databases, writer: Writer, why: str) -> None:
    """A frame that knows an error which came through it kept it, and a batch of megabytes, until the collector came."""
    await writer.probe()
    gc.collect()
    gc.disable()
    try:
        before = batches_in_memory()
        await fail_and_write(shared, writer, why)
        assert batches_in_memory() <= before
    finally:
        gc.enable()


async def fail_and_write(shared: Databases, writer: Writer, why: str) -> None:
    """Write three messages of which some are refused, or all for now."""
    device, filling = a_device(), Filling()
    for n in range(3):
        name = "poison" if why == "a constraint" and n else f"k{n}"
        filling.timed(device, NOW_US + (0 if "row" in why else n), {name: "x" * 900_000})
    work = BatchWrite(filling.batch)
    if why == "for a while":
        away = ("ALTER TABLE telemetry RENAME TO away", "ALTER TABLE away RENAME TO telemetry")
        with altered(shared.timeseries_dsn, *away), pytest.raises(StandingError):
            await writer.write(work)
    await writer.write(work)
    refused = [index for index, outcome in enumerate(work.outcomes) if outcome is DEAD]
    assert refused == ([] if why == "for a while" else [1, 2])


def batches_in_memory() -> set[int]:
    """By identity."""
    return {id(one) for one in gc.get_objects() if isinstance(one, Batch)}


async def test_two_writers_of_the_same_readings(
    shared: Databases, make_writer: Writers, table: Table
) -> None:
    """Two connections with the same keys at once, in opposite orders: one waits or repeats, all is there once."""
    device, fillings = a_device(), (Filling(), Filling())
    for n in range(300):
        fillings[0].timed(device, NOW_US + n, {"a": n})
        fillings[1].timed(device, NOW_US + 299 - n, {"b": 299 - n})

    await asyncio.gather(
        *(
            write_until_done(make_writer(shared.timeseries_dsn), BatchWrite(filling.batch))
            for filling in fillings
        )
    )
    assert await rows_of(table, device) == [(n, f'{{"a": {n}, "b": {n}}}', None) for n in range(300)]


# ---------------------------------------------------------------- the decompression limit

LIMIT_REACHED = """
CREATE FUNCTION limit_reached() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('timescaledb.max_tuples_decompressed_per_dml_transaction', true) IS DISTINCT FROM '0' THEN
        RAISE configuration_limit_exceeded USING MESSAGE = 'tuple decompression limit exceeded by operation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER limit_reached BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION limit_reached();
"""


async def test_the_decompression_limit_is_lifted_for_the_transaction(
    shared: Databases, writer: Writer, table: Table
) -> None:
    """53400, as the columnstore raises it for late rows: the same rows again, with the limit lifted just for them."""
    device, filling = a_device(), Filling()
    filling.timed(device, NOW_US, {"n": 1})
    filling.untimed(device, NOW_US + 1, {"n": 2})
    with altered(shared.timeseries_dsn, LIMIT_REACHED, without_trigger("limit_reached")):
        work = await written(writer, filling.batch)
    assert work.outcomes == [STORED, STORED]
    assert [at for at, *_ in await rows_of(table, device)] == [0, 1]
    setting = "SELECT current_setting('timescaledb.max_tuples_decompressed_per_dml_transaction', true)"
    assert await writer._connection.fetchval(setting) != "0"


async def test_letters_are_in_the_transaction_of_the_rows(
    shared: Databases, writer: Writer, table: Table
) -> None:
    """As long as the letters cannot be written no row is; afterwards all is there once."""
    dsn, device, filling = shared.timeseries_dsn, a_device(), Filling()
    filling.timed(device, NOW_US, {"n": 1})
    filling.letter(published("t/acme/S-1", b"{"))
    work = BatchWrite(filling.batch)
    with (
        altered(dsn, "ALTER TABLE dead_letters RENAME TO away", "ALTER TABLE away RENAME TO dead_letters"),
        pytest.raises(StandingError),
    ):
        await writer.write(work)
    assert await rows_of(table, device) == []
    await writer.write(work)
    assert work.outcomes == [STORED]
    assert await rows_of(table, device) == [(0, '{"n": 1}', None)]
    assert len(await letters_of(table, work)) == 1


# ---------------------------------------------------------------- giving up


async def test_who_gives_up_a_transaction_waits_for_no_rollback(
    shared: Databases, writer: Writer, table: Table
) -> None:
    """The session hangs with the transaction open: cancelled, the writer is free at once, and can try again."""
    dsn, device, filling = shared.timeseries_dsn, a_device(), Filling()
    filling.untimed(device, NOW_US, {"n": 1})
    work = BatchWrite(filling.batch)
    await writer.probe()
    async with locked(dsn) as holder:
        writing = asyncio.create_task(writer.write(work))
        async with suspended(await eventually_async(lambda: blocked(holder))):
            writing.cancel()
            ended, _ = await asyncio.wait([writing], timeout=5)
            assert ended
            assert writing.cancelled()
    await writer.write(work)
    assert await rows_of(table, device) == [(0, '{"n": 1}', None)]


@contextlib.asynccontextmanager
async def suspended(pid: int) -> AsyncIterator[None]:
    """The session of this process stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
