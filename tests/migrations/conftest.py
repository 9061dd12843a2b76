"""The trees of revisions, and databases to run them on."""

from __future__ import annotations

import pytest

from gateway.settings import DatabaseSettings
from gateway.storage import revisions
from gateway.storage.revisions import Name
from tests.support.databases import Databases


@pytest.fixture(params=revisions.NAMES)
def name(request: pytest.FixtureRequest) -> Name:
    """Both logical databases in turn."""
    found: Name = request.param
    return found


@pytest.fixture
def blank(name: Name, blank_databases: Databases) -> DatabaseSettings:
    """One database without any table, on both engines."""
    return database(blank_databases, name)


def database(databases: Databases, name: Name) -> DatabaseSettings:
    """Settings of one of these databases."""
    dsn = databases.metadata_dsn if name == "metadata" else databases.timeseries_dsn
    return DatabaseSettings.model_validate({"dsn": dsn})


def dsn(database: DatabaseSettings) -> str:
    """Its DSN as text."""
    return database.dsn.get_secret_value()
