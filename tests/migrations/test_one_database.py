"""Both trees in one database, and databases whose revision stands where older gateways kept it."""

from __future__ import annotations

import pytest

from gateway import errors
from gateway.settings import DatabaseSettings
from gateway.storage import migrate, revisions, schema_status, version_tables
from gateway.storage.revisions import Name
from tests.migrations.conftest import database, dsn
from tests.support.databases import Databases
from tests.support.schema import leftovers, schema
from tests.support.sql import execute, scalar


@pytest.fixture
def shared(blank_databases: Databases) -> DatabaseSettings:
    """One blank database, on both engines: the one that may have the extension."""
    return database(blank_databases, "timeseries")


def as_before(name: Name, there: DatabaseSettings) -> None:
    """Put the revision where older gateways kept it."""
    execute(dsn(there), f"ALTER TABLE {version_tables.NAMES[name]} RENAME TO alembic_version")


async def states(there: DatabaseSettings) -> list[tuple[str | None, bool]]:
    """Revision, and whether it is the newest, of each tree."""
    found = [await schema_status.status(name, there) for name in revisions.NAMES]
    return [(one.current, one.up_to_date) for one in found]


@pytest.mark.parametrize("order", [revisions.NAMES, revisions.NAMES[::-1]], ids="-".join)
async def test_both_trees_live_in_one_database(shared: DatabaseSettings, order: tuple[Name, ...]) -> None:
    """Whichever comes first: each goes up, stays when the other goes down, and leaves nothing of its own behind."""
    heads = [(revisions.history(name)[-1].id, True) for name in revisions.NAMES]
    for name in order:
        assert await migrate.upgrade(name, shared) == revisions.history(name)
    assert await states(shared) == heads
    made = schema(dsn(shared))
    for name in order:
        await migrate.downgrade(name, shared, "base")
        assert [at is None for at, _ in await states(shared)] == [one == name for one in revisions.NAMES]
        await migrate.upgrade(name, shared)
        assert schema(dsn(shared)) == made
    for name in order:
        await migrate.downgrade(name, shared, "base")
    assert leftovers(dsn(shared)) == []


async def test_an_older_installation_goes_on(name: Name, blank: DatabaseSettings) -> None:
    """Its revision is found before anything is migrated; an upgrade goes on from it, a downgrade ends it."""
    known = revisions.history(name)
    await migrate.upgrade(name, blank, known[1].id)
    as_before(name, blank)
    assert await migrate.current(name, blank) == known[1].id
    found = await schema_status.status(name, blank)
    assert found.pending == tuple(step.id for step in known[2:])
    assert await migrate.upgrade(name, blank) == known[2:]
    assert scalar(dsn(blank), "SELECT to_regclass('alembic_version')") is None
    as_before(name, blank)
    assert await migrate.upgrade(name, blank) == []
    as_before(name, blank)
    await migrate.downgrade(name, blank, "base")
    assert leftovers(dsn(blank)) == []


async def test_where_older_gateways_stopped_half_way(shared: DatabaseSettings) -> None:
    """One database for both, where only metadata could be applied: the upgrade that failed for ever now works."""
    await migrate.upgrade("metadata", shared)
    as_before("metadata", shared)
    assert await migrate.current("timeseries", shared) is None
    assert await migrate.upgrade("timeseries", shared) == revisions.history("timeseries")
    assert await migrate.upgrade("metadata", shared) == []
    assert [up_to_date for _, up_to_date in await states(shared)] == [True, True]


async def test_a_version_of_either_tree_is_not_guessed(shared: DatabaseSettings) -> None:
    """The tables of both and one alembic_version, made by hand: refused with the way out, nothing is changed."""
    for name in revisions.NAMES:
        await migrate.upgrade(name, shared)
    as_before("timeseries", shared)
    execute(dsn(shared), "DROP TABLE alembic_version_metadata")
    before = schema(dsn(shared))
    for name in revisions.NAMES:
        with pytest.raises(errors.UsageError, match="one alembic_version, which cannot say"):
            await migrate.upgrade(name, shared)
    assert schema(dsn(shared)) == before


async def test_tables_of_another_application_are_not_taken_for_ours(
    name: Name, blank: DatabaseSettings
) -> None:
    """An ``alembic_version`` beside none of our tables is somebody else's: it stays as it is."""
    execute(
        dsn(blank),
        "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('0001')",
    )
    assert await migrate.current(name, blank) is None
    await migrate.upgrade(name, blank)
    assert scalar(dsn(blank), "SELECT version_num FROM alembic_version") == "0001"
