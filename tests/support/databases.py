"""Migrated databases for tests: one template a server and logical database, one clone a test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from gateway.settings import DatabaseSettings
from gateway.storage.migrate import upgrade
from gateway.storage.revisions import NAMES, Name
from tests.support.servers import Postgres, Server
from tests.support.sql import execute, query, scalar, wait_for

_PREPARED = "gateway_template_{}"
"""Templates that a server began with (:mod:`tests.support.prepared`)."""


@dataclass(frozen=True)
class Databases:
    """The two logical databases of one gateway, on one server."""

    server: Server
    metadata_dsn: str
    timeseries_dsn: str

    @property
    def engine(self) -> str:
        """``postgres`` or ``timescaledb``."""
        return self.server.engine

    def on(self, server: Postgres) -> Databases:
        """The same as a copy of the server has them."""
        assert isinstance(self.server, Postgres)
        here, there = f":{self.server.port}/", f":{server.port}/"
        dsns = (dsn.replace(here, there) for dsn in (self.metadata_dsn, self.timeseries_dsn))
        return Databases(server, *dsns)

    def metadata(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a query on the metadata database."""
        return query(self.metadata_dsn, statement, *arguments)

    def timeseries(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a query on the time-series database."""
        return query(self.timeseries_dsn, statement, *arguments)

    def count(self, table: str) -> int:
        """How many rows a table of the time-series database has."""
        found: int = scalar(self.timeseries_dsn, f"SELECT count(*) FROM {table}")
        return found


class Workshop:
    """Makes databases on one server, and drops them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._numbers = itertools.count(1)
        self._templates: dict[Name, str] = {}
        self._made: list[str] = []

    def migrated(self) -> Databases:
        """Both databases as ``gateway db upgrade`` leaves them: clones of templates made at first use."""
        return self._both(self._clone)

    def prepare(self) -> None:
        """Make the templates, so that copies of this server's cluster have them."""
        for logical in NAMES:
            self._template(logical, _PREPARED.format(logical))

    def blank(self) -> Databases:
        """Both databases without tables; the extension where the engine has it."""
        return self._both(self._blank)

    def drop(self, databases: Databases) -> None:
        """Drop both, whoever is connected."""
        for dsn in (databases.metadata_dsn, databases.timeseries_dsn):
            self._drop(_name(dsn))

    def close(self) -> None:
        """Drop all that was made here."""
        for name in list(self._made):
            self._drop(name)

    def _both(self, make: Callable[[Name], str]) -> Databases:
        metadata, timeseries = (self.server.dsn(make(logical)) for logical in NAMES)
        return Databases(self.server, metadata, timeseries)

    def _clone(self, logical: Name) -> str:
        if logical not in self._templates:
            self._templates[logical] = self._prepared(logical) or self._template(logical, self._new(logical))
        return self._create(self._new(logical), template=self._templates[logical])

    def _blank(self, logical: Name) -> str:
        return self._empty(logical, self._new(logical))

    def _empty(self, logical: Name, name: str) -> str:
        # Nobody can connect to template0: in template1, TimescaleDB's scheduler may be in the way.
        self._create(name, template="template0")
        if logical == "timeseries" and self.server.engine == "timescaledb":
            execute(self.server.dsn(name), "CREATE EXTENSION IF NOT EXISTS timescaledb")
        return name

    def _prepared(self, logical: Name) -> str | None:
        name = _PREPARED.format(logical)
        return name if self._admin("SELECT FROM pg_database WHERE datname = $1", name) else None

    def _template(self, logical: Name, name: str) -> str:
        self._empty(logical, name)
        migrate(self.server.dsn(name), logical)
        # TimescaleDB's scheduler leaves templates alone, so that they can be cloned.
        self._admin(f"ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false")
        self._admin("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name)
        return name

    def _new(self, logical: Name) -> str:
        return f"gateway_test_{logical}_{os.getpid()}_{next(self._numbers)}"

    def _create(self, name: str, *, template: str) -> str:
        self._admin(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._made.append(name)
        return name

    def _drop(self, name: str) -> None:
        if name in self._templates.values():
            self._admin(f"ALTER DATABASE {name} IS_TEMPLATE false")
        self._admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._made.remove(name)

    def _admin(self, statement: str, *arguments: Any) -> list[Any]:
        return query(self.server.dsn(), statement, *arguments)


def migrate(dsn: str, logical: Name) -> None:
    """Bring one database to the newest revision."""
    wait_for(upgrade(logical, DatabaseSettings(dsn=SecretStr(dsn))))


def _name(dsn: str) -> str:
    return dsn.rpartition("/")[2].partition("?")[0]
