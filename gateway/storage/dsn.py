"""DSNs as text: which database they name, and the same server by another database or user.

The form is libpq's and asyncpg's: ``postgresql://user@host:port/name?key=value``; with a unix socket
``postgresql:///name?host=/folder``.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlencode

from pydantic import SecretStr

from gateway import errors, settings
from gateway.settings import dsn_text

_CREDENTIALS = ("user", "password")
_DATABASE = ("database", "dbname")


def database_name(database: settings.DatabaseSettings) -> str:
    """The database that a DSN names.

    Raises:
        ConfigurationError: it names none, or is no DSN.
    """
    _, _, name, query = parts(database)
    named = name or next((query[key] for key in _DATABASE if key in query), "")
    if not named:
        raise errors.ConfigurationError("the DSN names no database: write postgresql://user@host/name")
    return named


def server_name(database: settings.DatabaseSettings) -> str:
    """Where the server is, for people: ``db.example:5432``, or the folder of its unix socket."""
    found = dsn_text.split(database.dsn.get_secret_value())
    if found is None:
        return "its DSN"
    address = found.hosts or found.query.get("host", "localhost")
    return (
        address if ":" in address or address.startswith("/") else f"{address}:{found.query.get('port', 5432)}"
    )


def with_database(database: settings.DatabaseSettings, name: str) -> settings.DatabaseSettings:
    """The same server and login, another database."""
    scheme, authority, _, query = parts(database)
    return _again(database, scheme, authority, name, {k: v for k, v in query.items() if k not in _DATABASE})


def with_user(
    database: settings.DatabaseSettings, user: str, password_file: Path | None
) -> settings.DatabaseSettings:
    """The same database, another login. Without a file the password is left to PGPASSWORD and ``.pgpass``."""
    scheme, authority, name, query = parts(database)
    login = f"{quote(user, safe='')}@{authority.rpartition('@')[2]}"
    others = {key: value for key, value in query.items() if key not in _CREDENTIALS}
    again = _again(database, scheme, login, name, others)
    return again.model_copy(update={"password_file": password_file})


def parts(database: settings.DatabaseSettings) -> tuple[str, str, str, dict[str, str]]:
    """Scheme with ``://``, authority with the login encoded, database name, options.

    Raises:
        ConfigurationError: it is no DSN.
    """
    found = dsn_text.split(database.dsn.get_secret_value())
    if found is None:
        raise errors.ConfigurationError("this is no DSN: write postgresql://user@host/name")
    return found.scheme, found.login + found.hosts, found.name, found.query


def _again(
    database: settings.DatabaseSettings, scheme: str, authority: str, name: str, query: dict[str, str]
) -> settings.DatabaseSettings:
    text = f"{scheme}{authority}/{quote(name, safe='')}" + (
        f"?{urlencode(query, quote_via=quote)}" if query else ""
    )
    return database.model_copy(update={"dsn": SecretStr(text)})
