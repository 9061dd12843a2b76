"""``gateway doctor``: everything that an operator should look at, by one command, on real servers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.commands import command
from tests.support.daemon import Daemon, to_toml
from tests.support.databases import Databases
from tests.support.installation import Installation
from tests.support.servers import Mosquitto
from tests.support.sql import execute
from tests.support.waiting import eventually, free_port
from tests.support.wire import Wire

pytestmark = pytest.mark.mosquitto


async def look(file: Path) -> tuple[int, list[tuple[str, str, str]]]:
    """Exit code, and what was found: what, state, text."""
    done = await asyncio.to_thread(command, file, "doctor", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode == 0) == said["healthy"]
    return done.returncode, [(one["what"], one["state"], one["text"]) for one in said["found"]]


def configuration(installation: Installation, folder: Path, port: int, **sections: Any) -> Path:
    """As the writer, with a spool."""
    file = folder / "gateway.toml"
    writer = installation.roles.writer
    databases = {name: installation.settings(name, writer) for name in installation.databases}
    dsns = {
        name: {"dsn": made.dsn.get_secret_value(), "password_file": made.password_file}
        for name, made in databases.items()
    }
    tree = {
        "mqtt": {"client_id": "gateway-1", "port": port},
        "databases": dsns,
        "streams": [{"name": "telemetry", "topic": "t/{tenant}/{device}"}],
        "observability": {"port": free_port()},
        "spool": {"folder": folder / "spool"},
        **sections,
    }
    file.write_text(to_toml(tree))
    return file


async def test_what_an_operator_should_know(
    installation: Installation, mosquitto_broker: Mosquitto, tmp_path: Path
) -> None:
    """Nothing but that no daemon runs; then locks, sessions, files and partitions that somebody should look at."""
    (tmp_path / "spool").mkdir()
    file = configuration(installation, tmp_path, mosquitto_broker.port)
    code, found = await look(file)
    assert code == 0
    assert [what for what, state, _ in found if state != "ok"] == ["daemon"], found

    (tmp_path / "spool" / "notes.txt").write_text("mine")
    there = installation.superuser_dsn("timeseries")
    execute(
        there,
        "INSERT INTO mqtt_sessions (client_id, gateway, session, confirmed, in_turn, changed_at, filters, in_use) "
        "VALUES "
        "('other', 'other', gen_random_uuid(), 0, true, now() - interval '1 day', '{a/#}', false),"
        "('gateway-1', 'gateway-1', gen_random_uuid(), 0, true, now(), '{old/#}', false)",
    )
    partitioned = await asyncpg.connect(there)
    try:
        if installation.engine == "postgres":
            today = await partitioned.fetchval("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
            await partitioned.execute(f"DROP TABLE events_{today}")
        async with partitioned.transaction():
            await partitioned.execute("SELECT count(*) FROM telemetry")
            code, found = await look(file)
        told = "\n".join(text for _, state, text in found if state == "warning")
        assert code == 0
        assert f"process {partitioned.get_server_pid()} of postgres" in told
        assert "gateway session end other" in told
        assert "filters differ from the settings since the last start: old/#, t/+/+" in told
        assert "notes.txt" in told
        assert ("no partitions events_" in told) == (installation.engine == "postgres")
    finally:
        await partitioned.close()


async def test_what_does_not_work_is_a_problem(installation: Installation, tmp_path: Path) -> None:
    """A broker that is away, a missing privilege: exit code 1, with the cure; networks without protection are told."""
    execute(
        installation.superuser_dsn("timeseries"),
        f"REVOKE INSERT ON telemetry FROM {installation.roles.writer}",
    )
    port = free_port()
    file = configuration(
        installation, tmp_path, port, mqtt={"client_id": "g", "host": "localhost.", "port": port}
    )
    code, found = await look(file)
    assert code == 1
    problems = {what: text for what, state, text in found if state == "problem"}
    assert problems.keys() == {"broker", "timeseries"}
    assert "may not INSERT on telemetry" in problems["timeseries"]


async def test_a_session_that_was_taken_is_told(
    postgres_databases: Databases, mosquitto_broker: Mosquitto
) -> None:
    """By the daemon, which is asked: ready and nothing to say; then another client has its id, with a clean start."""
    with Daemon(mosquitto_broker.port, postgres_databases) as daemon:
        daemon.start()
        code, found = await look(daemon.configuration)
        assert (code, [state for what, state, _ in found if what == "daemon"]) == (0, ["ok"])
        with Wire(mosquitto_broker.port, client_id=daemon.client_id, clean_start=True):
            pass
        eventually(lambda: daemon.status()["components"]["session"]["detail"], what="the session is missed")
        code, found = await look(daemon.configuration)
        told = [text for what, state, text in found if (what, state) == ("daemon", "warning")]
        assert (code, len(told), told[0].startswith("session: ")) == (0, 1, True), found
        daemon.stop()
