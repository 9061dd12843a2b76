"""Where a database keeps the revision that it is at: a table for each tree, so that both may live in one database.

Databases of before have Alembic's own ``alembic_version``, whichever tree it stands for; an upgrade or a downgrade
renames it.
"""

from __future__ import annotations

import asyncpg

from gateway import errors
from gateway.storage.revisions import Name

NAMES: dict[Name, str] = {"metadata": "alembic_version_metadata", "timeseries": "alembic_version_timeseries"}
_OLD = "alembic_version"
_FIRST_TABLES: dict[Name, str] = {"metadata": "tenants", "timeseries": "telemetry"}
"""A table of each tree's first revision: by it the tree of ``alembic_version`` is known."""


async def find(connection: asyncpg.Connection, name: Name) -> str | None:
    """The table that holds the revision of this tree; None: nothing of it was ever applied.

    Raises:
        UsageError: it cannot be told of which tree ``alembic_version`` is.
    """
    if await connection.fetchval("SELECT to_regclass($1)", NAMES[name]) is not None:
        return NAMES[name]
    other: Name = "timeseries" if name == "metadata" else "metadata"
    row = await connection.fetchrow(_WHOSE, _FIRST_TABLES[name], _FIRST_TABLES[other], NAMES[other])
    if row is None or not row["ours"]:
        return None
    if row["others"]:
        raise errors.UsageError(_AMBIGUOUS.format(name=name, own=NAMES[name], other=other, its=NAMES[other]))
    return _OLD


async def make(connection: asyncpg.Connection, name: Name) -> None:
    """The table as Alembic makes it, where there is none; that of before gets its name of today.

    To be called as the owner. Two may do this at once: the second finds it done.
    """
    try:
        if await find(connection, name) == _OLD:
            await connection.execute(f"ALTER TABLE {_OLD} RENAME TO {NAMES[name]}")
        await connection.execute(_MAKE.format(table=NAMES[name]))
    except (asyncpg.UndefinedTableError, asyncpg.UniqueViolationError, asyncpg.DuplicateTableError):
        if await find(connection, name) != NAMES[name]:
            raise


_MAKE = """
CREATE TABLE IF NOT EXISTS {table} (version_num varchar(32) NOT NULL, CONSTRAINT {table}_pkc PRIMARY KEY (version_num))
"""

# In the schema of alembic_version only: other tables of these names may belong to other programs.
_WHOSE = f"""
SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = old.relnamespace AND relname = $1) AS ours,
       EXISTS (SELECT FROM pg_class WHERE relnamespace = old.relnamespace AND relname = $2)
           AND to_regclass($3) IS NULL AS others
FROM pg_class AS old WHERE old.oid = to_regclass('{_OLD}')
"""
_AMBIGUOUS = (
    "{name}: the tables of {name} and of {other} are in this database, and one alembic_version, which cannot say how "
    "far both are: rename it to the tree whose revision it holds (ALTER TABLE alembic_version RENAME TO {own}, or "
    "{its}), and make the other table like it, with the revision that the other's tables are of"
)
