"""DSNs as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import errors
from gateway.settings import DatabaseSettings
from gateway.storage import dsn


def database(text: str) -> DatabaseSettings:
    """Settings with this DSN."""
    return DatabaseSettings.model_validate({"dsn": text, "password_file": "/of/the/old/user"})


def text(database: DatabaseSettings) -> str:
    """Its DSN."""
    return database.dsn.get_secret_value()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://a@h/db", "db"),
        ("postgres://h:5432/db", "db"),
        ("postgresql:///db?host=/run/postgresql", "db"),
        ("postgresql://a:p%40ss@h:1/my%20db?sslmode=require", "my db"),
        ("postgresql://a@/?host=/run&dbname=db", "db"),
        ("postgresql://a@h1:1,h2:2/db", "db"),
    ],
)
def test_the_database_is_found(given: str, expected: str) -> None:
    """In the path or in the query, by TCP or unix socket."""
    assert expected == dsn.database_name(database(given))


@pytest.mark.parametrize(
    "given", ["postgresql://a:secret@h", "mysql://a:secret@h/db", "host=h dbname=secret"]
)
def test_what_names_no_database_is_refused(given: str) -> None:
    """The text repeats nothing of it: there may be a password inside."""
    with pytest.raises(errors.ConfigurationError) as refused:
        dsn.database_name(database(given))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://a:p@h:1/db", "postgresql://a:p@h:1/other%20db"),
        ("postgresql:///db?host=/run&port=1", "postgresql:///other%20db?host=%2Frun&port=1"),
        ("postgresql://h?dbname=db", "postgresql://h/other%20db"),
    ],
)
def test_another_database_of_the_same_server(given: str, expected: str) -> None:
    """Login and options stay."""
    assert expected == text(dsn.with_database(database(given), "other db"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://a:p@h:1/db", "postgresql://o%40@h:1/db"),
        ("postgresql://h/db?user=a&password=p&sslmode=require", "postgresql://o%40@h/db?sslmode=require"),
        ("postgresql:///db?host=/run", "postgresql://o%40@/db?host=%2Frun"),
    ],
)
def test_another_user_of_the_same_database(given: str, expected: str) -> None:
    """The old user's password goes, in whatever form it was given."""
    changed = dsn.with_user(database(given), "o@", None)
    assert expected == text(changed)
    assert changed.password_file is None
    assert dsn.with_user(database(given), "o@", Path("/new")).password_file == Path("/new")
