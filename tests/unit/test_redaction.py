"""Passwords stay hidden in any text; :mod:`tests.unit.observability.test_logs` shows it for logs."""

from __future__ import annotations

import urllib.parse

from hypothesis import given
from hypothesis import strategies as st

from gateway.redaction import redact

PASSWORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=8).filter(
    lambda password: not set(password) & set("'\"<>*")
)


@given(PASSWORDS)
def test_an_encoded_password_in_a_dsn(password: str) -> None:
    """However odd a password is, percent-encoded in a DSN it is hidden, and the rest stays."""
    encoded = urllib.parse.quote(password, safe="")
    dsn = f"postgresql://gateway:{encoded}@db.example:5432/telemetry?sslmode=require"
    assert redact(dsn) == "postgresql://gateway:***@db.example:5432/telemetry?sslmode=require"


@given(PASSWORDS)
def test_a_password_nobody_encoded(password: str) -> None:
    """A password pasted into a DSN as it is, with @ and / and all, is hidden too."""
    shown = redact(f"cannot reach postgresql://gateway:{password}@db.example: refused")
    assert shown == "cannot reach postgresql://gateway:***@db.example: refused"


@given(PASSWORDS)
def test_a_dsn_encoded_as_a_whole(password: str) -> None:
    """A DSN inside a query string, encoded once more as a whole, keeps its secret."""
    dsn = f"postgresql://gateway:{urllib.parse.quote(password, safe='')}@db.example/telemetry"
    encoded = urllib.parse.quote(dsn, safe="")
    shown = redact(f"GET /?dsn={encoded}")
    assert shown == "GET /?dsn=postgresql%3A%2F%2Fgateway%3A***%40db.example%2Ftelemetry"
