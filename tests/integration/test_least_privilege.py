"""Every statement of the daemon and of the commands is run once, under the least privileged role documented for it.

The writer: the daemon, replays, drains, and all that lists or shows. The owner: migrations and provisioning. What makes
roles, databases and tables (``db init``, ``db upgrade``) has tests of its own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway import settings
from gateway.batches import Batch
from gateway.daemon import app, doctor, replay
from gateway.daemon.dead_letter_purge import DeadLetterPurge
from gateway.daemon.replay import ReplayResult
from gateway.observability.notify import Notify
from gateway.storage import passwords, retry, version_tables
from gateway.storage.revisions import NAMES
from gateway.writer import ledger
from gateway.writer.copy import Writer
from gateway.writer.dead_letters import Selection
from gateway.writer.layouts import TELEMETRY
from gateway.writer.work import BatchWrite
from tests.integration.conftest import REFUSE_POISON
from tests.support.batching import NOW_US, Filling, a_device, published, settings_for
from tests.support.commands import command
from tests.support.daemon import Daemon, to_toml
from tests.support.databases import Databases
from tests.support.flow import Flow
from tests.support.installation import Installation
from tests.support.servers import Mosquitto, Server
from tests.support.sessions import a_ledger
from tests.support.sql import execute
from tests.support.statements import Seen, places, watched
from tests.support.waiting import eventually_async
from tests.support.wire import Wire

TOOLS = ("tools",)
"""They make databases of their own."""
ADMINISTRATION = (
    "storage/initialise.py",
    "storage/migrate.py",
    "storage/readers.py",
    "storage/roles.py",
)
"""The superuser's and the owner's: ``test_roles.py``, ``test_readers.py`` and ``tests/migrations``."""

NOW_MS = NOW_US // 1000
SLOW = """
CREATE FUNCTION hinders() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$
"""
LIMITED = """
CREATE FUNCTION hinders() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF current_setting('timescaledb.max_tuples_decompressed_per_dml_transaction', true) IS DISTINCT FROM '0'
THEN RAISE EXCEPTION 'tuple decompression limit exceeded' USING ERRCODE = '53400'; END IF;
RETURN NEW; END $$
"""
REFUSING = """
CREATE FUNCTION hinders() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF jsonb_exists(NEW.data, 'bad') THEN RAISE EXCEPTION 'not with us'; END IF;
RETURN NEW; END $$
"""
HINDER = "CREATE TRIGGER hinders BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION hinders()"
UNHINDER = "DROP TRIGGER hinders ON telemetry; DROP FUNCTION hinders()"


class Scene:
    """An installation; what the daemon and its operators do with it."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation, self.folder = installation, folder
        self.writer, self.owner = installation.roles.writer, installation.roles.owner

    def superuser(self, statement: str) -> None:
        """Change the time-series database."""
        execute(self.installation.superuser_dsn("timeseries"), statement)

    def options(self) -> settings.Settings:
        """The daemon's: a stream of each kind, a spool."""
        streams = [
            {"name": name, "topic": f"{name}/{{tenant}}/{{device}}", "on_conflict": name}
            for name in ("merge", "replace", "keep")
        ]
        new = {"name": "new", "topic": "new/{tenant}/{device}", "unknown_device": "provision"}
        made = settings_for(None, *streams, {**new, "provision_type": "k"})
        spool = settings.SpoolSettings.model_construct(
            folder=self.folder / "spool", after=0.2, max_bytes=2**22, segment_bytes=2**16
        )
        databases = settings.DatabasesSettings(
            metadata=self.installation.settings("metadata", self.writer),
            timeseries=self.installation.settings("timeseries", self.writer),
        )
        return made.model_copy(update={"databases": databases, "spool": spool})

    def run(self, line: str, *, owner: bool = False) -> None:
        """A command, as the writer unless its documentation says otherwise; it must do what it is there for."""
        file = self.folder / "gateway.toml"
        file.write_text(to_toml(_configuration(self.options())), "utf-8")
        login = ["--db-user", self.owner, "--db-password-file", str(self._password(self.owner))]
        done = command(file, *line.split(), *(login if owner else []))
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"

    def _password(self, role: str) -> Path:
        return passwords.path(self.installation.folder, role)


