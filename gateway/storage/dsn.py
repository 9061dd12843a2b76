"""DSNs as text: which database they name, and the same server by another database or user.

The form is libpq's and asyncpg's: ``postgresql://user@host:port/name?key=value``; with a unix socket
``postgresql:///name?host=/folder``.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from pydantic import SecretStr

from gateway import errors, settings

_FORM = re.compile(r"(postgres(?:ql)?://)([^/?]*)(?:/([^?]*))?(?:\?(.*))?")
_CREDENTIALS = ("user", "password")
_DATABASE = ("database", "dbname")


def database_name(database: settings.Database) -> str:
    """The database that a DSN names.

    Raises:
        ConfigurationError: it names none, or is no DSN.
    """
    _, _, name, query = parts(database)
    named = name or next((query[key] for key in _DATABASE if key in query), "")
    if not named:
        raise errors.ConfigurationError("the DSN names no database: write postgresql://user@host/name")
    return named


def server_name(database: settings.Database) -> str:
    """Where the server is, for people: ``db.example:5432``, or the folder of its unix socket."""
    match = _FORM.fullmatch(database.dsn.get_secret_value())
    if match is None:
        return "its DSN"
    query = _query(match[4])
    address = match[2].rpartition("@")[2] or query.get("host", "localhost")
    return address if ":" in address or address.startswith("/") else f"{address}:{query.get('port', 5432)}"


def with_database(database: settings.Database, name: str) -> settings.Database:
    """The same server and login, another database."""
    scheme, authority, _, query = parts(database)
    return _again(database, scheme, authority, name, {k: v for k, v in query.items() if k not in _DATABASE})


def with_user(database: settings.Database, user: str, password_file: Path | None) -> settings.Database:
    """The same database, another login. Without a file the password is left to PGPASSWORD and ``.pgpass``."""
    scheme, authority, name, query = parts(database)
    login = f"{quote(user, safe='')}@{authority.rpartition('@')[2]}"
    others = {key: value for key, value in query.items() if key not in _CREDENTIALS}
    again = _again(database, scheme, login, name, others)
    return again.model_copy(update={"password_file": password_file})


def parts(database: settings.Database) -> tuple[str, str, str, dict[str, str]]:
    """Scheme with ``://``, authority as written, database name, options.

    Raises:
        ConfigurationError: it is no DSN.
    """
    match = _FORM.fullmatch(database.dsn.get_secret_value())
    if match is None:
        raise errors.ConfigurationError("this is no DSN: write postgresql://user@host/name")
    return match[1], match[2], unquote(match[3] or ""), _query(match[4])


def _query(text: str | None) -> dict[str, str]:
    """The options; a + is a plus, as in libpq."""
    return dict(parse_qsl((text or "").replace("+", "%2B")))


def _again(
    database: settings.Database, scheme: str, authority: str, name: str, query: dict[str, str]
) -> settings.Database:
    text = f"{scheme}{authority}/{quote(name, safe='')}" + (
        f"?{urlencode(query, quote_via=quote)}" if query else ""
    )
    return database.model_copy(update={"dsn": SecretStr(text)})
