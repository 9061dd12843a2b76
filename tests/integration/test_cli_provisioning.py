"""``gateway tenant``, ``device-type`` and ``device`` as an operator types them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_cli_databases import configuration
from tests.support.commands import Done, command
from tests.support.daemon import GATEWAY, REPOSITORY
from tests.support.databases import Databases

Gateway = Callable[..., Done]


@pytest.fixture
def config(postgres_databases: Databases, tmp_path: Path) -> Path:
    """A configuration with migrated databases."""
    return configuration(tmp_path, postgres_databases.metadata_dsn, postgres_databases.timeseries_dsn)


@pytest.fixture
def run(config: Path) -> Gateway:
    """Commands on a registry with a tenant and a device type."""
    gateway = functools.partial(command, config)
    assert gateway("tenant", "add", "acme", "--name", "Acme Ltd").returncode == 0
    fields = ("--field", "vibration:float:mm/s:0:100:required", "--field", "temperature:float:celsius")
    added = gateway("device-type", "add", "vibration_sensor", "--tenant", "acme", *fields)
    assert added.returncode == 0, added.stderr
    return gateway


def test_the_commands_of_the_readme(run: Gateway, tmp_path: Path) -> None:
    """Enter, list, show, disable, enable; with --json the same for scripts."""
    described = ("--name", "Pump 1", "--location", "Workshop A")
    added = run("device", "add", "VIB-SN-001", "--tenant", "acme", "--type", "vibration_sensor", *described)
    assert "VIB-SN-001" in added.stdout
    shown = json.loads(run("device", "show", "VIB-SN-001", "--tenant", "acme", "--json").stdout)
    assert (shown["name"], shown["location"], shown["status"]) == ("Pump 1", "Workshop A", "active")
    assert "Workshop A" in run("device", "show", "VIB-SN-001", "--tenant", "acme").stdout
    assert "disabled" in run("device", "disable", "VIB-SN-001", "--tenant", "acme").stdout
    listed = json.loads(run("device", "list", "--status", "disabled", "--json").stdout)
    assert [device["serial_number"] for device in listed] == ["VIB-SN-001"]
    enabled = json.loads(run("device", "enable", "VIB-SN-001", "--tenant", "acme", "--json").stdout)
    assert enabled["status"] == "active"
    assert "vibration, temperature" in run("device-type", "list").stdout
    kind = json.loads(run("device-type", "show", "vibration_sensor", "--tenant", "acme", "--json").stdout)
    assert kind["fields"][0]["unit"] == "mm/s"
    assert "Acme Ltd" in run("tenant", "list").stdout
    assert json.loads(run("tenant", "list", "--json").stdout)[0]["devices"] == 1


def test_devices_are_imported_from_a_file(run: Gateway, tmp_path: Path) -> None:
    """A file with a byte order mark, as spreadsheets write it; again with --update; mistakes end with 2."""
    file = tmp_path / "devices.csv"
    file.write_text(
        "\ufeffserial_number,type,name\nS1,vibration_sensor,Pump\nS2,vibration_sensor,\n", "utf-8"
    )
    assert "2 added" in run("device", "import", str(file), "--tenant", "acme").stdout
    refused = run("device", "import", str(file), "--tenant", "acme")
    assert refused.returncode == 2
    assert "2 times, lines 2, 3: device 'S1' exists already" in refused.stderr
    assert "Traceback" not in refused.stderr
    again = run("device", "import", str(file), "--tenant", "acme", "--update", "--json")
    assert json.loads(again.stdout) == {"lines": 2, "added": 0, "updated": 0}
    listed = run("device", "list", "--limit", "1")
    assert "S1" in listed.stdout
    assert "--limit" in listed.stderr


def test_devices_are_imported_from_standard_input(run: Gateway, config: Path) -> None:
    """``-``, in either format; bytes that are not UTF-8 are a mistake of their line."""
    lines = b'{"serial_number": "S1", "type": "vibration_sensor"}\n{"serial_number": "\xff", "type": "x"}\n'
    done = subprocess.run(
        [*GATEWAY, "device", "import", "-", "--tenant", "acme"],
        input=lines,
        capture_output=True,
        check=False,
        env={**os.environ, "GATEWAY_CONFIG": str(config), "PYTHONPATH": REPOSITORY},
    )
    assert done.returncode == 2
    assert b"for 1 mistake(s)\n  line 2: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tenant", "add", "acme"), "exists already"),
        (("tenant", "add", "a/b"), "slug = 'a/b'"),
        (("device-type", "add", "k", "--tenant", "acme", "--field", "a:complex"), "--field 'a:complex'"),
        (("device-type", "show", "k", "--tenant", "acme"), "there is vibration_sensor"),
        (("device", "add", "S1", "--tenant", "acne", "--type", "k"), "gateway tenant add acne"),
        (("device", "add", "S1", "--tenant", "acme", "--type", "k"), "gateway device-type add k"),
        (("device", "show", "S1", "--tenant", "acme"), "no device 'S1'"),
        (("device", "import", "/nowhere.csv", "--tenant", "acme"), "cannot read /nowhere.csv"),
        (("device", "list", "--tenant", "acne"), "no tenant 'acne'"),
    ],
)
def test_mistakes_end_with_2_and_one_clear_text(run: Gateway, arguments: tuple[str, ...], told: str) -> None:
    """Never a traceback."""
    done = run(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command_line", ["tenant add", "device-type add", "device import", "device list", "db init", "db status"]
)
def test_help_shows_an_example(config: Path, command_line: str) -> None:
    """So that nobody needs the manual for the usual case."""
    shown = command(config, *command_line.split(), "--help")
    assert f"Example: gateway {command_line}" in shown.stdout
