"""``gateway config check --connect``: broker, databases and what streams expect there, on real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Done, command
from tests.support.daemon import to_toml
from tests.support.databases import Databases
from tests.support.installation import Installation
from tests.support.servers import Mosquitto
from tests.support.sql import execute
from tests.support.waiting import free_port

pytestmark = pytest.mark.mosquitto

STREAM = {"name": "telemetry", "topic": "t/{tenant}/{device}"}
PROVISIONING = {**STREAM, "unknown_device": "provision", "provision_type": "pump"}


def check(
    folder: Path, port: int, dsns: tuple[str, str], stream: dict[str, Any] = STREAM, **mqtt: Any
) -> Done:
    """The command, on these servers."""
    file = folder / "gateway.toml"
    tree = {
        "mqtt": {"client_id": "gateway-1", "port": port, **mqtt},
        "databases": {"metadata": {"dsn": dsns[0]}, "timeseries": {"dsn": dsns[1]}},
        "streams": [stream],
    }
    file.write_text(to_toml(tree))
    return command(file, "config", "check", "--connect")


def both(databases: Databases) -> tuple[str, str]:
    """Their DSNs."""
    return databases.metadata_dsn, databases.timeseries_dsn


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_what_works_is_told(
    databases: Databases, start_mosquitto: Callable[..., Mosquitto], tmp_path: Path, protocol: str
) -> None:
    """Versions, roles and revisions; the session of the attempt is gone, and the daemon's own id was not used."""
    broker = start_mosquitto()
    done = check(tmp_path, broker.port, both(databases), protocol=protocol)
    assert done.returncode == 0, done.stdout
    valid, mqtt, metadata, timeseries = done.stdout.splitlines()
    assert valid.endswith("gateway.toml: valid")
    assert mqtt.startswith("broker: ok: 127.0.0.1:")
    assert ("MQTT 5" in mqtt, "MQTT 3.1.1" in mqtt) == (protocol == "auto", protocol == "3.1.1")
    assert metadata.startswith("metadata: ok: ")
    assert "as postgres, a superuser" in metadata
    assert ("TimescaleDB" in timeseries) == (databases.engine == "timescaledb")
    log = broker.log.read_text()
    assert "as gateway-1-check (" in log
    assert "as gateway-1 (" not in log
    connected = next(line for line in log.splitlines() if "as gateway-1-check (" in line)
    assert (
        ", c1, " in connected or protocol == "auto"
    )  # MQTT 3.1.1: a clean session; MQTT 5: it expires at once


def test_what_is_away_is_told_all_at_once(tmp_path: Path) -> None:
    """Each with its address and why; exit code 1; one does not keep the others from being tried."""
    nowhere = f"postgresql://a@127.0.0.1:{free_port()}/b"
    done = check(tmp_path, port := free_port(), (nowhere, nowhere))
    assert done.returncode == 1
    _, mqtt, *databases = done.stdout.splitlines()
    assert mqtt == f"broker: FAILS: nothing listens at 127.0.0.1:{port}: connection refused"
    assert [line.partition(": FAILS: ")[0] for line in databases] == ["metadata", "timeseries"]


def test_a_device_type_that_is_not_there(
    postgres_databases: Databases, mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    """``provision_type`` is looked for: no tenant, no such type, of some tenants only, of all."""

    def told() -> tuple[int, str]:
        done = check(tmp_path, mosquitto_broker.port, both(postgres_databases), PROVISIONING)
        return done.returncode, next(line for line in done.stdout.splitlines() if line.startswith("stream "))

    assert told() == (
        1,
        "stream telemetry: FAILS: provision_type = 'pump', and there is no tenant: `gateway tenant add`",
    )
    postgres_databases.metadata("INSERT INTO tenants (slug) VALUES ('acme'), ('globex')")
    code, line = told()
    assert (code, line.startswith("stream telemetry: FAILS: there is no device type 'pump'")) == (1, True)
    add = "INSERT INTO device_types (tenant_id, name) SELECT id, 'pump' FROM tenants WHERE slug = $1"
    postgres_databases.metadata(add, "acme")
    code, line = told()
    assert (code, "not tenants globex, whose unknown devices become dead letters" in line) == (0, True)
    postgres_databases.metadata(add, "globex")
    assert told() == (0, "stream telemetry: ok: provision_type 'pump' exists")


async def test_privileges_and_migrations_that_lack(
    installation: Installation, mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    """The writer is enough; what it lacks, hidden tenants and a missing revision are named with the cure."""
    writer = installation.roles.writer
    dsns = tuple(
        installation.superuser_dsn(name).replace("//postgres@", f"//{writer}:{_password(installation)}@")
        for name in ("metadata", "timeseries")
    )

    async def told() -> tuple[int, str]:
        done = await asyncio.to_thread(check, tmp_path, mosquitto_broker.port, (dsns[0], dsns[1]))
        return done.returncode, done.stdout

    code, text = await told()
    assert code == 0, text
    assert text.count(f", as {writer}\n") == 2
    execute(installation.superuser_dsn("timeseries"), f"REVOKE INSERT ON telemetry FROM {writer}")
    code, text = await told()
    assert (
        code,
        f"as {writer}; it may not INSERT on telemetry: run `gateway db upgrade` as the owner" in text,
    ) == (1, True)
    execute(installation.superuser_dsn("metadata"), f"ALTER ROLE {writer} NOBYPASSRLS")
    assert "row-level security hides tenants" in (await told())[1]
    execute(
        installation.superuser_dsn("metadata"), "UPDATE alembic_version_metadata SET version_num = '0001'"
    )
    assert "revision 0001" in (await told())[1]
    assert "pending: 0002" in (await told())[1]


def _password(installation: Installation) -> str:
    return (installation.folder / f"{installation.roles.writer}.password").read_text().strip()


def test_for_scripts(postgres_databases: Databases, mosquitto_broker: Mosquitto, tmp_path: Path) -> None:
    """--json has the same."""
    check(tmp_path, mosquitto_broker.port, both(postgres_databases))
    done = command(tmp_path / "gateway.toml", "config", "check", "--connect", "--json")
    said = json.loads(done.stdout)
    assert [(one["what"], one["ok"]) for one in said["found"]] == [
        ("broker", True),
        ("metadata", True),
        ("timeseries", True),
    ]
