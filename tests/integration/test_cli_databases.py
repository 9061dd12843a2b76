"""``gateway db`` as an operator types it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.commands import Done, command
from tests.support.daemon import to_toml
from tests.support.databases import Databases
from tests.support.servers import Server
from tests.support.sql import execute
from tests.support.waiting import free_port

Gateway = Callable[..., Done]


def configuration(folder: Path, metadata: str, timeseries: str) -> Path:
    """A file with these DSNs."""
    file = folder / "gateway.toml"
    file.write_text(
        to_toml(
            {
                "mqtt": {"client_id": "gateway-1"},
                "databases": {"metadata": {"dsn": metadata}, "timeseries": {"dsn": timeseries}},
                "streams": [{"name": "telemetry", "topic": "t/{tenant}/{device}"}],
            }
        )
    )
    return file


@pytest.fixture
def blank(blank_databases: Databases, tmp_path: Path) -> Gateway:
    """Commands on databases without tables, on both engines."""
    config = configuration(tmp_path, blank_databases.metadata_dsn, blank_databases.timeseries_dsn)
    return functools.partial(command, config)


def test_up_and_down_again(blank: Gateway, blank_databases: Databases) -> None:
    """Status says what is pending and ends with 1; upgrade applies it; downgrade asks, or wants --yes."""
    before = blank("db", "status", "--json")
    assert before.returncode == 1
    assert [one["pending"][:1] for one in json.loads(before.stdout)] == [["0001"], ["0001"]]
    assert "pending: 0001" in blank("db", "status").stdout

    upgraded = blank("db", "upgrade")
    assert upgraded.returncode == 0
    assert "timeseries: applied 0001 Telemetry" in upgraded.stdout
    assert "metadata: nothing to do" in blank("db", "upgrade", "metadata").stdout

    after = blank("db", "status", "--json")
    assert after.returncode == 0
    engine = json.loads(after.stdout)[1]["engine"]
    assert ("TimescaleDB" in engine) == (blank_databases.engine == "timescaledb")
    revisions = json.loads(blank("db", "history", "--json").stdout)
    newest = {name: known[-1]["id"] for name, known in revisions.items()}
    assert json.loads(blank("db", "current", "--json").stdout) == newest

    assert blank("db", "downgrade", "timeseries", "--to", "base").returncode == 1  # nobody answered
    assert json.loads(blank("db", "current", "--json").stdout) == newest
    undone = blank("db", "downgrade", "timeseries", "--to", "base", "--yes")
    assert "timeseries: undone 0001" in undone.stdout
    assert "none" in blank("db", "current", "timeseries").stdout


@pytest.mark.parametrize(
    "arguments", [("downgrade",), ("downgrade", "timeseries"), ("upgrade", "--to", "0815")]
)
def test_mistakes_are_usage_errors(blank: Gateway, arguments: tuple[str, ...]) -> None:
    """A downgrade names database and target; no traceback ever."""
    done = blank("db", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_unreachable_server_is_said(tmp_path: Path) -> None:
    """Status shows it and ends with 1; an upgrade ends with 1 and one clear text."""
    nowhere = f"postgresql://a@127.0.0.1:{free_port()}/b"
    absent = functools.partial(command, configuration(tmp_path, nowhere, nowhere))
    assert absent("db", "status").returncode == 1
    assert "not reachable" in absent("db", "status").stdout
    upgrade = absent("db", "upgrade")
    assert (upgrade.returncode, upgrade.stderr.count("\n")) == (1, 1)
    assert upgrade.stderr.startswith("gateway: metadata")


@pytest.fixture
def prefix(server: Server) -> Iterator[str]:
    """A prefix for roles and databases, which are removed in the end."""
    made = f"gw{uuid4().hex[:8]}"
    yield made
    for name in ("metadata", "timeseries"):
        execute(server.dsn(), f"DROP DATABASE IF EXISTS {made}_{name} WITH (FORCE)")
    for role in ("owner", "writer", "reader"):
        execute(server.dsn(), f"DROP ROLE IF EXISTS {made}_{role}")


@pytest.mark.parametrize(
    "names", [("metadata", "timeseries"), ("timeseries", "timeseries")], ids=("two", "one")
)
def test_from_nothing_to_a_provisioned_device(
    server: Server, prefix: str, tmp_path: Path, names: tuple[str, str]
) -> None:
    """Init, upgrade as the owner, then what the daemon's own login may and may not do; also in one database."""
    writer = re.sub(r"//[^@]*@", f"//{prefix}_writer@", server.dsn(f"{prefix}_{{}}"))
    config = configuration(tmp_path, writer.format(names[0]), writer.format(names[1]))
    run = functools.partial(command, config)
    secrets = tmp_path / "secrets"
    superuser = ("--superuser-dsn", server.dsn(), "--prefix", prefix, "--password-dir", str(secrets))
    first = run("db", "init", *superuser)
    assert first.returncode == 0, first.stderr
    assert f"made role {prefix}_owner" in first.stdout
    assert f"gateway db upgrade --db-user {prefix}_owner" in first.stdout
    assert "made" not in run("db", "init", *superuser).stdout

    refused = run("db", "upgrade")
    assert refused.returncode == 2
    assert f"connect as {prefix}_owner" in refused.stderr
    owner = ("--db-user", f"{prefix}_owner", "--db-password-file", str(secrets / f"{prefix}_owner.password"))
    upgraded = run("db", "upgrade", *owner)
    assert upgraded.returncode == 0, upgraded.stderr
    assert run("db", "status").returncode == 0

    refused = run("tenant", "add", "acme")
    assert refused.returncode == 2
    assert "--db-user" in refused.stderr
    assert run("tenant", "add", "acme", *owner).returncode == 0
    assert "acme" in run("tenant", "list").stdout
    assert run("dead-letter", "list").returncode == 0


@pytest.mark.parametrize("wrong", ["Gateway", "1gateway", "a" * 51, 'a"b', ""])
def test_a_prefix_is_a_plain_word(blank: Gateway, wrong: str) -> None:
    """It becomes part of role names."""
    done = blank("db", "init", "--superuser-dsn", "postgresql://postgres@127.0.0.1:1/x", "--prefix", wrong)
    assert (done.returncode, "--prefix" in done.stderr) == (2, True)
