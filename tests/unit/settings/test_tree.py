"""The settings: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

from gateway import settings
from gateway.errors import ConfigurationError
from tests.support.minimal import MINIMAL, with_more


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the minimal configuration."""
    path = tmp_path / "gateway.toml"
    path.write_text(MINIMAL)
    return path


def test_the_minimal_configuration_works(file: Path) -> None:
    """Broker, client id, two databases and a stream are enough."""
    loaded = settings.load(file)
    assert loaded.mqtt.client_id == "gateway-1"
    assert loaded.streams[0].unknown_device == "dead_letter"
    assert loaded.mqtt.session_expiry == 86_400
    assert loaded.shutdown.deadline == 20


def test_the_environment_overrides_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable changes one option; its neighbours keep what the file says."""
    monkeypatch.setenv("GATEWAY__MQTT__HOST", "broker.example")
    monkeypatch.setenv("GATEWAY__BATCH__LINGER", "7ms")
    loaded = settings.load(file)
    assert (loaded.mqtt.host, loaded.mqtt.client_id) == ("broker.example", "gateway-1")
    assert loaded.batch.linger == pytest.approx(0.007)


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container needs no file."""
    for name, value in {
        "MQTT__CLIENT_ID": "gateway-1",
        "DATABASES__METADATA__DSN": "postgresql://gateway@db/m",
        "DATABASES__TIMESERIES__DSN": "postgresql://gateway@db/t",
        "STREAMS": '[{"name": "telemetry", "topic": "t/{tenant}/{device}"}]',
    }.items():
        monkeypatch.setenv(f"GATEWAY__{name}", value)
    assert settings.load(None).streams[0].topic == "t/{tenant}/{device}"


def test_values_are_frozen(file: Path) -> None:
    """Nobody changes the settings of a running daemon by accident."""
    loaded = settings.load(file)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        loaded.mqtt.__setattr__("host", "elsewhere")


@pytest.mark.parametrize(("old", "now"), [("auto", "auto"), ("bulk", "5"), ("aiomqtt", "3.1.1")])
def test_a_replaced_option_says_what_to_write(
    file: Path, monkeypatch: pytest.MonkeyPatch, old: str, now: str
) -> None:
    """``mqtt.transport`` of an older file or environment: the option of today, with the value that means the same."""
    file.write_text(MINIMAL.replace("[mqtt]", f"[mqtt]\ntransport = {old!r}"))
    with pytest.raises(ConfigurationError) as raised:
        settings.load(file)
    assert (
        f'  mqtt.transport: is now mqtt.protocol: write protocol = "{now}"' in str(raised.value).splitlines()
    )

    file.write_text(MINIMAL)
    monkeypatch.setenv("GATEWAY__MQTT__TRANSPORT", old)
    with pytest.raises(ConfigurationError) as raised:
        settings.load(file)
    assert f"mqtt.transport: is now mqtt.protocol: write GATEWAY__MQTT__PROTOCOL={now} (from" in str(
        raised.value
    )

    monkeypatch.delenv("GATEWAY__MQTT__TRANSPORT")
    monkeypatch.setenv("GATEWAY__MQTT__PROTOCOL", now)
    assert settings.load(file).mqtt.protocol == now


def test_a_replaced_option_of_no_known_value_names_all_of_today(file: Path) -> None:
    """And does not repeat the value."""
    file.write_text(MINIMAL.replace("[mqtt]", "[mqtt]\ntransport = 'carrier pigeon'"))
    with pytest.raises(
        ConfigurationError, match=r"write protocol = \"auto\" or protocol = \"5\" or"
    ) as raised:
        settings.load(file)
    assert "pigeon" not in str(raised.value)