def _configuration(options: settings.Settings) -> dict[str, Any]:
    databases = {
        name: {"dsn": made.dsn.get_secret_value(), "password_file": made.password_file}
        for name, made in options.databases
    }
    streams = [stream.model_dump(exclude_none=True) for stream in options.streams]
    spool = {"folder": options.spool.folder}
    return {"mqtt": {"client_id": "test"}, "databases": databases, "streams": streams, "spool": spool}


@pytest.fixture
def scene(installation: Installation, tmp_path: Path) -> Scene:
    """On both engines; the writer's sessions begin with ``synchronous_commit`` off, which the gateway mends."""
    made = Scene(installation, tmp_path)
    execute(installation.admin_dsn, f"ALTER ROLE {made.writer} SET synchronous_commit = off")
    return made


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Every statement of the test; the ledger is pruned at each of its rows, and nothing is waited for long."""
    monkeypatch.setattr(ledger, "_PRUNE_EVERY", 1)
    monkeypatch.setattr(retry, "_BOUND_UNKNOWN", 0.2)
    with watched(monkeypatch) as found:
        yield found


async def test_every_statement_is_run_by_its_role(scene: Scene, seen: Seen, server: Server) -> None:
    """None is refused, and there is none in the code that this test does not come to."""
    # How a session begins, and behind a pooler each transaction: tests/integration/test_poolers.py.
    other_engine = "timescale" if server.engine == "postgres" else "postgres"
    others = ["storage/sessions.py", f"storage/engines/{other_engine}.py"]
    await asyncio.to_thread(_provision, scene)
    await _ingest(scene)
    await _keep_up(scene)
    await _write_again(scene)
    await _replay(scene)
    await asyncio.to_thread(_look, scene)
    looked = [one async for one in doctor.findings(scene.options())]
    assert [one.what for one in looked if one.state == "problem"] == ["broker"]
    assert {"metadata", "stream new", "timeseries", "session"} <= {one.what for one in looked}
    assert seen.refused == []
    assert seen.missing(places(*TOOLS, *ADMINISTRATION, *others)) == []
    assert [name for name, text in TELEMETRY.sql.inserts.items() if text not in seen.texts] == []


@pytest.mark.mosquitto
async def test_the_daemon_and_a_replay_beside_it_as_the_writer(
    scene: Scene, server: Server, mosquitto_broker: Mosquitto
) -> None:
    """Real processes: ids, dead letters, new devices; a replay while the daemon has the spool. Nothing is refused."""
    await asyncio.to_thread(_run_daemon, scene, server, mosquitto_broker.port)


def _run_daemon(scene: Scene, server: Server, port: int) -> None:
    password = passwords.path(scene.installation.folder, scene.writer).read_text().strip()
    as_writer = [
        re.sub(r"//[^@]*@", f"//{scene.writer}:{password}@", scene.installation.superuser_dsn(name))
        for name in NAMES
    ]
    execute(scene.installation.superuser_dsn("metadata"), "INSERT INTO tenants (slug) VALUES ('acme')")
    scene.run("device-type add k --tenant acme", owner=True)
    topic = f"{scene.writer}/{{tenant}}/{{device}}"
    stream = {"name": "s", "topic": topic, "unknown_device": "provision", "provision_type": "k"}
    sections = {"streams": [stream], "spool": {"folder": scene.folder / "spool"}}
    with Daemon(port, Databases(server, *as_writer), sections) as daemon, Wire(port) as wire:
        daemon.start()
        for payload in (b'{"n": 1}', b'{"message_id": "m", "n": 2}', b'{"message_id": "m", "n": 2}', b"{"):
            wire.publish(topic.format(tenant="acme", device="A"), payload)
        books = daemon.settle(4)
        replayed = daemon.cli("dead-letter", "replay", "--json", check=False)
        figures = daemon.status()["figures"]
        assert daemon.stop() == 0
    assert (books["stored"], books["duplicate"], books["dead_lettered"]) == (2, 1, 1)
    assert json.loads(replayed.stdout) == {"replayed": 1, "stored": 0, "failed_again": 1}
    assert figures["store_errors"] == 0


def _provision(scene: Scene) -> None:
    """As the owner."""
    fleet = scene.folder / "fleet.csv"
    fleet.write_text("serial_number,type\nA,k\nB,k\n")
    for name, table in version_tables.NAMES.items():  # as older gateways left it
        execute(scene.installation.superuser_dsn(name), f"ALTER TABLE {table} RENAME TO alembic_version")
    scene.run("db current")
    for line in (
        "tenant add acme",
        "device-type add k --tenant acme --field n:float",
        "device-type list --tenant acme",
        "device add C --tenant acme --type k",
        f"device import {fleet} --tenant acme",
        f"device import {fleet} --tenant acme --update",
        "device disable C --tenant acme",
        "device enable C --tenant acme",
        "db upgrade",
    ):
        scene.run(line, owner=not line.startswith("device-type list"))
    for line in ("device add D --tenant nobody --type k", "device add D --tenant acme --type none"):
        with pytest.raises(AssertionError, match="there is"):
            scene.run(line, owner=True)


async def _ingest(scene: Scene) -> None:
    """The daemon's path, with a spool: plain readings, conflicts, ids, dead letters, redeliveries, a slow database."""
    async with Flow(scene.options()) as flow:
        flow.base.open()

        async def take(*messages: tuple[str, Any], **rest: Any) -> None:
            flow.take(*(published(topic, payload) for topic, payload in messages), **rest)
            await flow.settle()

        async def change(statement: str) -> None:
            # Beside the loop: the drain may be in a transaction, and the statement waits for its end.
            await asyncio.to_thread(scene.superuser, statement)

        await take(*((f"merge/acme/{serial}", {"n": 5}) for serial in ("X", "Y")), received_us=NOW_US)
        await take(("new/acme/N", {"n": 1}))
        for value in range(2):
            reading = {"ts": NOW_MS, "n": value}
            await take(*((f"{name}/acme/{device}", reading) for name, device in _POLICIES))
        for _ in range(2):
            await take(("merge/acme/A", {"message_id": "m", "n": 1}))
        # An untimed reading whose receive time is taken; dead letters, alone and beside a conflict.
        await take(("merge/acme/B", {"n": 3}), received_us=NOW_US)
        await take(("merge/acme/A", b"{"))
        await take(("merge/acme/A", b"{"), ("merge/acme/A", {"ts": NOW_MS, "n": 4}))
        await change(LIMITED + ";" + HINDER)
        await take(("merge/acme/A", {"ts": NOW_MS + 1, "n": 7}))
        await change(UNHINDER + ";" + SLOW + ";" + HINDER)
        await take(("merge/acme/A", {"ts": NOW_MS + 2, "n": 8}), ("merge/acme/Z", {"n": 9}))
        await change(UNHINDER)
        spool = flow.base.spool
        assert spool is not None
        await eventually_async(lambda: spool.empty, timeout=20)
    async with Flow(scene.options()) as flow:  # what an earlier process received comes again
        flow.base.open()
        flow.take(published("merge/acme/A", {"n": 6}, duplicate=True), resumed=True)
        await flow.settle()


