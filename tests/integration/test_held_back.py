"""Batches that fail for a reason of their own although the server works, on both engines: others go on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.outcomes import Outcome
from gateway.settings import Settings
from tests.integration.test_pipeline import NOW_MS, Tenant
from tests.support.batching import settings_for
from tests.support.databases import Databases, Workshop
from tests.support.flow import Flow
from tests.support.servers import Postgres, Server
from tests.support.sql import execute, without_trigger
from tests.support.waiting import eventually_async
from tests.support.written import altered, name_of

STORED, DEAD, SPOOLED = Outcome.STORED, Outcome.DEAD_LETTERED, Outcome.SPOOLED
QUICK = {"hold_back": 0.3}


def trigger(condition: str, action: str, table: str = "telemetry") -> tuple[str, str]:
    """What an operator may have put on a table, and its undoing."""
    make = f"""
    CREATE FUNCTION of_the_operator() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF {condition} THEN {action}; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER of_the_operator BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION of_the_operator();
    """
    return make, without_trigger("of_the_operator", table)


DAY = 86_400_000
FEW_LOCKS = {"max_locks_per_transaction": "10", "max_connections": "30", "max_worker_processes": "16",
             "timescaledb.max_background_workers": "4"}  # fmt: skip
"""Locks for some hundred chunks: a chunk and its indexes are locked until the end of the transaction."""
BAD = "jsonb_exists(NEW.data, 'bad')"


@pytest.fixture(scope="module")
def own(server: Server, workshops: Callable[[Server], Workshop]) -> Iterator[Databases]:
    """Migrated databases of this module, on both engines."""
    workshop = workshops(server)
    made = workshop.migrated()
    yield made
    workshop.drop(made)


@pytest.fixture
def frozen(timescaledb: Server, workshops: Callable[[Server], Workshop]) -> Iterator[Databases]:
    """Databases on TimescaleDB, whose chunks a test may freeze."""
    workshop = workshops(timescaledb)
    made = workshop.migrated()
    yield made
    workshop.drop(made)


def options(databases: Databases, **sections: Any) -> Settings:
    """Quick to give up."""
    return settings_for(databases, writer={**QUICK, **sections.pop("writer", {})}, **sections)


async def beside(flow: Flow, make: Callable[[], Any], *, until: Callable[[], object]) -> None:
    """Other messages come, until this is so."""

    def one_more() -> object:
        flow.take(make())
        return until()

    await eventually_async(one_more, timeout=30)


def reading(tenant: Tenant, n: int, **metrics: Any) -> Any:
    """A message with a time of its own."""
    return tenant.message({"ts": NOW_MS + n, "metrics": {"n": n, **metrics}})


# P0001 as an operator writes it; 0A000 as a frozen or tiered chunk; 54000 and 42P01 in a trigger.
RAISES = [
    "RAISE EXCEPTION 'not this one'",
    "RAISE feature_not_supported USING MESSAGE = 'cannot INSERT into frozen chunk'",
    "RAISE program_limit_exceeded USING MESSAGE = 'too much'",
    "PERFORM 1 FROM no_such_table",
]


@pytest.mark.parametrize("action", RAISES)
async def test_one_message_that_fails_costs_itself_only(own: Databases, action: str) -> None:
    """In a batch of hundreds: found by halving, its neighbours stored at once; after a while it is a dead letter."""
    tenant = Tenant(own)
    make, undo = trigger(BAD, action)
    with altered(own.timeseries_dsn, make, undo):
        async with Flow(options(own, writer={"standing_retry": 0.1})) as flow:
            flow.take(*(reading(tenant, n, **({"bad": 1} if n == 77 else {})) for n in range(300)))
            await eventually_async(lambda: flow.ended().get(STORED) == 299)
            more = itertools.count(300)
            await beside(flow, lambda: reading(tenant, next(more)), until=lambda: flow.ended().get(DEAD))
            ended = await flow.settle()
    assert ended == {STORED: flow.taken - 1, DEAD: 1}
    assert len(tenant.rows()) == flow.taken - 1
    ((reason, payload),) = tenant.letters()
    assert (reason, json.loads(payload)["metrics"]["n"]) == ("refused_by_database", 77)


async def test_nothing_else_comes(own: Databases) -> None:
    """As when the broker's window is full of what waits for the one that fails: that it takes others is tried out."""
    tenant = Tenant(own)
    make, undo = trigger(BAD, RAISES[0])
    with altered(own.timeseries_dsn, make, undo):
        async with Flow(options(own)) as flow:
            flow.take(*(reading(tenant, n, **({"bad": 1} if n == 7 else {})) for n in range(20)))
            assert await flow.settle(timeout=30) == {STORED: 19, DEAD: 1}
    assert len(tenant.rows()) == 19  # what was tried out left nothing


