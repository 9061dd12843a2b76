"""Log-ins that read one tenant: bound to it, whatever they try; nothing of others shows, not even in plans."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from gateway import errors
from gateway.storage import dsn, engines, migrate, passwords, readers
from gateway.storage.revisions import NAMES, Name
from tests.support.commands import command
from tests.support.daemon import to_toml
from tests.support.installation import Installation
from tests.support.sql import execute, scalar

SHOWN: dict[Name, tuple[str, ...]] = {
    "metadata": ("tenant", "tenant_device_types", "tenant_devices", "tenant_field_mappings"),
    "timeseries": ("tenant_telemetry", "tenant_events", "tenant_metrics"),
}


class Tenants:
    """An installation with two tenants, each with rows in every table; ``reader`` is bound to the first."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.ours, self.theirs = [self._furnish(slug) for slug in ("ours", "theirs")]
        self.reader = f"{installation.roles.prefix}_reader_ours"
        self._opened: list[asyncpg.Connection] = []

    def _furnish(self, slug: str) -> UUID:
        registry = self.installation.superuser_dsn("metadata")
        tenant: UUID = scalar(registry, "INSERT INTO tenants (slug) VALUES ($1) RETURNING id", slug)
        execute(
            registry,
            f"INSERT INTO device_types (tenant_id, name) VALUES ('{tenant}', 'k-{slug}'); "
            "INSERT INTO field_mappings (device_type_id, field_name, data_type) "
            f"SELECT id, 'f-{slug}', 'float' FROM device_types WHERE tenant_id = '{tenant}'",
        )
        self.add(tenant, slug, 3)
        return tenant

    def add(self, tenant: UUID, slug: str, count: int) -> None:
        """Devices with serial numbers that begin with ``slug``, and as many readings, events and metrics."""
        numbers, each = f"generate_series(1, {count}) n", uuid4().hex[:8]
        execute(
            self.installation.superuser_dsn("metadata"),
            "INSERT INTO devices (tenant_id, device_type_id, serial_number) "
            f"SELECT tenant_id, id, '{slug}-{each}-' || n FROM device_types, {numbers} WHERE tenant_id = '{tenant}'",
        )
        rows = {
            "telemetry": f"now(), gen_random_uuid(), '{tenant}'::uuid, '{{}}'::jsonb",
            "events": f"now(), gen_random_uuid(), '{tenant}'::uuid, 'door', 'Error'",
            "metrics": f"now(), '{each}' || n, 1, NULL::jsonb, '{tenant}'::uuid",
        }
        for table, row in rows.items():
            execute(
                self.installation.superuser_dsn("timeseries"),
                f"INSERT INTO {table} SELECT {row} FROM {numbers}; ANALYZE {table}",
            )

    async def connect(self, name: Name, role: str | None = None) -> asyncpg.Connection:
        """As the reader, or another role."""
        self._opened.append(await self.installation.connect(name, role or self.reader))
        return self._opened[-1]

    async def close(self) -> None:
        """Hang up."""
        for connection in self._opened:
            await connection.close()


@pytest.fixture
async def tenants(installation: Installation) -> AsyncIterator[Tenants]:
    """On both engines."""
    made = Tenants(installation)
    await installation.bind(made.reader, made.ours)
    yield made
    await made.close()


ATTEMPTS = (
    "SELECT",
    "SET app.current_tenant_id = '{theirs}'",
    "SET SESSION AUTHORIZATION {other}",
    "SET ROLE {other}",
    "SET search_path = pg_temp, public",
    "CREATE TEMPORARY TABLE telemetry_readers AS SELECT '{reader}'::name AS role, '{theirs}'::uuid AS tenant_id",
    "UPDATE telemetry_readers SET tenant_id = '{theirs}'",
    "UPDATE registry_readers SET tenant_id = '{theirs}'",
    "ALTER ROLE {reader} SET app.current_tenant_id = '{theirs}'",
    "GRANT {other} TO {reader}",
)
"""What a reader may try to become another; most are refused."""