_POLICIES = (("merge", "A"), ("replace", "B"), ("keep", "C"))


async def _keep_up(scene: Scene) -> None:
    """What the daemon does on its own clock."""
    daemon = app.Gateway(scene.options(), Notify())
    await daemon._keep_up_once()
    scene.superuser(f"DROP TABLE IF EXISTS telemetry_{dt.datetime.now(dt.UTC) + dt.timedelta(days=5):%Y%m%d}")
    reader = await asyncpg.connect(scene.installation.superuser_dsn("timeseries"))
    async with reader.transaction():  # in the way
        await reader.execute("SELECT count(*) FROM telemetry")
        await daemon._partitions.once()
    await reader.close()
    await daemon._partitions.once()
    await DeadLetterPurge(daemon._base.timeseries, 90 * 86_400).once()
    await daemon._base.close()


async def _write_again(scene: Scene) -> None:
    """A batch whose answer was lost is looked for in the ledger first, its readings where they would have gone.

    And of several messages those are looked for that the database refuses.
    """
    device = a_device()
    before, after, refused = Filling(Batch()), Filling(Batch()), Filling(Batch())
    before.timed(device, NOW_US, {"n": 0})
    after.untimed(device, NOW_US, {"n": 1})
    for n in range(2):
        refused.timed(device, NOW_US + 10 + n, {"poison": 1} if n else {"n": n})
    writer = Writer(scene.options().databases.timeseries, a_ledger("test"), horizon=60)
    await writer.probe()
    scene.superuser(REFUSE_POISON)
    for filling in (before, after, refused):
        work = BatchWrite(filling.batch)
        work.next.uncertain, written_as = filling is after, work.next.id
        await writer.write(work)
        if filling is after:  # and once more: now it is there
            again = BatchWrite(filling.batch)
            again.next.id, again.next.uncertain = written_as, True
            await writer.write(again)
    share = settings.DeadLettersSettings(max_bytes_per_device=2**20)
    bounded = Writer(scene.options().databases.timeseries, a_ledger("test"), horizon=60, letters=share)
    loud = Filling(Batch())
    for _ in range(20):
        loud.letter(published("loud", b"no_poison" * 10_000))
    await bounded.write(BatchWrite(loud.batch))
    await bounded.close()
    scene.superuser("DELETE FROM dead_letters WHERE topic = 'loud'")
    scene.superuser(
        "ALTER TABLE telemetry DROP CONSTRAINT no_poison; DELETE FROM dead_letters WHERE detail ~ 'no_poison'"
    )
    await writer.close()


