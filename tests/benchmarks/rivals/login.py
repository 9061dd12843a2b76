"""The database's address in the parts that other programs want. For servers of the bench's own only."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from gateway import settings


def login(database: settings.DatabaseSettings) -> dict[str, str]:
    """``host``, ``port``, ``dbname``, ``user``, and ``password`` where there is one; named as libpq does."""
    parts = urlsplit(database.dsn.get_secret_value())
    query = parse_qs(parts.query)
    found = {
        "host": parts.hostname or query["host"][0],
        "port": str(parts.port or 5432),
        "dbname": parts.path.removeprefix("/"),
        "user": unquote(parts.username or ""),
    }
    password = database.secret()
    return found if password is None else {**found, "password": password}
