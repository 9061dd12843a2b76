"""The settings: what is accepted, what is refused, and in which words."""

from __future__ import annotations

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