async def test_nothing_else_comes_and_none_would_be_stored(own: Databases) -> None:
    """Others were stored before, and would not be now: what fails is held, for it may not be to blame."""
    tenant = Tenant(own)
    make, undo = trigger(BAD, RAISES[0])
    of_all, _ = trigger("true", RAISES[0])
    with altered(own.timeseries_dsn, make, undo):
        async with Flow(options(own)) as flow:
            flow.take(*(reading(tenant, n, **({"bad": 1} if n == 7 else {})) for n in range(20)))
            await eventually_async(lambda: flow.ended() == {STORED: 19})
            execute(own.timeseries_dsn, of_all.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
                    .partition("CREATE TRIGGER")[0])  # fmt: skip
            (work,) = flow.pipeline.in_flight.back
            await eventually_async(lambda: work.history and work.history.tries > 3, timeout=30)
            assert flow.ended() == {STORED: 19}
            execute(own.timeseries_dsn, undo)
            assert await flow.settle(timeout=60) == {STORED: 20}
    assert tenant.letters() == []


async def test_a_frozen_chunk_costs_its_readings_only(frozen: Databases) -> None:
    """A chunk that an operator froze takes no rows (0A000): what falls into it is set apart, all else is stored."""
    own, day = frozen, 86_400_000
    tenant = Tenant(own)
    old = NOW_MS - 3 * day
    async with Flow(options(own)) as flow:
        flow.take(tenant.message({"ts": old, "metrics": {"n": 0}}))
        await flow.settle()
        # What freeze_chunk() of the Community edition leaves: bit 4 of the status.
        execute(own.timeseries_dsn, "UPDATE _timescaledb_catalog.chunk SET status = status | 4")
        flow.take(
            *(reading(tenant, n) for n in range(50)),
            tenant.message({"ts": old + 1, "metrics": {"n": 1}}),
            *(reading(tenant, n) for n in range(50, 100)),
        )
        await eventually_async(lambda: flow.ended().get(STORED) == 101)
        more = itertools.count(100)
        await beside(flow, lambda: reading(tenant, next(more)), until=lambda: flow.ended().get(DEAD))
        await flow.settle()
    assert [reason for reason, _ in tenant.letters()] == ["refused_by_database"]


async def test_batches_of_one_bad_message_stop_no_connection(own: Databases) -> None:
    """One at a time, as at a low rate, more of them than there are connections: what comes behind is stored."""
    tenant = Tenant(own)
    make, undo = trigger(BAD, RAISES[0])
    with altered(own.timeseries_dsn, make, undo):
        async with Flow(options(own)) as flow:
            for n in range(6):
                flow.take(reading(tenant, n, bad=1))
                await eventually_async(lambda: not len(flow.pipeline.in_flight.queue.open))
            flow.take(reading(tenant, 10))
            await eventually_async(lambda: flow.ended().get(STORED) == 1)
            more = itertools.count(11)
            await beside(flow, lambda: reading(tenant, next(more)), until=lambda: flow.ended().get(DEAD) == 6)
            assert await flow.settle() == {STORED: flow.taken - 6, DEAD: 6}
    assert len(tenant.letters()) == 6


NO_MORE_IDS = (
    "RAISE program_limit_exceeded USING MESSAGE = 'database is not accepting commands that assign new transaction IDs "
    'to avoid wraparound data loss in database "x"\''
)