async def test_a_reader_sees_its_tenant_whatever_it_tries(tenants: Tenants) -> None:
    """All of its own, nothing of others, by view and by function; another reader is not to be had."""
    other = tenants.installation.roles.reader
    await tenants.installation.bind(other, tenants.theirs)
    for name, views in SHOWN.items():
        connection = await tenants.connect(name)
        for attempt in ATTEMPTS:
            statement = attempt.format(theirs=tenants.theirs, reader=tenants.reader, other=other)
            try:
                await connection.execute(statement)
            except asyncpg.PostgresError:
                assert statement.split()[0] != "SELECT"
            for view in views:
                rows = [str(tuple(row)) for row in await connection.fetch(f"SELECT * FROM {view}")]
                assert rows, (view, attempt)
                assert not [row for row in rows if "theirs" in row or str(tenants.theirs) in row], (
                    view,
                    attempt,
                )
    telemetry = await (await tenants.connect("timeseries", other)).fetch(
        "SELECT DISTINCT tenant_id FROM tenant_telemetry"
    )
    assert [row["tenant_id"] for row in telemetry] == [tenants.theirs]


ASKED: dict[Name, tuple[str, ...]] = {
    "metadata": (
        "SELECT * FROM tenant_devices WHERE serial_number < 'theirs-9'",
        "SELECT * FROM tenant_devices WHERE id > '00000000-0000-0000-0000-000000000000' ORDER BY id LIMIT 1",
        "SELECT count(*) FROM tenant_device_types t JOIN tenant_devices d ON d.device_type_id = t.id",
        "SELECT * FROM tenant",
    ),
    "timeseries": (
        "SELECT * FROM tenant_telemetry",
        "SELECT * FROM tenant_telemetry WHERE device_id > '00000000-0000-0000-0000-000000000000'",
        "SELECT * FROM tenant_telemetry WHERE time < now() AND tenant_id = '{theirs}'",
        "SELECT * FROM tenant_telemetry('-infinity', 'infinity') WHERE tenant_id = '{theirs}'",
        "SELECT * FROM tenant_events WHERE time > '2000-01-01' ORDER BY time LIMIT 5",
        "SELECT max(metric_value) FROM tenant_metrics",
    ),
}


async def test_no_plan_tells_of_others(tenants: Tenants) -> None:
    """EXPLAIN ANALYZE says the same however much others have: neither rows removed by a filter, nor estimates."""

    async def plans() -> list[str]:
        found = []
        for name, asked in ASKED.items():
            connection = await tenants.connect(name)
            for setting in ("on", "off"):
                for kind in ("seqscan", "indexscan", "bitmapscan"):
                    await connection.execute(f"SET enable_{kind} = {setting if kind == 'seqscan' else 'on'}")
                for query in asked:
                    text = f"EXPLAIN (ANALYZE, VERBOSE, TIMING OFF, SUMMARY OFF, BUFFERS OFF) {query}"
                    rows = await connection.fetch(text.format(theirs=tenants.theirs))
                    found += [query, *(row[0] for row in rows)]
        return found

    before = await plans()
    tenants.add(tenants.theirs, "theirs", 500)
    assert await plans() == before


async def test_who_is_bound_to_nothing_sees_nothing(tenants: Tenants) -> None:
    """The reader of ``db init``, and one of an earlier version with grants on the tables, after the upgrade."""
    reader = tenants.installation.roles.reader
    execute(
        tenants.installation.superuser_dsn("metadata"),
        f"GRANT SELECT ON devices, tenants, tenant_devices TO {reader}",
    )
    await tenants.installation.upgrade(tenants.installation.roles.owner)
    for name, views in SHOWN.items():
        connection = await tenants.connect(name, reader)
        for thing in (*views, *(["devices", "tenants"] if name == "metadata" else ["telemetry"])):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {thing}")


async def test_a_reader_that_is_removed_sees_nothing_at_once(tenants: Tenants) -> None:
    """Also on connections that it has; and the role can be dropped then, for nothing is left of it."""
    opened = {name: await tenants.connect(name) for name in NAMES}
    for name in NAMES:
        async with migrate.session(name, tenants.installation.settings(name)) as connection:
            assert await readers.unbind(connection, name, tenants.reader)
            assert not await readers.unbind(connection, name, tenants.reader)
        for view in SHOWN[name]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await opened[name].fetch(f"SELECT * FROM {view}")
    await tenants.close()
    execute(tenants.installation.admin_dsn, f"DROP ROLE {tenants.reader}")