MISTAKES: dict[str, tuple[str, str]] = {
    "an unknown option": ("[batch]\nlingre = 1", r"batch\.lingre: there is no such option"),
    "an unknown section": ("[spoool]\n", r"spoool: there is no such option"),
    "text for a number": ("[batch]\nmax_rows = 'many'", r"batch\.max_rows: Input should be a valid integer"),
    "no unit we know": ("[batch]\nlinger = '5 fortnights'", r"batch\.linger: .*write for example '20s'"),
    "out of bounds": ("[writer]\nconnections = 99", r"writer\.connections: .*less than or equal to 16"),
    "no decoder's zone": ("[validation]\nnaive_zone = 'Mars/Olympus'", r"there is no zone 'Mars/Olympus'"),
    "no moment": (
        "[validation]\nmin_time = 'soon'",
        r"validation\.min_time: .*write for example '2000-01-01",
    ),
    "no time key": (
        "[[streams]]\nname='s'\ntopic='{tenant}/{device}'\ntime_keys=[]",
        r"time_keys: .*at least 1",
    ),
    "a time key of another meaning": (
        "[[streams]]\nname='s'\ntopic='{tenant}/{device}'\ntime_keys=['ts', 'metadata']",
        r"stream s: time_keys: 'metadata' means something else",
    ),
    "QoS 2": (
        "[[streams]]\nname='s'\ntopic='{tenant}/{device}'\nqos=2",
        r"qos = 2 is refused; subscribe with qos = 1",
    ),
    "no tenant": ("[[streams]]\nname='s'\ntopic='devices/{device}'", r"stream s: name the tenant"),
    "provision without type": (
        "[[streams]]\nname='s'\ntopic='{tenant}/{device}'\nunknown_device='provision'",
        r"unknown_device = 'provision' and provision_type go together",
    ),
    "a name twice": ("[[streams]]\nname='telemetry'\ntopic='{tenant}/{device}'", r"must differ: telemetry"),
    "the stray stream's name": (
        "[[streams]]\nname='none'\ntopic='{tenant}/{device}'",
        r"a stream cannot be named 'none': messages whose topic matches no stream .*; choose another name",
    ),
    "the name of the sum": (
        "[[streams]]\nname='total'\ntopic='{tenant}/{device}'",
        r"a stream cannot be named 'total': the sum of all streams",
    ),
    "a bad template": ("[[streams]]\nname='s'\ntopic='{tenant}/#/{device}'", r"stream s: "),
    "a name in a topic that means nothing": (
        "[[streams]]\nname='s'\ntopic='{tenant}/{dev}'",
        r"stream s: topic '\{tenant\}/\{dev\}' has \{dev\}, which means nothing: \{tenant\} and \{device\}",
    ),
    "an address of health with a port": (
        "[observability]\nlisten = '0.0.0.0:9108'",
        r"observability\.listen: write the name or address alone: '0\.0\.0\.0', port = 9108",
    ),
    "an option nearly right": (
        "[writer]\nconections = 2",
        r"writer\.conections: .*perhaps writer\.connections is meant",
    ),
    "half a client certificate": ("[mqtt.tls]\ncert_file='x.pem'", r"cert_file and key_file go together"),
    "no TOML": ("[[[", r"gateway\.toml is not TOML"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named(case: str, file: Path) -> None:
    """Every mistake names file, option and what to write instead."""
    text, expected = MISTAKES[case]
    with pytest.raises(ConfigurationError, match=expected) as caught:
        settings.load(with_more(file, f"\n{text}\n"))
    assert str(file) in str(caught.value)


def test_all_mistakes_at_once(file: Path) -> None:
    """Somebody who mends a file sees all of its mistakes, one a line."""
    with pytest.raises(ConfigurationError, match=r"2 mistake\(s\)") as caught:
        settings.load(with_more(file, "[writer]\nconnections = 0\n[batch]\nlinger = -1\n"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GATEWAY__MQTT__HOTS", "x", r"mqtt\.hots: there is no such option"),
        (
            "GATEWAY__MQQT__HOST",
            "x",
            r"GATEWAY__MQQT__HOST: there is no section 'mqqt'; there are mqtt, databases",
        ),
        ("GATEWAY__STREAMS", "telemetry", r'"streams".*written there as JSON'),
        ("GATEWAY__BATCH__LINGER", "soon", r"batch\.linger: .*write for example '20s'"),
    ],
)
def test_a_mistake_in_the_environment_is_named(
    name: str, value: str, expected: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown names are errors there too, and what should be JSON and is not is no traceback."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=expected):
        settings.load(file)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("tcp://broker.example", "write the name or address alone: 'broker.example'$"),
        ("mqtt://u:secret@broker:1884", "'broker', port = 1884, username and password_file for the login$"),
        ("MQTTS://broker/", r"'broker', \[mqtt\.tls\] for TLS$"),
        ("wss://broker/ws", r"'broker', \[mqtt\.tls\] for TLS, websocket_path = '/ws'$"),
        ("broker:1883", "'broker', port = 1883$"),
        ("[::1]:1883", "'::1', port = 1883$"),
        ("[::1]", "'::1'$"),
        ("broker/path", "'broker'$"),
        ("bro ker", "write a host name or an address, and nothing else$"),
        ("", "write a host name or an address, and nothing else$"),
    ],
)
def test_a_host_is_a_name_or_an_address(host: str, expected: str, file: Path) -> None:
    """Schemes, ports, paths and log-ins have options of their own, which are named; no secret is repeated."""
    file.write_text(MINIMAL.replace('host = "127.0.0.1"', f'host = "{host}"'))
    with pytest.raises(ConfigurationError, match=expected) as caught:
        settings.load(file)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["broker", "broker.example.org", "10.0.0.1", "::1", "fe80::1%eth0", "my_broker", "bücher.example"]
)
def test_hosts_that_are_right(host: str, file: Path) -> None:
    """Names and addresses of both families stay as they are written."""
    file.write_text(MINIMAL.replace('host = "127.0.0.1"', f'host = "{host}"'))
    assert settings.load(file).mqtt.host == host


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATEWAY_MQTT__PORT", "GATEWAY__MQTT__PORT"),
        ("GATEWAY_MQTT_PORT", "GATEWAY__MQTT__PORT"),
        ("GATEWAY__MQTT_PORT", "GATEWAY__MQTT__PORT"),
        ("gateway_mqtt_client_id", "GATEWAY__MQTT__CLIENT_ID"),
        ("GATEWAY_MQTT__TLS__CA_FILE", "GATEWAY__MQTT__TLS__CA_FILE"),
        ("GATEWAY__DATABASES_METADATA_DSN", "GATEWAY__DATABASES__METADATA__DSN"),
        ("GATEWAY.MQTT.PORT", "GATEWAY__MQTT__PORT"),
        ("GATEWAY_STREAMS", "GATEWAY__STREAMS"),
    ],
)
def test_a_variable_with_too_few_underscores_is_named(
    name: str, meant: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would set nothing, and nothing would be said."""
    monkeypatch.setenv(name, "1884")
    with pytest.raises(ConfigurationError, match=f"{re.escape(name)} sets nothing: write {meant},"):
        settings.load(file)


def test_variables_of_others_are_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's own of another meaning, and what Kubernetes sets for a service of such a name."""
    monkeypatch.setenv("GATEWAY_CONFIG", "x")
    monkeypatch.setenv("GATEWAY_DB_USER", "x")
    monkeypatch.setenv("GATEWAY_MQTT_PORT", "tcp://10.0.0.1:1883")
    monkeypatch.setenv("GATEWAY_MQTT_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("GATEWAYS", "x")
    assert settings.load(file).mqtt.port == 1883


def test_the_environment_is_blamed_for_what_it_sets(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named beside the mistake; the file is named for its own mistakes only."""
    monkeypatch.setenv("GATEWAY__MQTT__PORT", "abc")
    with pytest.raises(ConfigurationError) as caught:
        settings.load(file)
    first, second = str(caught.value).splitlines()
    assert first == "environment: 1 mistake(s)"
    assert second.startswith("  mqtt.port: ")
    assert second.endswith("(from the environment: GATEWAY__MQTT__PORT)")
    with pytest.raises(ConfigurationError) as caught:
        settings.load(with_more(file, "[batch]\nlingre = 1\n"))
    first, *rest = str(caught.value).splitlines()
    assert first == f"{file} and environment: 2 mistake(s)"
    assert [("environment" in line) for line in rest] == [True, False]


def test_a_section_that_file_and_environment_set_together(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What contradicts the file is named by its variable; lists count as a whole."""
    monkeypatch.setenv("GATEWAY__MQTT__PASSWORD", "hunter2")
    file.write_text(MINIMAL.replace("[mqtt]", '[mqtt]\npassword_file = "x"'))
    with pytest.raises(
        ConfigurationError, match=r"not both \(from the environment: GATEWAY__MQTT__PASSWORD\)$"
    ):
        settings.load(file)
    monkeypatch.delenv("GATEWAY__MQTT__PASSWORD")
    monkeypatch.setenv("GATEWAY__STREAMS", '[{"name": "s"}]')
    with pytest.raises(
        ConfigurationError, match=r"streams\.0\.topic: .*from the environment: GATEWAY__STREAMS\)"
    ):
        settings.load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named with the reason."""
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere\.toml: No such file"):
        settings.load(tmp_path / "nowhere.toml")


def test_a_missing_option_is_named(tmp_path: Path) -> None:
    """What must be given and is not is named."""
    path = tmp_path / "gateway.toml"
    path.write_text("[mqtt]\nhost = 'x'\n")
    with pytest.raises(ConfigurationError, match=r"mqtt\.client_id: is required and not given"):
        settings.load(path)


def test_errors_do_not_repeat_secrets(file: Path) -> None:
    """The text of an error may be pasted anywhere, so no value of a secret is in it."""
    tree: dict[str, Any] = {"password": "hunter2", "password_file": "x"}
    text = "\n".join(f'{key} = "{value}"' for key, value in tree.items())
    file.write_text(MINIMAL.replace("[mqtt]", f"[mqtt]\n{text}"))
    with pytest.raises(ConfigurationError, match="not both") as caught:
        settings.load(file)
    assert "hunter2" not in str(caught.value)


def test_a_secret_comes_from_its_file(file: Path, tmp_path: Path) -> None:
    """The first line of password_file is the password, without its line end; nothing prints it."""
    (tmp_path / "password").write_text("hunter2\r\nsecond line\n")
    file.write_text(MINIMAL.replace("[mqtt]", f'[mqtt]\npassword_file = "{tmp_path / "password"}"'))
    loaded = settings.load(file)
    assert loaded.mqtt.secret() == "hunter2"
    assert "hunter2" not in repr(loaded)


def test_a_secret_file_that_is_gone_is_named(file: Path) -> None:
    """A password file that cannot be read is named."""
    file.write_text(MINIMAL.replace("[mqtt]", '[mqtt]\npassword_file = "/nowhere/password"'))
    with pytest.raises(ConfigurationError, match="cannot read /nowhere/password"):
        settings.load(file).mqtt.secret()


def test_a_dsn_is_not_printed(file: Path) -> None:
    """A DSN may hold a password, so its text shows nowhere by itself."""
    file.write_text(MINIMAL.replace("gateway@127.0.0.1/gateway_metadata", "gateway:hunter2@db/m"))
    assert "hunter2" not in repr(settings.load(file)) + str(settings.load(file))


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("mqtt.password_file", '"\\u0000"', "mqtt.password_file"),
        ("mqtt.tls.ca_file", '"/etc/a\\u0000b"', "mqtt.tls.ca_file"),
        ("mqtt.username", '"a\\u001b[31m"', "mqtt.username"),
        ("mqtt.client_id", '"a\\u0000"', "mqtt.client_id"),
        ("mqtt.username", f'"{"a" * 70_000}"', "65535 bytes"),
        ("mqtt.refused_retry", "1e308", "a thousand years"),
        ("writer.standing_retry", '"400000d"', "a thousand years"),
        ("mqtt.max_packet_bytes", '"5GiB"', "mqtt.max_packet_bytes"),
        ("mqtt.max_packet_bytes", "0", "mqtt.max_packet_bytes"),
        ("spool.max_bytes", f'"{"9" * 400}GiB"', "too large a number"),
        ("batch.max_rows", str(10**30), "at most"),
        ("batch.max_rows", "9" * 5000, "is not TOML"),
        ("batch.max_rows", "[" * 5000, "is not TOML"),
        ("validation.min_time", "0001-01-01T00:00:00+14:00", "1 to 9999"),
    ],
)
def test_no_value_is_a_traceback(option: str, value: str, named: str, tmp_path: Path) -> None:
    """What no clock waits for, no file is called and no packet holds is told when the settings are read."""
    file, (section, _, name) = tmp_path / "gateway.toml", option.rpartition(".")
    line = f"{name} = {value}\n"
    there = MINIMAL.replace('client_id = "gateway-1"\n', "") if name == "client_id" else MINIMAL
    heading = "[mqtt]\n"
    own = there.replace(heading, heading + line) if section == "mqtt" else f"{there}\n[{section}]\n{line}"
    file.write_text(own)
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        settings.load(file)


@pytest.mark.parametrize("value", ["[" * 5000, "1" * 5000, '{"a":' * 5000])
def test_no_variable_is_a_traceback(value: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON in a variable may be nested deeper, and its numbers longer, than Python reads."""
    monkeypatch.setenv("GATEWAY__STREAMS", value)
    with pytest.raises(ConfigurationError, match="environment"):
        settings.load(file)


def test_a_secret_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Bytes that are not UTF-8; and a device that never ends is read no further than a password can be long."""
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        settings.MqttSettings(client_id="x", password_file=file).secret()
    zeros = settings.MqttSettings(client_id="x", password_file=Path("/dev/zero")).secret()
    assert zeros is not None
    assert len(zeros) <= 2**16
