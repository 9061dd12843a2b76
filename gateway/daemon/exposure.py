"""What of a configuration goes over a network unprotected: warnings, no mistakes."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator

from gateway import settings
from gateway.settings import dsn_text
from gateway.storage import libpq

_DEFAULT = "prefer"
_ENOUGH = "verify-full"


def warnings(options: settings.Settings) -> list[str]:
    """One sentence a server that is not on this machine and not proven to be the right one.

    Raises:
        ConfigurationError: a DSN cannot be used.
    """
    databases = {"metadata": options.databases.metadata, "timeseries": options.databases.timeseries}
    found = [text for name, database in databases.items() for text in _of_database(name, database)]
    return [*found, *_of_broker(options.mqtt)]


def _of_database(name: str, database: settings.DatabaseSettings) -> Iterator[str]:
    target = libpq.read(database)
    parts = dsn_text.split(target.dsn)
    mode = (parts.query.get("sslmode") if parts else None) or os.environ.get("PGSSLMODE") or _DEFAULT
    remote = [str(host) for host in target.hosts if not is_local(host.name)]
    if remote and mode != _ENOUGH:
        yield (
            f"databases.{name}: {', '.join(remote)} by sslmode={mode}: nothing shows that it is the right server; add "
            f"sslmode={_ENOUGH} and sslrootcert=<file> to the DSN (docs/security.md)"
        )


def _of_broker(mqtt: settings.MqttSettings) -> Iterator[str]:
    if mqtt.unix_socket is None and mqtt.tls is None and not is_local(mqtt.host):
        yield (
            f"mqtt: {mqtt.host}:{mqtt.port} without TLS: every host on the way can read messages"
            f"{' and the password' if mqtt.username else ''}; set [mqtt.tls] (docs/security.md)"
        )


def is_local(host: str | None) -> bool:
    """Whether this is the machine itself: a unix socket, ``localhost`` or a loopback address."""
    if host is None:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.startswith(("/", "@")) or host.rstrip(".").lower() == "localhost"
