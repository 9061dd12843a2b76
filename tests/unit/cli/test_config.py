"""``gateway config`` as an operator uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway import errors
from gateway.cli import config
from gateway.settings.sample import sample
from tests.support.minimal import MINIMAL, with_more


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the minimal configuration."""
    path = tmp_path / "gateway.toml"
    path.write_text(MINIMAL)
    return path


def gateway_config(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(config.app, arguments)


def test_check_says_that_a_file_is_right(file: Path) -> None:
    """A right file is exit 0 and its name."""
    result = gateway_config("check", "--config", str(file))
    assert (result.exit_code, result.stdout) == (0, f"{file}: valid\n")


def test_check_warns_of_what_is_not_protected(file: Path) -> None:
    """A right file all the same: exit 0."""
    file.write_text(MINIMAL.replace("127.0.0.1/gateway_timeseries", "db.example/gateway_timeseries"))
    result = gateway_config("check", "--config", str(file))
    assert result.exit_code == 0
    assert "warning: databases.timeseries: db.example:5432 by sslmode=prefer" in result.stdout
    assert result.stdout.endswith(f"{file}: valid\n")


def test_check_refuses_what_the_daemon_would(file: Path) -> None:
    """A mistake is a ConfigurationError, exit 4 for the shell, in the daemon's own words."""
    result = gateway_config("check", "--config", str(with_more(file, "\n[batch]\nlingre = 1\n")))
    assert isinstance(result.exception, errors.ConfigurationError)
    assert "batch.lingre: there is no such option" in str(result.exception)


def test_show_tells_value_and_origin(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line an option, the origin first, secrets hidden; long values are not cut."""
    monkeypatch.setenv("GATEWAY__MQTT__PASSWORD", "hunter2")
    lines = gateway_config("show", "--config", str(file)).stdout.splitlines()
    assert 'file         mqtt.client_id = "gateway-1"' in lines
    assert 'environment  mqtt.password = "***"' in lines
    assert "default      mqtt.username = (unset)" in lines
    topic = "tenants/{tenant}/devices/{device}/telemetry"
    assert f'file         streams.0.topic = "{topic}"' in lines


def test_show_for_scripts(file: Path) -> None:
    """--json has the same, one object an option."""
    options = json.loads(gateway_config("show", "--json", "--config", str(file)).stdout)
    assert {"name": "mqtt.port", "value": 1883, "origin": "file"} in options


def test_sample_can_be_redirected_into_a_file() -> None:
    """Standard output is the file, to the byte."""
    assert gateway_config("sample").stdout == sample()


def test_no_configuration_names_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paths, and the command that makes one; the same beside what an environment alone leaves out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_VERSION", "1.2")  # of others: a build, Kubernetes
    monkeypatch.setenv("GATEWAY_MQTT_PORT", "tcp://10.0.0.1:1883")
    found = str(gateway_config("check").exception)
    assert found.startswith("no configuration: ")
    assert f"{tmp_path}/config/gateway.toml, /etc/gateway/gateway.toml" in found
    assert "`mkdir -p config && gateway config sample > config/gateway.toml`" in found
    monkeypatch.setenv("GATEWAY__MQTT__CLIENT_ID", "x")
    found = str(gateway_config("check").exception)
    assert "databases: is required and not given" in found
    assert f"neither {tmp_path}/config/gateway.toml nor /etc/gateway/gateway.toml" in found
    monkeypatch.delenv("GATEWAY__MQTT__CLIENT_ID")
    monkeypatch.setenv("GATEWAY_MQTT__HOST", "broker")
    assert "write GATEWAY__MQTT__HOST" in str(gateway_config("check").exception)
