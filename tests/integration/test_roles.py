"""``gateway db init``: roles of least privilege, seen from the inside of each."""

from __future__ import annotations

import datetime as dt
import re
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from gateway import errors
from gateway.devices import models, provisioning
from gateway.storage import dsn, engines, migrate, passwords, pools, revisions, roles
from gateway.storage.initialise import initialise
from gateway.storage.revisions import Name
from tests.support.installation import Installation
from tests.support.schema import schema
from tests.support.servers import Postgres
from tests.support.sql import execute, query, scalar


@pytest.fixture
async def as_role(
    installation: Installation,
) -> AsyncIterator[Callable[[Name, str], Awaitable[asyncpg.Connection]]]:
    """Connects as ``owner``, ``writer`` or ``reader``."""
    opened: list[asyncpg.Connection] = []

    async def connect(name: Name, role: str) -> asyncpg.Connection:
        opened.append(await installation.connect(name, getattr(installation.roles, role)))
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()


AsRole = Callable[[Name, str], Awaitable[asyncpg.Connection]]


async def furnish(installation: Installation, slug: str) -> UUID:
    """A tenant with a type and a device; its id."""
    database = installation.superuser_dsn("metadata")
    tenant: UUID = scalar(database, "INSERT INTO tenants (slug) VALUES ($1) RETURNING id", slug)
    execute(
        database,
        f"INSERT INTO device_types (tenant_id, name) VALUES ('{tenant}', 'k'); "
        "INSERT INTO devices (tenant_id, device_type_id, serial_number) "
        f"SELECT tenant_id, id, 'S1' FROM device_types WHERE tenant_id = '{tenant}'",
    )
    return tenant


async def test_init_can_be_repeated(installation: Installation) -> None:
    """A second run does nothing, and changes no privilege and no password."""
    before = [schema(installation.superuser_dsn(name)) for name in revisions.NAMES]
    files = {file: file.read_text() for file in installation.folder.iterdir()}
    assert await installation.init() == []
    assert before == [schema(installation.superuser_dsn(name)) for name in revisions.NAMES]
    assert files == {file: file.read_text() for file in installation.folder.iterdir()}


async def test_passwords_are_only_in_files_that_their_owner_may_read(installation: Installation) -> None:
    """Three files of mode 0600 in a folder of mode 0700; the server got verifiers."""
    files = sorted(installation.folder.iterdir())
    assert [file.stem for file in files] == sorted(
        [installation.roles.owner, installation.roles.reader, installation.roles.writer]
    )
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(installation.folder.stat().st_mode) == 0o700
    kept = "SELECT rolpassword FROM pg_authid WHERE rolname = $1"
    for file in files:
        assert scalar(installation.admin_dsn, kept, file.stem).startswith("SCRAM-SHA-256$4096:")