@pytest.mark.parametrize("action", [NO_MORE_IDS, "RAISE insufficient_privilege"])
async def test_what_fails_for_all_is_held_for_all(own: Databases, action: str) -> None:
    """No reading is to blame when none is stored: it is told, and afterwards all is stored."""
    tenant = Tenant(own)
    make, undo = trigger("true", action)
    with altered(own.timeseries_dsn, make, undo):
        async with Flow(options(own, writer={"standing_retry": 0.1})) as flow:
            state = flow.health.component("timeseries")
            for start in range(0, 500, 100):
                flow.take(*(reading(tenant, start + n) for n in range(100)))
                await eventually_async(lambda: not len(flow.pipeline.in_flight.queue.open))
            back = flow.pipeline.in_flight.back
            tried = lambda: back and all(work.history and work.history.tries > 2 for work in back)  # noqa: E731
            await eventually_async(tried, timeout=30)
            assert flow.ended() == {}
            assert state.state != "ready"
            execute(own.timeseries_dsn, undo)
            assert await flow.settle(timeout=60) == {STORED: 500}
            assert state.state == "ready"
    assert tenant.letters() == []
    assert len(tenant.rows()) == 500


async def test_a_batch_too_large_for_the_time_it_has(own: Databases) -> None:
    """``statement_timeout`` ends a full batch each time: halved until it fits, and the size is remembered."""
    tenant = Tenant(own)
    make, undo = trigger("true", "PERFORM pg_sleep(0.0005)")
    change = f"ALTER DATABASE {name_of(own.timeseries_dsn)}"
    with (
        altered(own.timeseries_dsn, make, undo),
        altered(
            own.server.dsn(), f"{change} SET statement_timeout = 200", f"{change} RESET statement_timeout"
        ),
    ):
        async with Flow(options(own)) as flow:
            flow.take(*(reading(tenant, n) for n in range(2000)))
            assert await flow.settle(timeout=60) == {STORED: 2000}
            most = flow.base.experience.most
            assert most < 1000
    assert len(tenant.rows()) == 2000


async def test_a_statement_too_long_for_our_own_patience(own: Databases) -> None:
    """The same by ``command_timeout``: the server would go on, we do not wait."""
    tenant = Tenant(own)
    make, undo = trigger("true", "PERFORM pg_sleep(0.0005)")
    with altered(own.timeseries_dsn, make, undo):
        made = options(own)
        hasty = made.databases.timeseries.model_copy(update={"command_timeout": 0.3})
        databases = made.databases.model_copy(update={"timeseries": hasty})
        async with Flow(made.model_copy(update={"databases": databases})) as flow:
            flow.take(*(reading(tenant, n) for n in range(1500)))
            ended = await flow.settle(timeout=60)
            # A commit whose answer was not waited for is met again: then it counts as a duplicate.
            assert set(ended) <= {STORED, Outcome.DUPLICATE}
    assert len(tenant.rows()) == 1500


async def test_with_a_spool_it_waits_there(own: Databases, tmp_path: Path) -> None:
    """Out of the way and acknowledged; the drain tries it again, beside other spooled ones, until it is taken."""
    tenant = Tenant(own)
    make, undo = trigger(BAD, RAISES[0])
    with altered(own.timeseries_dsn, make, undo):
        async with Flow(options(own, spool={"folder": tmp_path, "after": 5})) as flow:
            flow.base.open()
            flow.take(*(reading(tenant, n, **({"bad": 1} if n in (7, 77) else {})) for n in range(100)))
            assert await flow.settle() == {STORED: 98, SPOOLED: 2}
            held = flow.health.component("spool held back")
            await eventually_async(lambda: held.detail.startswith("2 messages held back"))
            assert "not this one" in held.detail
            flow.take(reading(tenant, 1000))
            assert (await flow.settle())[STORED] == 99
            assert flow.base.spool is not None
            assert flow.base.spool.records == 2
            execute(own.timeseries_dsn, undo)
            await eventually_async(lambda: len(tenant.rows()) == 101, timeout=30)
            await eventually_async(lambda: flow.base.spool.empty)  # type: ignore[union-attr]
            assert held.detail == ""
    assert tenant.letters() == []


