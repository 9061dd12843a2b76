"""Every command with names, payloads, topics, settings and server answers that want to be more than text."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import json
import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog.testing
import typer
from typer.core import TyperGroup

from gateway import cli
from gateway.cli import tables
from tests.support.commands import Done, command
from tests.support.daemon import to_toml
from tests.support.databases import Databases
from tests.support.hostile import CONTROLS, MARKUP, NAME, raw
from tests.unit.spool.spooling import opened, record

LETTER = uuid.UUID(int=7)
WIDTHS = (60, 80, 200, None)


@pytest.fixture(params=WIDTHS, ids=("60", "80", "200", "pipe"))
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Columns of the terminal; None: a pipe."""
    columns: int | None = request.param
    monkeypatch.setattr(tables, "terminal_width", lambda: columns)
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    return columns


@pytest.fixture
async def hostile(postgres_databases: Databases, tmp_path: Path) -> Databases:
    """A registry, dead letters and a spool with nothing but hostile text in them."""
    made = postgres_databases
    tenant = made.metadata("INSERT INTO tenants (slug, name) VALUES ('acme', $1) RETURNING id", NAME)[0][0]
    kind = made.metadata(
        "INSERT INTO device_types (tenant_id, name, description) VALUES ($1, $2, $2) RETURNING id",
        tenant,
        NAME,
    )[0][0]
    made.metadata(
        "INSERT INTO field_mappings (device_type_id, field_name, data_type, unit) VALUES ($1, $2, 'float', $2)",
        kind,
        NAME,
    )
    for serial in (NAME, "plain"):
        made.metadata(
            "INSERT INTO devices (tenant_id, device_type_id, serial_number, name, location) "
            "VALUES ($1, $2, $3, $4, $4)",
            tenant, kind, serial, NAME,
        )  # fmt: skip
    made.timeseries(
        "INSERT INTO dead_letters "
        "(id, received_at, stream, topic, payload, reason, detail, tenant, device, qos, retained) "
        "VALUES ($1, $2, 'telemetry', $3, $4, 'malformed', $3, 'acme', $3, 1, false)",
        LETTER,
        dt.datetime(2026, 11, 20, tzinfo=dt.UTC),
        NAME,
        f'{{"ts": "{NAME}"'.encode(),
    )
    spool = opened(tmp_path / "spool")
    await spool.append([msgspec.structs.replace(record(1), topic=NAME, payload=NAME.encode())])
    spool.close()
    return made


def configured(folder: Path, metadata: str, timeseries: str, **mqtt: str) -> Path:
    """A configuration with these databases and a spool."""
    file = folder / f"{uuid.uuid4()}.toml"
    tree = {
        "mqtt": {"client_id": "gateway-1", **mqtt},
        "databases": {"metadata": {"dsn": metadata}, "timeseries": {"dsn": timeseries}},
        "spool": {"folder": str(folder / "spool")},
        "streams": [{"name": "telemetry", "topic": "t/{tenant}/{device}"}],
    }
    file.write_text(to_toml(tree))
    return file


