"""Replays and one-shot drains, as the writer role of ``gateway db init``, with a spool configured.

Beside a daemon that holds the spool, with writes slower than ``spool.after``; and how they end when something must be
mended, when servers are away, and by Ctrl-C.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import errors, settings
from gateway.cli import common
from gateway.daemon import foreground, replay, spool_drain
from gateway.daemon.replay import ReplayResult
from gateway.messages import digest
from gateway.outcomes import Outcome
from gateway.spool.spool import Spool
from gateway.storage import passwords, retry
from gateway.writer.dead_letters import Selection
from tests.support.batching import NOW_US, published, settings_for
from tests.support.daemon import GATEWAY, REPOSITORY, gateway, to_toml
from tests.support.flow import Flow
from tests.support.installation import Installation
from tests.support.sql import execute, query
from tests.support.waiting import eventually
from tests.unit.spool.spooling import record

SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
CREATE TRIGGER slow BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION slow()
"""
REFUSES = """
CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF jsonb_exists(NEW.data, 'bad') THEN RAISE EXCEPTION 'not with us'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuses BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION refuses()
"""


class Scene:
    """An installation with the device ``A`` of ``acme``, a spool folder, and nothing but the writer's log-in."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation, self.folder = installation, folder
        execute(
            installation.superuser_dsn("metadata"),
            "INSERT INTO tenants (slug) VALUES ('acme'); "
            "INSERT INTO device_types (tenant_id, name) SELECT id, 'k' FROM tenants",
        )
        self.spool = settings.SpoolSettings.model_construct(
            folder=folder / "spool", after=0.05, max_bytes=2**20, segment_bytes=2**16
        )

    def provision(self) -> None:
        """Enter the device."""
        execute(
            self.installation.superuser_dsn("metadata"),
            "INSERT INTO devices (tenant_id, device_type_id, serial_number) "
            "SELECT tenant_id, id, 'A' FROM device_types",
        )

    def owner(self, statement: str) -> None:
        """Change the time-series database."""
        execute(self.installation.superuser_dsn("timeseries"), statement)

    def may(self, *, insert: bool) -> None:
        """Whether the writer may fill ``telemetry``."""
        verb, to = ("GRANT", "TO") if insert else ("REVOKE", "FROM")
        self.owner(f"{verb} INSERT ON telemetry {to} {self.installation.roles.writer}")

    def options(self, **sections: Any) -> settings.Settings:
        """The settings of the writer, with the spool."""
        made, writer = settings_for(None, **sections), self.installation.roles.writer
        databases = settings.DatabasesSettings(
            metadata=self.installation.settings("metadata", writer),
            timeseries=self.installation.settings("timeseries", writer),
        )
        return made.model_copy(update={"databases": databases, "spool": self.spool})

    async def refuse(self, *payloads: Any) -> None:
        """Have these end as dead letters of a device that nobody entered."""
        async with Flow(self.options().model_copy(update={"spool": settings.SpoolSettings()})) as flow:
            for number, payload in enumerate(payloads):
                flow.take(published("t/acme/A", payload), received_us=NOW_US + number * 1000)
            assert await flow.settle() == {Outcome.DEAD_LETTERED: len(payloads)}

    async def replay(self, result: ReplayResult | None = None) -> ReplayResult:
        """Replay all; it must end in time."""
        result = ReplayResult() if result is None else result
        async with asyncio.timeout(20):
            await replay.run(self.options(), Selection(), result, limit=1000, progress=self.progress)
        return result

    def progress(self, _done: int, _total: int, waits: str) -> None:
        """Nobody looks."""

    def rows(self) -> list[Any]:
        """The data of all readings, in the order of their times."""
        found = query(
            self.installation.superuser_dsn("timeseries"), "SELECT data FROM telemetry ORDER BY time"
        )
        return [json.loads(row["data"]) for row in found]

    def letters(self) -> list[tuple[str, str | None]]:
        """Detail and outcome of the last replay, in the order of coming."""
        found = query(
            self.installation.superuser_dsn("timeseries"),
            "SELECT detail, replay_outcome FROM dead_letters ORDER BY received_at",
        )
        return [tuple(row) for row in found]

    async def spool_some(self, count: int) -> None:
        """Records of the device, left on disk by a daemon."""
        spool = Spool(self.spool.folder, self.spool, digest)  # type: ignore[arg-type]
        spool.open()
        made = [record(number, b'{"n": %d}' % number) for number in range(count)]
        await spool.append([msgspec.structs.replace(one, topic="t/acme/A") for one in made])
        spool.close()

    async def drain(self, result: spool_drain.DrainResult) -> None:
        """Drain the spool; it must end in time."""
        assert self.spool.folder is not None
        async with asyncio.timeout(20):
            await spool_drain.run(self.options(), [self.spool.folder], result, progress=self.progress)

    def configuration(self) -> Path:
        """A file that says the same as the options."""
        file, writer = self.folder / "gateway.toml", self.installation.roles.writer
        databases = {
            name: {"dsn": made.dsn.get_secret_value(), "password_file": made.password_file}
            for name in ("metadata", "timeseries")
            for made in [self.installation.settings(name, writer)]
        }
        sections = {
            "mqtt": {"client_id": "gateway-1"},
            "databases": databases,
            "streams": [{"name": "telemetry", "topic": "t/{tenant}/{device}"}],
            "spool": {"folder": self.spool.folder, "after": "0.05s"},
        }
        file.write_text(to_toml(sections), "utf-8")
        return file

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user would."""
        return gateway(*arguments, config=self.configuration(), check=False)