async def _replay(scene: Scene) -> None:
    """Letters that are stored, aside from a reading of their time, or fail again, alone and with the others."""
    async with Flow(scene.options().model_copy(update={"spool": settings.SpoolSettings()})) as flow:
        flow.take(published("merge/acme/X", {"bad": 1}), received_us=NOW_US + 1)
        await flow.settle()
    await asyncio.to_thread(scene.run, "device add X --tenant acme --type k", owner=True)
    async with Flow(scene.options().model_copy(update={"spool": settings.SpoolSettings()})) as flow:
        flow.take(published("merge/acme/X", {"ts": NOW_MS, "n": 5}))
        await flow.settle()
    scene.superuser(REFUSING + ";" + HINDER)
    result = ReplayResult()
    await replay.run(scene.options(), Selection(), result, limit=100, progress=lambda *_: None)
    assert result == ReplayResult(replayed=6, stored=1, failed_again=5), json.dumps(str(result))
    await replay.run(
        scene.options(), Selection(stored=True), ReplayResult(), limit=100, progress=lambda *_: None
    )
    scene.superuser(UNHINDER)


def _look(scene: Scene) -> None:
    """All that lists or shows, and the drain, as the writer."""
    for line in (
        "tenant list",
        "tenant reader list",
        "device-type list",
        "device-type show k --tenant acme",
        "device list --tenant acme",
        "device show A --tenant acme",
        "dead-letter list",
        "dead-letter count",
        "db status",
        "db current",
        "spool status",
        "spool drain",
        "session list",
    ):
        scene.run(line)
