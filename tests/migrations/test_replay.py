"""Revisions up and down, on both engines."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from gateway import errors
from gateway.settings import DatabaseSettings
from gateway.storage import migrate, revisions
from gateway.storage.revisions import Name
from tests.migrations.conftest import dsn
from tests.support.schema import leftovers, schema
from tests.support.sql import execute, scalar
from tests.support.waiting import eventually_async

IN_THE_WAY_OF_0002: dict[Name, tuple[str, str]] = {
    "metadata": (
        "CREATE POLICY tenant_isolation ON field_mappings",
        "DROP POLICY tenant_isolation ON field_mappings",
    ),
    "timeseries": ("CREATE VIEW dead_letters AS SELECT 1", "DROP VIEW dead_letters"),
}


async def test_every_revision_goes_down_and_up_again(name: Name, blank: DatabaseSettings) -> None:
    """Each step, undone and done again, leaves the schema that it made the first time."""
    for revision in revisions.history(name):
        assert [revision] == await migrate.upgrade(name, blank, revision.id)
        made = schema(dsn(blank))
        assert [revision] == await migrate.downgrade(name, blank, "-1")
        await migrate.upgrade(name, blank, revision.id)
        assert made == schema(dsn(blank))


async def test_down_to_base_leaves_nothing_behind(name: Name, blank: DatabaseSettings) -> None:
    """No table, function or type stays, Alembic's own included; and up again gives the same schema."""
    await migrate.upgrade(name, blank)
    made = schema(dsn(blank))
    assert len(made) > 20
    await migrate.downgrade(name, blank, "base")
    assert leftovers(dsn(blank)) == []
    assert await migrate.current(name, blank) is None
    await migrate.upgrade(name, blank)
    assert made == schema(dsn(blank))


async def test_rows_do_not_hinder_going_down(name: Name, blank: DatabaseSettings) -> None:
    """A downgrade drops tables with what is in them."""
    await migrate.upgrade(name, blank)
    if name == "metadata":
        execute(dsn(blank), "INSERT INTO tenants (slug) VALUES ('acme')")
    else:
        execute(
            dsn(blank),
            "INSERT INTO telemetry SELECT t, gen_random_uuid(), gen_random_uuid(), '{}' "
            "FROM generate_series(now() - interval '30 days', now(), interval '1 day') t",
        )
    await migrate.downgrade(name, blank, "base")
    assert leftovers(dsn(blank)) == []


async def test_upgrading_twice_does_nothing(name: Name, blank: DatabaseSettings) -> None:
    """What is applied is not applied again."""
    applied = await migrate.upgrade(name, blank)
    assert applied == revisions.history(name)
    assert await migrate.upgrade(name, blank) == []
    assert await migrate.current(name, blank) == applied[-1].id


async def test_two_migrations_take_turns(name: Name, blank: DatabaseSettings) -> None:
    """While another session migrates, an upgrade waits; it gives up and names that session, and works afterwards."""
    async with migrate._locked(name, blank, 1) as other:
        told = rf"another migration .*process {other.get_server_pid()} of \w+ \(gateway-migrate\)"
        with pytest.raises(errors.TransientError, match=told):
            await migrate.upgrade(name, blank, lock_timeout=0.3)
        waiting = asyncio.create_task(migrate.upgrade(name, blank, lock_timeout=20))
        arrived = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gateway-migrate' "
        arrived += "AND datname = current_database()"
        await eventually_async(lambda: scalar(dsn(blank), arrived) == 2, what="the second has connected")
        assert not waiting.done()
    assert await waiting == revisions.history(name)


async def test_a_table_that_others_lock_is_told(
    name: Name, blank: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's statements wait behind an upgrade that waits: it gives up soon, and names who has the lock."""
    monkeypatch.setattr(migrate, "TABLE_TIMEOUT", 0.2)
    *_, last = revisions.history(name)
    await migrate.upgrade(name, blank)
    before = schema(dsn(blank))
    first = {"metadata": "registry_versions", "timeseries": "dead_letters"}[name]
    holder = await asyncpg.connect(dsn(blank), server_settings={"application_name": "a report"})
    try:
        async with holder.transaction():
            await holder.execute(f"SELECT FROM {first}")
            with pytest.raises(
                errors.TransientError, match=rf"process {holder.get_server_pid()} of \w+ \(a report\)"
            ):
                await migrate.downgrade(name, blank, "base")
        assert (await migrate.current(name, blank) == last.id) == (before == schema(dsn(blank)))
        await migrate.upgrade(name, blank)
        assert before == schema(dsn(blank))
    finally:
        await holder.close()


async def test_a_failing_revision_is_rolled_back(name: Name, blank: DatabaseSettings) -> None:
    """What is in the way stops that revision, which leaves nothing; those before it stay."""
    first, second, *_ = revisions.history(name)
    await migrate.upgrade(name, blank, first.id)
    made = schema(dsn(blank))
    in_the_way, out_of_the_way = IN_THE_WAY_OF_0002[name]
    execute(dsn(blank), in_the_way)
    with pytest.raises(errors.StandingError, match="already exists"):
        await migrate.upgrade(name, blank)
    assert await migrate.current(name, blank) == first.id
    execute(dsn(blank), out_of_the_way)
    assert made == schema(dsn(blank))
    assert (await migrate.upgrade(name, blank))[0] == second


async def test_an_unknown_revision_is_a_users_mistake(name: Name, blank: DatabaseSettings) -> None:
    """The text names the revision and says where to look."""
    with pytest.raises(errors.UsageError, match=r"0815.*gateway db history"):
        await migrate.upgrade(name, blank, "0815")


def test_history_is_in_order(name: Name) -> None:
    """Oldest first, each with a title of one line."""
    known = revisions.history(name)
    assert [revision.id for revision in known] == sorted(revision.id for revision in known)
    assert all(revision.title and "\n" not in revision.title for revision in known)


async def test_revisions_may_leave_the_transaction(
    name: Name,
    blank: DatabaseSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """``autocommit_block`` works, for statements that no transaction may hold."""
    folder = tmp_path_factory.mktemp("a 100% odd path")
    real = revisions.folder()
    (folder / name / "versions").mkdir(parents=True)
    (folder / "env.py").write_text((real / "env.py").read_text())
    (folder / name / "versions" / "r0001_apart.py").write_text(
        '"""Apart."""\n'
        "from alembic import op\n"
        "revision, down_revision = '0001', None\n"
        "def upgrade() -> None:\n"
        "    op.execute('CREATE TABLE apart (id integer)')\n"
        "    with op.get_context().autocommit_block():\n"
        "        op.execute('CREATE INDEX CONCURRENTLY apart_id ON apart (id)')\n"
    )
    monkeypatch.setattr(revisions, "folder", lambda: folder)
    await migrate.upgrade(name, blank)
    assert (
        scalar(dsn(blank), "SELECT indisvalid FROM pg_index WHERE indexrelid = 'apart_id'::regclass") is True
    )