async def test_the_password_in_the_file_opens_the_door(
    start_server: Callable[..., Postgres], tmp_path: Path
) -> None:
    """On a server that asks for passwords, the generated one is right, and another is not; none is in the log."""
    server = start_server("postgres", settings={"log_statement": "all"})
    made = Installation(server, tmp_path / "secrets")
    await made.init()
    (server.cluster / "pg_hba.conf").write_text(
        "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    execute(made.admin_dsn, "SELECT pg_reload_conf()")
    await made.upgrade(made.roles.owner)
    file = passwords.path(made.folder, made.roles.writer)
    generated = file.read_text().strip()
    await (await made.connect("timeseries", made.roles.writer)).close()
    file.write_text("another\n")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await made.connect("timeseries", made.roles.writer)
    await made.init()
    await (await made.connect("timeseries", made.roles.writer)).close()
    logged = server.log.read_text()
    assert "CREATE ROLE" in logged
    assert generated not in logged


async def test_writer_writes(as_role: AsRole) -> None:
    """All that the daemon does with the time-series database."""
    writer = await as_role("timeseries", "writer")
    tenant, device, now = uuid4(), uuid4(), await writer.fetchval("SELECT now()")
    await writer.copy_records_to_table("telemetry", records=[(now, device, tenant, "{}", None, now)])
    await writer.execute("CREATE TEMPORARY TABLE staged (LIKE telemetry)")
    await writer.copy_records_to_table("staged", records=[(now, device, tenant, '{"a": 1}', None, now)])
    await writer.execute(
        "INSERT INTO telemetry SELECT * FROM staged "
        "ON CONFLICT (device_id, time) DO UPDATE SET data = telemetry.data || excluded.data"
    )
    assert await writer.fetchval("SELECT data FROM telemetry") == '{"a": 1}'
    await writer.execute(
        "INSERT INTO dead_letters (received_at, stream, topic, payload, reason, detail, qos, retained) "
        "VALUES (now(), 's', 't', '', 'r', 'd', 1, false)"
    )
    await writer.execute(
        "UPDATE dead_letters SET replays = replays + 1, replayed_at = now(), replay_outcome = 'stored'"
    )
    await writer.execute(
        "INSERT INTO redelivery_ledger (batch_id, client_id, received, packet_ids, digests) "
        "VALUES (gen_random_uuid(), 'c', 0, '', '')"
    )
    await writer.execute("INSERT INTO processed_messages VALUES ($1, 'm')", tenant)
    for table in ("redelivery_ledger", "processed_messages"):
        assert await writer.fetchval(f"SELECT count(*) FROM {table}") == 1
        assert await writer.execute(f"DELETE FROM {table}") == "DELETE 1"


async def test_writer_makes_partitions(installation: Installation, as_role: AsRole) -> None:
    """Though it owns no table: the function runs as the owner. Partitions belong to the owner."""
    writer = await as_role("timeseries", "writer")
    engine = await engines.detect(writer)
    day = dt.date(2020, 1, 1)
    made = await engine.make_partitions(writer, day, day + dt.timedelta(days=1))
    assert len(made.made) == (3 if engine.name == "postgresql" else 0)
    owners = await writer.fetch(
        "SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_inherits JOIN pg_class ON oid = inhrelid "
        "WHERE inhparent = 'telemetry'::regclass AND relkind = 'r'"
    )
    assert [row["owner"] for row in owners] in ([], [installation.roles.owner])


async def test_writer_knows_all_devices(installation: Installation, as_role: AsRole) -> None:
    """It reads the devices of every tenant, provisions, and notes when a device was seen."""
    for slug in ("acme", "other"):
        await furnish(installation, slug)
    writer = await as_role("metadata", "writer")
    await writer.add_listener("gateway_registry", lambda *_: None)
    assert await writer.fetchval("SELECT count(*) FROM devices JOIN tenants t ON t.id = tenant_id") == 2
    await provisioning.ensure_devices(writer, "acme", "k", ["S1", "S2"], per_hour=9)
    assert await writer.fetchval("SELECT count(*) FROM devices") == 3
    assert await writer.execute("UPDATE devices SET last_seen_at = now()") == "UPDATE 3"
    await writer.reset()


FORBIDDEN_TO_WRITER: list[tuple[Name, str]] = [
    ("timeseries", "DROP TABLE telemetry"),
    ("timeseries", "ALTER TABLE telemetry ADD COLUMN more text"),
    ("timeseries", "CREATE TABLE more (id integer)"),
    ("timeseries", "CREATE SCHEMA more"),
    ("timeseries", "TRUNCATE telemetry"),
    ("timeseries", "DELETE FROM telemetry"),
    ("timeseries", "DELETE FROM dead_letters"),
    ("timeseries", "UPDATE dead_letters SET payload = ''"),
    ("timeseries", "UPDATE alembic_version_timeseries SET version_num = ''"),
    ("metadata", "CREATE TABLE more (id integer)"),
    ("metadata", "DROP TABLE devices"),
    ("metadata", "INSERT INTO tenants (slug) VALUES ('more')"),
    ("metadata", "UPDATE device_types SET violations = 'reject'"),
    ("metadata", "DELETE FROM devices"),
    ("metadata", "UPDATE devices SET status = 'disabled'"),
    ("metadata", "ALTER TABLE devices DISABLE ROW LEVEL SECURITY"),
]


async def test_writer_may_no_more(as_role: AsRole) -> None:
    """It changes no table, removes no reading, enters no tenant."""
    connections = {name: await as_role(name, "writer") for name in revisions.NAMES}
    for name, statement in FORBIDDEN_TO_WRITER:
        assert await _refused(connections[name], statement), f"may {statement}"


async def _refused(connection: asyncpg.Connection, statement: str) -> bool:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


FORBIDDEN_TO_READER: list[tuple[Name, str]] = [
    ("timeseries", "SELECT FROM telemetry"),
    ("timeseries", "SELECT FROM dead_letters"),
    ("timeseries", "INSERT INTO telemetry (time) VALUES (now())"),
    ("timeseries", "SELECT FROM telemetry_readers"),
    ("timeseries", "INSERT INTO telemetry_readers VALUES (current_user, gen_random_uuid())"),
    ("timeseries", "DO $$ BEGIN LOCK TABLE telemetry IN ACCESS SHARE MODE; END $$"),
    ("metadata", "SELECT FROM devices"),
    ("metadata", "SELECT FROM registry_readers"),
    ("metadata", "UPDATE registry_readers SET tenant_id = gen_random_uuid()"),
    ("metadata", "INSERT INTO tenants (slug) VALUES ('more')"),
    ("metadata", "UPDATE devices SET name = ''"),
    ("metadata", "CREATE TEMPORARY TABLE more (id integer)"),
]


async def test_reader_only_reads(installation: Installation, as_role: AsRole) -> None:
    """And no table that shows more than one tenant, nor what binds it to its own."""
    await installation.bind(installation.roles.reader, await furnish(installation, "acme"))
    connections = {name: await as_role(name, "reader") for name in revisions.NAMES}
    for name, statement in FORBIDDEN_TO_READER:
        assert await _refused(connections[name], statement), f"may {statement}"


async def test_future_tables_are_the_writers_to_fill(as_role: AsRole) -> None:
    """Default privileges: the writer reads and fills what the owner makes; the reader waits for a grant."""
    owner, writer, reader = [await as_role("timeseries", role) for role in ("owner", "writer", "reader")]
    await owner.execute("CREATE TABLE later (id integer)")
    await writer.execute("INSERT INTO later VALUES (1)")
    assert await writer.fetchval("SELECT id FROM later") == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await writer.execute("DELETE FROM later")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await reader.fetchval("SELECT id FROM later")


async def test_strangers_stay_outside(installation: Installation) -> None:
    """A role of the same server that nobody let in may not connect."""
    stranger = f"stranger_{uuid4().hex[:8]}"
    execute(installation.admin_dsn, f"CREATE ROLE {stranger} LOGIN PASSWORD 'none'")
    try:
        for name in revisions.NAMES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
                await asyncpg.connect(
                    re.sub(r"//[^@]*@", f"//{stranger}:none@", installation.superuser_dsn(name))
                )
    finally:
        execute(installation.admin_dsn, f"DROP ROLE {stranger}")


async def test_only_the_owner_migrates(fresh: Installation) -> None:
    """As the writer, upgrade says whom to connect as; as a superuser, the tables become the owner's all the same."""
    await fresh.init()
    with pytest.raises(errors.UsageError, match=f"connect as {fresh.roles.owner}"):
        await fresh.upgrade(fresh.roles.writer)
    await fresh.upgrade(None)
    for name in revisions.NAMES:
        assert _owners(fresh, name) == {fresh.roles.owner}


async def test_what_was_migrated_before_is_handed_over(fresh: Installation) -> None:
    """Who started with one superuser can change to roles later: same tables, other owner, writer let in."""
    for name, database in fresh.databases.items():
        execute(fresh.admin_dsn, f"CREATE DATABASE {database} TEMPLATE template0")
        await migrate.upgrade(name, fresh.settings(name))
    done = await fresh.init()
    assert sum("now belong to" in line for line in done) == 2
    for name in revisions.NAMES:
        assert _owners(fresh, name) == {fresh.roles.owner}
    writer = await fresh.connect("timeseries", fresh.roles.writer)
    try:
        await writer.execute("INSERT INTO telemetry VALUES (now(), $1, $1, '{}')", uuid4())
    finally:
        await writer.close()
    assert await fresh.init() == []


def _owners(installation: Installation, name: Name) -> set[str]:
    rows = query(
        installation.superuser_dsn(name),
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class c WHERE relnamespace = 'public'::regnamespace "
        "AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')",
    )
    return {row[0] for row in rows}


async def test_privileges_that_were_lost_come_back(installation: Installation) -> None:
    """Init mends what somebody revoked, and takes back what somebody granted."""
    before = schema(installation.superuser_dsn("timeseries"))
    writer = installation.roles.writer
    execute(
        installation.superuser_dsn("timeseries"),
        f"REVOKE INSERT ON telemetry FROM {writer}; GRANT DELETE ON telemetry TO {writer}",
    )
    await installation.init()
    assert before == schema(installation.superuser_dsn("timeseries"))


_UNDECLARED = """
SELECT c.relname::text, c.relkind::text FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
"""


async def test_every_table_has_its_declared_privileges(installation: Installation) -> None:
    """``storage/roles.py`` names every table, view and sequence that the migrations make, and no other."""
    for name in revisions.NAMES:
        found = {row[0]: row[1] for row in query(installation.superuser_dsn(name), _UNDECLARED)}
        views = {relation for relation, kind in found.items() if kind in ("v", "m")}
        assert found.keys() - views == roles.WRITER[name].keys() - views, "what the writer may do"
        assert views == set(roles.READER[name]), "what the reader may do"


@pytest.mark.parametrize("mend", ["upgrade", "init"])
async def test_an_installation_of_an_earlier_version_gets_what_it_lacks(
    installation: Installation, as_role: AsRole, mend: str
) -> None:
    """What the error advises helps: ``gateway db upgrade`` with nothing to apply, and ``gateway db init``."""
    writer = installation.roles.writer
    execute(
        installation.superuser_dsn("timeseries"),
        f"REVOKE ALL ON processed_messages, dead_letters FROM {writer}; "
        f"GRANT SELECT, INSERT, DELETE ON processed_messages TO {writer}; "
        f"GRANT SELECT, INSERT, UPDATE (replays) ON dead_letters TO {writer}",
    )
    daemon = await as_role("timeseries", "writer")
    enter = "INSERT INTO processed_messages (tenant_id, message_id) VALUES (gen_random_uuid(), 'm') "
    enter += "ON CONFLICT (tenant_id, message_id, digest) DO UPDATE SET processed_at = now()"
    with (
        pytest.raises(errors.StandingError, match=r"gateway db upgrade.*gateway db init"),
        pools.translate("t"),
    ):
        await daemon.execute(enter)
    await (installation.upgrade(installation.roles.owner) if mend == "upgrade" else installation.init())
    await daemon.execute(enter)
    await daemon.execute("UPDATE dead_letters SET stream = stream, reason = reason, detail = detail")


async def test_a_login_that_may_not_is_refused(installation: Installation) -> None:
    """The text names the login and what it lacks."""
    server = dsn.with_user(installation.settings("metadata"), installation.roles.owner, None)
    server = server.model_copy(
        update={"password_file": passwords.path(installation.folder, installation.roles.owner)}
    )
    with pytest.raises(errors.UsageError, match=f"{installation.roles.owner} may not create roles"):
        await initialise(server, installation.databases, installation.roles, installation.folder)


async def test_no_role_is_a_superuser(fresh: Installation) -> None:
    """A prefix whose role is a superuser is refused: least privilege would be a word only."""
    execute(fresh.admin_dsn, f"CREATE ROLE {fresh.roles.writer} SUPERUSER")
    with pytest.raises(errors.UsageError, match="is a superuser: choose another --prefix"):
        await fresh.init()


async def test_owner_provisions(as_role: AsRole) -> None:
    """Tenants, types and devices are entered as the owner."""
    owner = await as_role("metadata", "owner")
    await provisioning.add_tenant(owner, models.NewTenant(slug="acme"))
    await provisioning.add_device_type(owner, "acme", models.NewDeviceType(name="k"))
    await provisioning.add_device(owner, "acme", models.NewDevice(serial_number="S1", type="k"))
    assert [device.serial_number for device in await provisioning.list_devices(owner)] == ["S1"]
