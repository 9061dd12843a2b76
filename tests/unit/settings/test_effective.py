"""The settings in force: nothing left out, the origin told, secrets hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigurationError
from gateway.settings.effective import Option, Origin, effective
from tests.support.minimal import MINIMAL, with_more


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the minimal configuration."""
    path = tmp_path / "gateway.toml"
    path.write_text(MINIMAL)
    return path


def by_name(options: list[Option]) -> dict[str, Option]:
    """The options by their full name."""
    return {option.name: option for option in options}


def test_the_origin_of_each_value_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default, file or environment: whichever wins is named."""
    monkeypatch.setenv("GATEWAY__MQTT__HOST", "broker.example")
    monkeypatch.setenv("GATEWAY__BATCH__LINGER", "7ms")
    options = by_name(effective(file))
    assert options["mqtt.host"] == Option("mqtt.host", "broker.example", Origin.ENVIRONMENT)
    assert options["batch.linger"] == Option("batch.linger", "7ms", Origin.ENVIRONMENT)
    assert options["mqtt.client_id"] == Option("mqtt.client_id", "gateway-1", Origin.FILE)
    assert options["streams.0.name"] == Option("streams.0.name", "telemetry", Origin.FILE)
    assert options["streams.0.qos"] == Option("streams.0.qos", 1, Origin.DEFAULT)
    assert options["shutdown.deadline"] == Option("shutdown.deadline", "20s", Origin.DEFAULT)


def test_streams_of_the_environment_replace_those_of_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list is replaced as a whole, so nothing of the file's streams is claimed to be in force."""
    monkeypatch.setenv("GATEWAY__STREAMS", '[{"name": "other", "topic": "{tenant}/{device}"}]')
    options = by_name(effective(file))
    assert options["streams.0.name"] == Option("streams.0.name", "other", Origin.ENVIRONMENT)
    assert options["streams.0.unknown_device"].origin == Origin.DEFAULT


def test_lists_of_values_and_optional_sections(file: Path) -> None:
    """A section that is off is one option without a value; on, its options are told one by one."""
    assert by_name(effective(file))["mqtt.tls"] == Option("mqtt.tls", None, Origin.DEFAULT)
    options = by_name(effective(with_more(file, '\n[mqtt.tls]\nalpn = ["mqtt"]\n')))
    assert options["mqtt.tls.alpn"] == Option("mqtt.tls.alpn", ("mqtt",), Origin.FILE)
    assert options["mqtt.tls.ca_file"] == Option("mqtt.tls.ca_file", None, Origin.DEFAULT)


def test_secrets_are_hidden(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are not shown; of a DSN all the rest is."""
    monkeypatch.setenv("GATEWAY__MQTT__PASSWORD", "hunter2")
    monkeypatch.setenv("GATEWAY__DATABASES__METADATA__DSN", "postgresql://gateway:hunter2@db/m")
    options = by_name(effective(file))
    assert options["mqtt.password"].value == "***"
    assert options["databases.metadata.dsn"].value == "postgresql://gateway:***@db/m"
    assert not [option for option in options.values() if "hunter2" in str(option.value)]


def test_wrong_settings_are_not_shown_as_in_force(file: Path) -> None:
    """What the daemon would refuse is refused here, in the same words."""
    with pytest.raises(ConfigurationError, match=r"batch\.lingre"):
        effective(with_more(file, "\n[batch]\nlingre = 1\n"))