async def test_what_is_more_than_a_reader_is_not_bound(tenants: Tenants) -> None:
    """Nor who reads another tenant: a log-in has one."""
    there = tenants.installation
    execute(there.admin_dsn, f"GRANT pg_read_all_data TO {there.roles.reader}")
    for role, told in {
        there.roles.owner: "owner of this database",
        there.roles.writer: "more than a reader",
        there.roles.reader: "a member of pg_read_all_data",
        tenants.reader: "reads another tenant",
        "postgres": "a superuser",
    }.items():
        with pytest.raises(errors.UsageError, match=told):
            await there.bind(role, tenants.theirs)


async def test_a_reader_may_hold_what_locks_it_can(tenants: Tenants) -> None:
    """Advisory locks of any key, tables that it reads: partitions are made and migrations run all the same."""
    there = tenants.installation
    keys = "SELECT pg_advisory_lock(hashtextextended(k, 0)) FROM unnest(ARRAY['gateway_make_partition', 'gateway']) k"
    held = {name: await tenants.connect(name) for name in NAMES}
    for name, connection in held.items():
        await connection.execute(f"{keys}; SELECT pg_advisory_lock({0x6D69677261746564})")
        await connection.execute(f"BEGIN; SELECT count(*) FROM {SHOWN[name][0]}")
    for name in NAMES:
        await migrate.upgrade(name, there.settings(name, there.roles.owner), lock_timeout=1)
    writer = await tenants.connect("timeseries", there.roles.writer)
    engine = await engines.detect(writer)
    if engine.name == "postgresql":
        day = (await writer.fetchval("SELECT current_date")).replace(year=2020)
        assert await writer.fetchval("SELECT gateway_make_partition('events', $1)", day) == "made"


async def test_commands(tenants: Tenants, tmp_path: Path) -> None:
    """Add, list and remove, as a login that may create roles; as the owner where the role exists; the writer lists."""
    there, file = tenants.installation, tmp_path / "gateway.toml"
    file.write_text(
        to_toml({
            "mqtt": {"client_id": "test"},
            "databases": {name: {"dsn": there.superuser_dsn(name)} for name in NAMES},
            "streams": [{"name": "s", "topic": "{tenant}/{device}"}],
        })
    )  # fmt: skip
    as_owner = [
        "--db-user", there.roles.owner, "--db-password-file", str(passwords.path(there.folder, there.roles.owner)),
    ]  # fmt: skip
    secrets = tmp_path / "secrets"

    async def run(*line: str) -> tuple[int, str]:
        done = await asyncio.to_thread(command, file, "tenant", "reader", *line)
        return done.returncode, done.stdout + done.stderr

    add = ["add", "theirs", "--password-dir", str(secrets)]
    code, told = await run(*add, *as_owner)
    made = f"{there.roles.prefix}_reader_theirs"
    assert (code, "may not create roles" in told, f"CREATE ROLE {made}" in told) == (2, True, True), told
    assert (await run(*add))[0] == 0
    there.note(made)
    kept = passwords.path(secrets, made)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert await run(*add, *as_owner) == (0, f"{made} reads tenant theirs\n")
    assert (await run("add", "ours", "--name", there.roles.reader, *as_owner))[0] == 0
    code, told = await run("list", "--json")
    assert (code, {one["role"]: one["tenant"] for one in json.loads(told)}) == (
        0,
        {tenants.reader: "ours", there.roles.reader: "ours", made: "theirs"},
    )
    theirs = dsn.with_user(there.settings("timeseries"), made, kept)
    connection = await asyncpg.connect(theirs.dsn.get_secret_value(), password=theirs.secret())
    assert await connection.fetchval("SELECT count(*) FROM tenant_telemetry") == 3
    await connection.close()
    assert await run("remove", made, *as_owner) == (0, f"{made} reads nothing any more\n")
    assert (await run("remove", made, *as_owner))[0] == 2
    assert (await run("add", "nobody"))[0] == 2
    assert (await run("add", "ours", "--name", 'x"; DROP'))[0] == 2