@contextlib.contextmanager
def daemon() -> Iterator[str]:
    """What answers as a daemon does, with hostile text wherever text is."""
    book = dict.fromkeys(
        (
            "received",
            "stored",
            "duplicate",
            "spooled",
            "dead_lettered",
            "ignored",
            "in_flight",
            "balance",
            "qos0",
        ),
        0,
    )
    part = {"state": NAME, "detail": NAME, "last_error": f"{NAME}!", "last_error_at": 0}
    status = {
        "version": NAME, "uptime_seconds": 5, "balanced": True, "ready": True, "stopping": False, "total": book,
        "streams": {NAME: book}, "drained": {NAME: {NAME: 1}}, "components": {NAME: part}, "figures": {NAME: 1},
        "dead_letters": {NAME: {NAME: 3}}, "last_message_at": None, "rates": {NAME: 1.5},
    }  # fmt: skip

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(status).encode())

        def log_message(self, *_: object) -> None:
            """Silence."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def leaves() -> set[str]:
    """Every command there is, as it is typed."""
    return {name for root in cli._TEXTS for name in _below(root, cli.load(root))}


def _below(name: str, loaded: object) -> Iterator[str]:
    if not isinstance(loaded, TyperGroup):
        yield name
        return
    for verb, inner in loaded.commands.items():
        yield from _below(f"{name} {verb}", inner)


CALLS: dict[str, list[list[str]]] = {
    "run": [["--config", NAME], ["WRONG"]],  # BAD would be waited for
    "status": [["--url", "DAEMON"], ["--url", "DAEMON", "--json"], ["--url", f"http://{NAME}"]],
    "demo": [["--folder", NAME, "--seconds", NAME], [NAME]],
    "bench": [["--remove", NAME, "BAD"], ["--superuser-dsn", NAME]],
    "doctor": [[], ["--json"], ["BAD"], ["BAD", "--json"], ["WRONG"]],
    "config check": [[], ["BAD"], ["WRONG"], ["--config", NAME]],
    "config show": [[], ["BAD"], ["WRONG"], ["BAD", "--json"]],
    "config sample": [[]],
    "db init": [
        ["--superuser-dsn", NAME],
        ["--superuser-dsn", "postgresql://x@127.0.0.1:1/x", "--prefix", NAME],
    ],
    "db upgrade": [[], ["BAD"], ["--to", NAME]],
    "db downgrade": [["metadata", "--to", NAME, "--yes"], ["metadata", "--to", "0001", "--yes", "BAD"]],
    "db current": [[], ["--json"], ["BAD"]],
    "db history": [[], ["--json"]],
    "db status": [[], ["--json"], ["BAD"], ["BAD", "--json"]],
    "tenant add": [[NAME], ["other", "--name", NAME], ["other", "--json"]],
    "tenant list": [[], ["--json"], ["BAD"]],
    "tenant reader add": [
        [NAME],
        ["acme", "--name", NAME],
        ["acme", "--name", NAME, "BAD"],
        ["acme", "--name", "reads_acme", "--password-dir", NAME],
        ["acme", "--db-user", NAME, "--password-dir", "FOLDER"],
    ],
    "tenant reader list": [[], ["--json"], ["BAD"]],
    "tenant reader remove": [[NAME], [NAME, "--json"], [NAME, "BAD"]],
    "device-type add": [[NAME, "--tenant", NAME], ["x", "--tenant", "acme", "--field", NAME]],
    "device-type list": [[], ["--json"]],
    "device-type show": [
        [NAME, "--tenant", "acme"],
        [NAME, "--tenant", "acme", "--json"],
        [NAME, "--tenant", NAME],
    ],
    "device add": [[NAME, "--tenant", "acme", "--type", NAME], ["other", "--tenant", "acme", "--type", NAME]],
    "device import": [["FILE", "--tenant", "acme"], ["FILE", "--tenant", NAME], [NAME, "--tenant", "acme"]],
    "device list": [[], ["--json"], ["--tenant", NAME], ["BAD"]],
    "device show": [
        [NAME, "--tenant", "acme"],
        [NAME, "--tenant", "acme", "--json"],
        ["no", "--tenant", NAME],
    ],
    "device disable": [
        [NAME, "--tenant", "acme"],
        [NAME, "--tenant", "acme", "--json"],
        ["no", "--tenant", NAME],
    ],
    "device enable": [[NAME, "--tenant", "acme"], [NAME, "--tenant", "acme", "--json"]],
    "dead-letter list": [[], ["--json"], ["--since", NAME], ["--reason", NAME], ["--device", NAME], ["BAD"]],
    "dead-letter count": [[], ["--json"], ["--until", NAME], ["--tenant", NAME], ["BAD"]],
    "dead-letter show": [[str(LETTER)], [str(LETTER), "--json"], [NAME]],
    "dead-letter replay": [[], ["--json"], ["--stream", NAME]],
    "spool status": [[], ["--json"]],
    "spool verify": [[], ["--json"]],
    "spool export": [[]],
    "spool drain": [[], ["--json"]],
    "session list": [[], ["--json"], ["BAD"]],
    "session end": [[NAME], [NAME, "--json"], [NAME, "BAD"]],
}
"""BAD: with a database whose name is hostile, which the server refuses by name. WRONG: with settings that are.
DAEMON, FILE, FOLDER: see the test."""


def test_nothing_foreign_is_markup_or_control(
    hostile: Databases, tmp_path: Path, width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command there is, also when it fails: no control, no bidi, no traceback."""
    assert set(CALLS) == leaves(), "a command without hostile calls: add them"
    monkeypatch.chdir(tmp_path)  # where password files go
    good = configured(tmp_path, hostile.metadata_dsn, hostile.timeseries_dsn)
    bad = configured(tmp_path, *(
        re.sub(r"/[^/?]*(?=\?|$)", "/no%1B%5B31m%C2%9B%E2%80%AEno", dsn, count=1)
        for dsn in (hostile.metadata_dsn, hostile.timeseries_dsn)
    ))  # fmt: skip
    wrong = configured(tmp_path, hostile.metadata_dsn, hostile.timeseries_dsn, username=NAME)
    files = {"BAD": bad, "WRONG": wrong}
    file = tmp_path / "devices.csv"
    file.write_text(f'serial_number,type\n"{NAME}","{NAME}"\nok,"{NAME}"\n', "utf-8", newline="")
    problems = []
    with daemon() as url, structlog.testing.capture_logs():
        for path, calls in CALLS.items():
            for words in calls:
                settings = next((files[word] for word in words if word in files), good)
                named = [
                    {"DAEMON": url, "FILE": str(file), "FOLDER": str(tmp_path)}.get(word, word)
                    for word in words
                    if word not in files
                ]
                try:
                    done = command(settings, *path.split(), *named)
                except Exception as error:
                    problems.append(f"{path} {words!r}: {error!r}")
                    continue
                problems += _faults(path, words, done)
    assert problems == []


