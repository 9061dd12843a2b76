"""What a configuration names outside itself, looked at without any network: files, secrets, decoders."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Iterator

from gateway import decoders
from gateway.errors import ConfigurationError, GatewayError
from gateway.mqtt import tls
from gateway.settings import DatabaseSettings, Settings
from gateway.storage import dsn, libpq


def check(settings: Settings) -> None:
    """Whether the daemon could use what these settings name.

    Raises:
        ConfigurationError: every mistake, one a line.
    """
    mistakes = [found for attempt in _attempts(settings) if (found := _mistake(attempt)) is not None]
    if mistakes:
        raise ConfigurationError("\n  ".join([f"{len(mistakes)} mistake(s)", *mistakes]))


def _attempts(settings: Settings) -> Iterator[Callable[[], object]]:
    yield settings.mqtt.secret
    yield settings.databases.metadata.secret
    yield settings.databases.timeseries.secret
    for name, database in (
        ("metadata", settings.databases.metadata),
        ("timeseries", settings.databases.timeseries),
    ):
        yield functools.partial(_dsn, name, database)
    if (wanted := settings.mqtt.tls) is not None:
        yield functools.partial(tls.make_context, wanted, ssl.SSLContext)
    for name in sorted({stream.decoder for stream in settings.streams}):
        yield functools.partial(decoders.build, name, decoders.Limits())


def _dsn(name: str, database: DatabaseSettings) -> None:
    try:
        dsn.database_name(database)
        libpq.read(database)
    except ConfigurationError as error:
        raise ConfigurationError(f"databases.{name}.dsn: {error}") from error


def _mistake(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except GatewayError as error:
        return str(error)
    return None