async def test_a_letter_that_is_refused_holds_nothing_else(own: Databases) -> None:
    """A trigger on the dead letters, such as one whose NOTIFY is too long: other letters and readings go on."""
    tenant = Tenant(own)
    make, undo = trigger(
        "length(NEW.payload) > 5", "PERFORM pg_notify('letters', repeat('x', 9000))", "dead_letters"
    )
    with altered(own.timeseries_dsn, make, undo):
        async with Flow(options(own)) as flow:
            flow.take(
                reading(tenant, 1),
                tenant.message(b"{too long"),
                tenant.message(b"{"),
                reading(tenant, 2),
            )
            await eventually_async(lambda: flow.ended() == {STORED: 2, DEAD: 1})
            flow.take(reading(tenant, 3), tenant.message(b"}"))
            await eventually_async(lambda: flow.ended() == {STORED: 3, DEAD: 2})
            assert flow.held().total() == 1
            execute(own.timeseries_dsn, undo)
            assert await flow.settle() == {STORED: 3, DEAD: 3}
    assert len(tenant.letters()) == 3


@pytest.mark.timescaledb
async def test_more_chunks_than_the_server_has_locks_for(
    start_server: Callable[..., Postgres], workshops: Callable[[Server], Workshop]
) -> None:
    """TimescaleDB's own 53200: two messages of a reading a day each are set apart, all readings of others are stored.

    Each of them alone would need more locks than the server has in all. Let in by ``validation.max_days``; by default
    such messages are refused at the door.
    """
    own = workshops(start_server("timescaledb", settings=FEW_LOCKS)).migrated()
    tenant = Tenant(own, "A", "B", "C")
    before, days = NOW_MS - 3000 * DAY, 1000
    wide = [
        tenant.message([{"ts": before + n * DAY + at, "metrics": {"n": n}} for n in range(days)], device)
        for at, device in ((0, "B"), (1, "C"))
    ]
    assert sqlstate_of(own, days) == "53200"
    async with Flow(options(own, validation={"max_days": days})) as flow:
        flow.take(
            *(reading(tenant, n) for n in range(1500)),
            *wide,
            *(reading(tenant, n) for n in range(1500, 3000)),
        )
        await eventually_async(lambda: flow.ended().get(STORED) == 3000, timeout=60)
        ended = await flow.settle(timeout=90)
    assert ended == {STORED: 3000, DEAD: 2}
    assert len(tenant.rows()) == 3000
    assert [reason for reason, _ in tenant.letters()] == ["refused_by_database"] * 2


def sqlstate_of(own: Databases, days: int) -> str:
    """How the server refuses a row a day in one statement, by itself."""
    statement = (
        "INSERT INTO telemetry (time, device_id, tenant_id, data) "
        "SELECT now() - interval '1 day' * n, gen_random_uuid(), gen_random_uuid(), '{}' "
        f"FROM generate_series(1, {days}) AS n"
    )
    with pytest.raises(asyncpg.PostgresError) as refused:
        execute(own.timeseries_dsn, statement)
    return str(refused.value.sqlstate)


async def test_a_message_of_too_many_days_is_refused_at_the_door(own: Databases) -> None:
    """5 000 readings, one a day, would need more locks than there are; so would a time that is ages ago."""
    tenant, day = Tenant(own), 86_400_000
    many = [{"ts": NOW_MS - n * day, "metrics": {"n": n}} for n in range(400)]
    async with Flow(options(own)) as flow:
        flow.take(
            tenant.message(many),
            tenant.message(many[:3]),
            tenant.message({"ts": NOW_MS - 3660 * day, "metrics": {"n": 1}}),
        )
        assert await flow.settle() == {STORED: 1, DEAD: 2}
    assert sorted(reason for reason, _ in tenant.letters()) == ["timestamp_too_old", "too_many_days"]