def _faults(path: str, words: list[str], done: Done) -> Iterator[str]:
    for name, text in (("stdout", done.stdout), ("stderr", done.stderr)):
        if found := raw(text):
            yield f"{path} {words!r}: raw in {name}: {found[:5]!r} of {text[:200]!r}"
        if "Traceback" in text:
            yield f"{path} {words!r}: a traceback: {text[-300:]}"
    if "--json" in words and done.stdout:
        json.loads(done.stdout)


def test_all_of_it_is_there(hostile: Databases, tmp_path: Path, width: int | None) -> None:
    """Markup as it is, controls as escapes, in lists and in what is shown of one; --json means the same text."""
    good = configured(tmp_path, hostile.metadata_dsn, hostile.timeseries_dsn)
    lines = command(good, "device", "list").stdout.splitlines()
    serials = [line for line in lines if MARKUP in line]
    assert len(serials) >= 1
    assert all("\\x1b[31mred" in line and "\\u202e" in line and "\\r\\n\\tend" in line for line in serials)
    letters = command(good, "dead-letter", "list").stdout.splitlines()
    row = next(line for line in letters if line.startswith("2026-11-20"))
    assert MARKUP in row
    assert "malformed" in row
    shown = command(good, "dead-letter", "show", str(LETTER)).stdout
    assert shown.count(MARKUP) == 4  # topic, detail, device, payload
    assert len(shown.splitlines()) == len({line.split()[0] for line in shown.splitlines()})
    (found,) = json.loads(command(good, "dead-letter", "list", "--json").stdout)
    assert found["topic"] == NAME
    assert found["payload"] == f'{{"ts": "{NAME}"'
    rawly = command(good, "dead-letter", "show", str(LETTER), "--raw").stdout
    assert CONTROLS.replace("\r\n", "\n") in rawly  # as text files are read
    assert raw(command(good, "dead-letter", "show", str(LETTER)).stdout) == [], "--raw is of one command only"


def test_every_command_takes_raw() -> None:
    """``--raw`` is there wherever foreign text is printed."""
    for name in cli._TEXTS:
        loaded = cli.load(name)
        inner = loaded.commands.values() if isinstance(loaded, TyperGroup) else [loaded]
        assert all("--raw" in option.opts for leaf in inner for option in leaf.params[-1:])


def test_usage_errors_are_not_rendered(tmp_path: Path) -> None:
    """What the user typed wrongly is repeated as text."""
    assert isinstance(cli.app, typer.Typer)
    done = command(tmp_path / "none.toml", "device", "list", f"--{NAME}")
    assert done.returncode == 2