@pytest.fixture
def scene(installation: Installation, tmp_path: Path) -> Scene:
    """On both engines."""
    return Scene(installation, tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are not waited for as long as a person would."""
    monkeypatch.setattr(foreground, "PATIENCE", 1.0)
    monkeypatch.setattr(retry, "_BOUND_UNKNOWN", 0.2)


@pytest.fixture
def running_daemon(scene: Scene) -> Iterator[Spool]:
    """The spool in a daemon's hands."""
    spool = Spool(scene.spool.folder, scene.spool, digest)  # type: ignore[arg-type]
    spool.open()
    yield spool
    spool.close()


async def test_a_replay_beside_the_daemon(scene: Scene, running_daemon: Spool) -> None:
    """Good and bad letters, as the writer; writes take six times ``spool.after``, and are not cut off."""
    await scene.refuse({"n": 1}, b"{", {"ts": NOW_US // 1000, "n": 2}, {"message_id": "m", "n": 3})
    scene.provision()
    scene.owner(SLOW.format(seconds=0.3, table="telemetry"))
    assert await scene.replay() == ReplayResult(replayed=4, stored=3, failed_again=1)
    assert [outcome for _, outcome in scene.letters()] == ["stored", "dead_lettered", "stored", "stored"]
    assert len(scene.rows()) == 3
    assert running_daemon.empty


async def test_what_must_be_mended_ends_a_replay(scene: Scene) -> None:
    """At once, with what to run; what was done is counted, and the rest is done when the cause is gone."""
    await scene.refuse(*({"n": n} for n in range(3)))
    scene.provision()
    scene.may(insert=False)
    result = ReplayResult()
    with pytest.raises(errors.StandingError, match=r"permission denied.*gateway db upgrade"):
        await scene.replay(result)
    assert (result, scene.rows()) == (ReplayResult(), [])
    scene.may(insert=True)
    assert await scene.replay() == ReplayResult(replayed=3, stored=3)
    assert scene.rows() == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.usefixtures("impatient")
async def test_one_bad_letter_holds_up_no_other(scene: Scene) -> None:
    """The database refuses one for a reason that no code tells (P0001): it stays, with the error; others are stored."""
    await scene.refuse(*({"n": n} for n in range(5)), {"bad": 5}, {"n": 6})
    scene.provision()
    scene.owner(REFUSES)
    assert await scene.replay() == ReplayResult(replayed=7, stored=6, failed_again=1)
    assert [data["n"] for data in scene.rows()] == [0, 1, 2, 3, 4, 6]
    detail, outcome = scene.letters()[5]
    assert "not with us" in detail
    assert outcome == "dead_lettered"


@pytest.mark.usefixtures("impatient")
async def test_what_the_database_refuses_to_all_ends_a_replay(scene: Scene) -> None:
    """Ten in a row that fail alone: it is not the letters, and a million others need not be tried."""
    await scene.refuse(*({"bad": n} for n in range(15)))
    scene.provision()
    scene.owner(REFUSES)
    result = ReplayResult()
    with pytest.raises(errors.StoreError, match="not with us"):
        await scene.replay(result)
    assert result == ReplayResult(replayed=9, failed_again=9)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_stays_away_ends_a_replay(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, in which it says what it waits for."""
    await scene.refuse({"n": 1})
    away = scene.options()
    nowhere = settings.DatabaseSettings.model_validate({"dsn": "postgresql://nobody@127.0.0.1:9/nowhere"})
    databases = away.databases.model_copy(update={"timeseries": nowhere})
    monkeypatch.setattr(scene, "options", lambda: away.model_copy(update={"databases": databases}))
    told: list[str] = []
    monkeypatch.setattr(scene, "progress", lambda _done, _total, waits: told.append(waits))
    with pytest.raises(errors.TransientError, match=r"timeseries at .*given up after 1 s"):
        await scene.replay()
    assert any("timeseries at " in waits for waits in told)


async def test_a_drain_as_the_writer(scene: Scene) -> None:
    """All of the spool, with writes that take six times ``spool.after``."""
    scene.provision()
    await scene.spool_some(300)
    scene.owner(SLOW.format(seconds=0.3, table="telemetry"))
    result = spool_drain.DrainResult()
    await scene.drain(result)
    assert (dict(result.ended), result.left) == ({"stored": 300}, 0)
    assert len(scene.rows()) == 300


async def test_what_must_be_mended_ends_a_drain(scene: Scene) -> None:
    """With an error, and the records where they were; drained when the cause is gone."""
    scene.provision()
    await scene.spool_some(30)
    scene.may(insert=False)
    result = spool_drain.DrainResult()
    with pytest.raises(errors.StandingError, match="permission denied"):
        await scene.drain(result)
    assert (dict(result.ended), result.left) == ({}, 30)
    scene.may(insert=True)
    await scene.drain(result)
    assert (dict(result.ended), result.left) == ({"stored": 30}, 0)


async def test_a_spool_that_cannot_be_read_ends_a_drain(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the disk's error."""
    scene.provision()
    await scene.spool_some(3)

    def fails(_spool: Spool, _max_bytes: int) -> None:
        raise errors.SpoolError("spool.folder: Input/output error")

    monkeypatch.setattr(Spool, "next_chunk", fails)
    with pytest.raises(errors.SpoolError, match="Input/output error"):
        await scene.drain(spool_drain.DrainResult())


COMMANDS = {
    "dead-letter replay": ({"replayed": 0, "stored": 0, "failed_again": 0}, "not finished: 0 replayed"),
    "spool drain": ({"left": 3}, "not finished: nothing was drained; about 3 left in the spool"),
}


@pytest.mark.parametrize("line", COMMANDS)
async def test_commands_that_cannot_be_done_say_so(scene: Scene, line: str) -> None:
    """Exit code 1, the error and what was done: as JSON where that is asked for, in words otherwise."""
    await scene.refuse(*({"n": n} for n in range(3)))
    scene.provision()
    await scene.spool_some(3)
    scene.may(insert=False)
    done, said = COMMANDS[line]
    for_scripts = scene.command(*line.split(), "--json")
    shown = json.loads(for_scripts.stdout)
    assert "permission denied" in shown.pop("error")
    assert (for_scripts.returncode, shown) == (1, done)
    for_people = scene.command(*line.split())
    assert (for_people.returncode, said in for_people.stdout) == (1, True)
    assert "permission denied" in for_people.stderr


@pytest.mark.parametrize("line", COMMANDS)
async def test_ctrl_c_says_what_was_done(scene: Scene, line: str) -> None:
    """Exit code 130, and on standard output what was done until then."""
    await scene.refuse(*({"n": n} for n in range(3)))
    scene.provision()
    await scene.spool_some(3)
    scene.owner(SLOW.format(seconds=20, table="telemetry"))
    shown, err = await asyncio.to_thread(_interrupted, scene, line.split(), "COPY")
    assert shown.pop("error") == "interrupted"
    assert shown == COMMANDS[line][0]
    assert "Traceback" not in err


async def test_ctrl_c_ends_an_import(scene: Scene) -> None:
    """All or none: it says that nothing was entered."""
    fleet = scene.folder / "fleet.csv"
    fleet.write_text("serial_number,type\nA,k\n", "utf-8")
    execute(scene.installation.superuser_dsn("metadata"), SLOW.format(seconds=20, table="devices"))
    owner = scene.installation.roles.owner
    login = ["--db-user", owner, "--db-password-file", str(passwords.path(scene.installation.folder, owner))]
    line = ["device", "import", str(fleet), "--tenant", "acme", *login]
    shown, err = await asyncio.to_thread(_interrupted, scene, line, "INSERT")
    assert shown == {"error": "interrupted: no device was entered or changed"}
    assert err == "gateway: interrupted: no device was entered or changed\n"
    found = query(scene.installation.superuser_dsn("metadata"), "SELECT count(*) FROM devices")
    assert found[0][0] == 0


def _interrupted(scene: Scene, line: list[str], verb: str) -> tuple[dict[str, Any], str]:
    """What a command says on Ctrl-C in the midst of a statement that begins like this."""
    environment = {**os.environ, "PYTHONPATH": REPOSITORY, "GATEWAY_CONFIG": str(scene.configuration())}
    with subprocess.Popen(
        [*GATEWAY, *line, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            sleeping = (
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE wait_event = 'PgSleep' AND ltrim(query, E'\\n') LIKE $1 AND datname = ANY($2)"
            )
            names = list(scene.installation.databases.values())
            eventually(
                lambda: query(scene.installation.admin_dsn, sleeping, f"{verb}%", names)[0][0],
                timeout=20,
                what="a statement under way",
            )
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130, err
    found: dict[str, Any] = json.loads(out)
    return found, err


def test_every_command_ends_in_json(tmp_path: Path) -> None:
    """With --json standard output can be parsed, whatever went wrong; without, it is empty."""
    file = tmp_path / "gateway.toml"
    file.write_text("[mqtt]\nclient_id = 'x'\n")
    environment = {**os.environ, "PYTHONPATH": REPOSITORY, "GATEWAY_CONFIG": str(file)}
    for json_wanted in (True, False):
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "device", "list", *(["--json"] if json_wanted else [])],
            capture_output=True, text=True, check=False, env=environment, timeout=60,
        )  # fmt: skip
        assert done.returncode == 4
        assert done.stderr.startswith("gateway: ")
        shown: Callable[[str], Any] = json.loads
        assert (shown(done.stdout)["error"] if json_wanted else done.stdout) == (
            done.stderr.removeprefix("gateway: ").strip() if json_wanted else ""
        )


def test_what_was_done_is_told_when_it_ends_early(capsys: pytest.CaptureFixture[str]) -> None:
    """By an error and by Ctrl-C alike; the cause stays known, for the exit code."""
    for error in (errors.StartError("in use"), common.InterruptError("interrupted")):
        with (
            pytest.raises(common.UnfinishedError, match=r"in use|interrupted") as ended,
            common.telling(lambda: {"n": 1}, lambda: "1 done", as_json=True),
        ):
            raise error
        assert ended.value.__cause__ is error
        assert json.loads(capsys.readouterr().out)["n"] == 1
