"""DSNs taken apart, with every character that can be typed in their passwords."""

from __future__ import annotations

import io
import json
import string
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog
from pydantic import SecretStr

from gateway import settings
from gateway.errors import ConfigurationError
from gateway.observability import logs
from gateway.redaction import redact
from gateway.settings import ObservabilitySettings, dsn_text
from gateway.settings.effective import effective
from gateway.storage import dsn, libpq
from tests.support.minimal import MINIMAL

PRINTABLE = "".join(sorted(set(string.printable) - set("\t\n\r\x0b\x0c")))
PASSWORDS = [
    *(f"qz7{character}xk9{character}vj5" for character in PRINTABLE if character != "%"),
    *(f"{character}qz7xk9vj5{character}" for character in PRINTABLE if character != "%"),
    "qz7@xk9/vj5?wy3=a",
    "qz7/xk9@vj5",
    "qz7?xk9=vj5",
    "qz7#[xk9]'vj5\" <wy3>",
    "größe 東京 qz7",
]
PIECES = ("qz7", "xk9", "vj5", "wy3")
"""No part of these may be seen."""
FORMS = {
    "as it is": "postgresql://gateway:{raw}@db.example:5433/telemetry?sslmode=require",
    "encoded": "postgresql://gateway:{encoded}@db.example:5433/telemetry?sslmode=require",
    "as an option": "postgresql://gateway@db.example:5433/telemetry?password={encoded}&sslmode=require",
}


def seen(text: str) -> list[str]:
    """The pieces of the password that a text shows."""
    return [piece for piece in PIECES if piece in text]


@pytest.mark.parametrize("form", FORMS)
def test_the_password_is_read_and_hidden_whatever_is_in_it(form: str) -> None:
    """Read as it was meant, handed to the driver whole, and shown nowhere; host, port and name are not touched."""
    for password in PASSWORDS:
        text = FORMS[form].format(raw=password, encoded=quote(password, safe=""))
        parts = dsn_text.split(text)
        assert parts is not None
        assert parts.secrets() == [password], text
        assert (parts.user, parts.hosts, parts.name) == ("gateway", "db.example:5433", "telemetry"), text
        database = settings.DatabaseSettings(dsn=SecretStr(text))
        assert dsn.server_name(database) == "db.example:5433"
        target = libpq.read(database)
        assert [str(host) for host in target.hosts] == ["db.example:5433"]
        driver = dsn_text.split(target.dsn)
        assert driver is not None
        assert driver.secrets() == [password]
        for shown in (
            parts.shown(),
            repr(parts),
            repr(database),
            redact(text),
            redact(f"cannot use {password!r}"),
        ):
            assert seen(shown) == [], shown


@pytest.mark.usefixtures("own_logging")
def test_the_password_reaches_no_log() -> None:
    """Neither as a field, nor deep in one, nor within a traceback, in both formats."""
    for password in PASSWORDS:
        text = FORMS["as it is"].format(raw=password)
        database = settings.DatabaseSettings(dsn=SecretStr(text))
        for log_format in ("json", "console"):
            stream = io.StringIO()
            logs.configure(ObservabilitySettings(log_format=log_format), stream)
            log = structlog.get_logger("test")
            log.info("said", dsn=text, deep={"list": [text, password]}, error=ValueError(f"bad {password!r}"))
            try:
                int(database.dsn.get_secret_value())
            except ValueError:
                log.exception("failed")
            assert seen(stream.getvalue()) == [], stream.getvalue()


def test_config_show_and_errors_hide_it(tmp_path: Path) -> None:
    """Whatever the DSN is worth: what cannot be read as one is hidden as a whole."""
    for text in [FORMS["as it is"].format(raw=password) for password in PASSWORDS] + [
        "host=h password=qz7xk9"
    ]:
        file = tmp_path / "gateway.toml"
        file.write_text(
            MINIMAL.replace(json.dumps("postgresql://gateway@127.0.0.1/gateway_metadata"), json.dumps(text)),
            "utf-8",
        )
        shown = {option.name: str(option.value) for option in effective(file)}
        assert seen(json.dumps(shown)) == [], shown["databases.metadata.dsn"]
        broken = settings.DatabaseSettings(dsn=SecretStr(text.replace(":5433", ":port")))
        with pytest.raises(ConfigurationError) as refused:
            libpq.read(broken)
        assert seen("".join(traceback.format_exception(refused.value))) == []


def test_a_traceback_of_a_command_hides_it() -> None:
    """Also one of a defect, which Python itself prints; and the process title names no secret."""
    script = (
        "import sys; from gateway import cli, settings; from pydantic import SecretStr\n"
        "text = sys.stdin.read(); sys.excepthook = cli._tell_defect\n"
        "settings.DatabaseSettings(dsn=SecretStr(text))\n"
        "print(open('/proc/self/cmdline').read())\n"
        "raise RuntimeError(text)"
    )
    text = FORMS["as it is"].format(raw="qz7#[xk9]'vj5\" <wy3>")
    done = subprocess.run(
        [sys.executable, "-c", script], input=text, capture_output=True, text=True, check=False
    )
    assert "RuntimeError: postgresql://gateway:***@db.example" in done.stderr
    assert seen(done.stderr + done.stdout) == []


@pytest.mark.parametrize(
    ("text", "hosts", "name"),
    [
        ("postgresql://h/a@b", "h", "a@b"),
        ("postgresql://u@h/a@b", "h", "a@b"),
        ("postgresql://u:p@h:1/a%40b", "h:1", "a@b"),
        ("postgresql://u@h1:1,h2:2/db?options=-c%20a=b@c", "h1:1,h2:2", "db"),
        ("postgresql://u@[::1]:1/db", "[::1]:1", "db"),
        ("postgresql://h/db?user=a@b", "h", "db"),
        ("postgresql:///db?host=/run&user=a@b", "", "db"),
    ],
)
def test_what_is_no_password_is_not_taken_for_one(text: str, hosts: str, name: str) -> None:
    """An @ in the name of a database or in an option, several hosts, IPv6."""
    parts = dsn_text.split(text)
    assert parts is not None
    assert (parts.hosts, parts.name) == (hosts, name)


@pytest.mark.parametrize("password", ["qz7 %41 xk9", "qz7'%2Fxk9 vj5", 'qz7"%zz%20 xk9'])
def test_a_password_that_looks_encoded_is_hidden_as_it_stands(password: str) -> None:
    """Nobody encoded it; it is read as something else then, and repeated as it stands."""
    for text in (f"postgresql://u:{password}@h/d", f"postgresql://u@h/d?password={password}"):
        settings.DatabaseSettings(dsn=SecretStr(text))
        assert seen(redact(f"invalid dsn {text!r}, {text}")) == []
