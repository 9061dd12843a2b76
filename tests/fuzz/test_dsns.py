"""DSNs: any text, and passwords of any characters."""

from __future__ import annotations

import functools
import string
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from gateway import redaction, settings
from gateway.daemon.exposure import is_local
from gateway.errors import ConfigurationError
from gateway.redaction import redact
from gateway.settings import dsn_text
from gateway.storage import dsn, libpq
from tests.support.fuzzing import attempt, fuzzed, spoiled

LONGEST = 8192
"""Characters: an operator's own line, and no device's."""
SAMPLES = [
    "postgresql://gateway@127.0.0.1:5432/telemetry",
    "postgres://u:p@[::1]:5433,b.example:5434,/run/postgresql/x?sslmode=verify-full&target_session_attrs=any",
    "postgresql:///x?host=/run/postgresql&port=5433&user=u&password=p&connect_timeout=3&keepalives_idle=30",
    "postgresql://u%40x:p%2Fq@h%20h/d%00b?options=-c%20x%3D1&keepalives=0&tcp_user_timeout=5&channel_binding=require",
    "postgresql://h/d?service=x&load_balance_hosts=random&sslrootcert=system&hostaddr=::1",
]
TOKENS = [
    ":", "@", "/", "?", "&", "=", ",", "[", "]", "%", "%00", "%zz", "%ff", "%2f", "+", "#", "\\", "'", '"', "<",
    "\x1b", "\0", "0", "65536", "1e9", "-1", "²", "٣", "host=", "port=", "user=", "é", "東", " ", "\t", "\n",
    "\udcff", "9" * 400, "9" * 5000, "service=", "&a=b", "connect_timeout=", "host=,", "dbname=", "keepalives=",
    "postgresql://",
]  # fmt: skip


def understood(text: str) -> list[str]:
    """All that may be shown of a DSN.

    Raises:
        ConfigurationError: it cannot be used.
        ValidationError: it cannot be a setting.
    """
    redaction._known.clear()
    database = settings.DatabaseSettings(dsn=SecretStr(text))
    target = libpq.read(database)
    assert target.hosts
    for host in target.hosts:
        is_local(host.name)
        assert host.port is None or 0 < host.port < 65_536
    assert target.seconds is None or target.seconds > 0
    named = dsn.with_user(dsn.with_database(database, "other"), "somebody", None)
    assert dsn.database_name(named) == "other"
    return [dsn.server_name(database), dsn.database_name(database), *map(str, target.hosts)]


@fuzzed
@given(spoiled(SAMPLES, TOKENS).map(lambda text: text[:LONGEST]))
def test_any_text(text: str) -> None:
    """It is understood, or refused; what the driver gets is a DSN again."""
    attempt("DSNs", lambda: understood(text), ConfigurationError, ValidationError)


PASSWORD = st.text(st.sampled_from([*string.printable, *"äß東\u202e%%@@//??##::"]), min_size=1, max_size=12)
FORMS = [
    "postgresql://gateway:{}@db.example:5433/telemetry?sslmode=require",
    "postgresql://gateway:{}@db.example/telemetry",
    "postgresql://gateway:{}@/telemetry?host=/run/postgresql",
    "postgres://gateway:{}@a.example:1,b.example:2/telemetry?sslmode=require&connect_timeout=2",
]
PIECES = ("qz7w", "xk9v")


@fuzzed
@given(st.sampled_from(FORMS), PASSWORD, PASSWORD, PASSWORD)
def test_passwords(form: str, first: str, second: str, third: str) -> None:
    """Encoded, a password is read as it was meant; as it is or encoded, no part of it is shown."""
    password = f"{first}{PIECES[0]}{second}{PIECES[1]}{third}"
    parts = dsn_text.split(form.format(quote(password, safe="")))
    assert parts is not None
    assert parts.secrets() == [password]
    for text in (form.format(quote(password, safe="")), form.format(password)):
        shown = attempt("DSNs' passwords", functools.partial(texts_of, text))
        assert isinstance(shown, list)
        assert [one for one in shown if any(piece in one for piece in PIECES)] == []


def texts_of(text: str) -> list[str]:
    """All that people may see of this DSN, and of what is wrong with it."""
    redaction._known.clear()
    try:
        database = settings.DatabaseSettings(dsn=SecretStr(text))
        parts = dsn_text.split(text)
        assert parts is not None
        shown = [parts.shown(), repr(parts), repr(database), redact(text), redact(f"cannot use {text!r}")]
        return [*shown, *understood(text)]
    except (ConfigurationError, ValidationError) as error:
        return [redact(str(error))]
