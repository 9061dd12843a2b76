"""What a DSN asks for, in libpq's sense, where the driver has it and where not.

The driver (asyncpg) shares one time-out among all hosts, knows some of libpq's options, and sends all others to the
server as settings, which answers 42704. So hosts, time-outs, keepalives and service files are read here, options that
change nothing are left out, and those that cannot be had are refused by name with what to write instead.

Source: PostgreSQL documentation, 32.1.1 "Connection Strings" and 32.1.2 "Parameter Key Words".
"""

from __future__ import annotations

import configparser
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

from gateway import errors, settings
from gateway.storage import dsn

_LEAST_SHARE = 2.0
"""Seconds a host or an address has at least, however many share ``connect_timeout``; libpq's own least."""

_DRIVER = frozenset({
    "dbname", "database", "user", "password", "passfile", "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl",
    "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib",
})  # fmt: skip
"""What the driver understands as libpq does."""

_LONGEST_NUMBER = 10
"""Digits of a port, zeros before it included."""

ATTRIBUTES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")

_NO_EFFECT: Mapping[str, frozenset[str] | None] = {
    "channel_binding": frozenset({"prefer", "disable"}),
    "gssencmode": frozenset({"prefer", "disable"}),
    "client_encoding": frozenset({"auto", "utf8", "utf-8", "unicode"}),
    "fallback_application_name": None,
    "sslcompression": frozenset({"0"}),
    "sslsni": frozenset({"1"}),
    "sslcertmode": frozenset({"allow"}),
    "gssdelegation": frozenset({"0"}),
    "replication": frozenset({"false", "off", "no", "0"}),
    "min_protocol_version": frozenset({"3.0"}),
    "max_protocol_version": frozenset({"3.0", "3.2", "latest"}),
}
"""Options, and the values with which they ask for nothing that the driver does not do anyway; None: any."""

_VERIFY = "sslmode=verify-full shows that it is the right server"
_REFUSED = {
    "channel_binding": f"the driver has no channel binding: leave it out; {_VERIFY}",
    "gssencmode": "the driver does not encrypt by GSSAPI: leave it out, and use sslmode",
    "client_encoding": "readings are UTF-8: leave it out",
    "hostaddr": "write the address as the host",
    "require_auth": f"leave it out; {_VERIFY}",
    "requirepeer": "leave it out",
    "sslcompression": "leave it out",
    "sslsni": "leave it out: the server's name is always sent",
    "sslcertmode": "leave it out: the certificate of sslcert is sent when the server asks for it",
    "sslcrldir": "name a file with sslcrl",
    "sslkeylogfile": "leave it out",
    "gssdelegation": "leave it out",
    "replication": "leave it out: the gateway needs an ordinary session",
    "min_protocol_version": "leave it out: the driver speaks 3.0",
    "max_protocol_version": "leave it out: the driver speaks 3.0",
    "oauth_issuer": "the driver has no OAuth: use a password, a certificate or a .pgpass",
    "oauth_client_id": "the driver has no OAuth: use a password, a certificate or a .pgpass",
    "scram_client_key": "use password_file",
    "scram_server_key": "use password_file",
    "servicefile": "set PGSERVICEFILE",
}
"""libpq's options that the gateway cannot give, and what to write instead."""

_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds, seconds, probes: a server that is gone without a word is noticed within a minute."""


@dataclass(frozen=True)
class Host:
    """One of the servers that a DSN names; both None: where the driver looks by itself."""

    name: str | None
    port: int | None

    def __str__(self) -> str:
        if self.name is None:
            return "the local socket"
        if self.name.startswith("/"):
            return self.name
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name}:{self.port or 5432}"


@dataclass(frozen=True)
class Target:
    """Where to connect to and how.

    Attributes:
        dsn: for the driver: without hosts, and without options that it does not know.
        seconds: time for each host; None: no limit.
        attributes: what the session must be, one of ``ATTRIBUTES``.
        shuffled: hosts in any order.
        keepalive: TCP options by libpq's names: ``keepalives`` 0 or 1, seconds, a count; ``tcp_user_timeout`` in ms.
        server_settings: what the server is told at the start of a session.
    """

    dsn: str
    hosts: tuple[Host, ...]
    seconds: float | None
    attributes: str
    shuffled: bool
    keepalive: Mapping[str, int] = field(default_factory=dict)
    server_settings: Mapping[str, str] = field(default_factory=dict)

    def tune(self, own: socket.socket) -> None:
        """Give a TCP socket its keepalives."""
        if own.family == socket.AF_UNIX:
            return
        on = self.keepalive.get("keepalives", 1)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, on)
        for option, name in _SOCKET_OPTIONS.items():
            number = getattr(socket, name, None)  # not on every system
            value = self.keepalive.get(option, _KEEPALIVE.get(option, 0))
            if number is not None and value > 0:
                own.setsockopt(socket.IPPROTO_TCP, number, value)


_SOCKET_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


def read(database: settings.DatabaseSettings) -> Target:
    """Understand the DSN of a database.

    Raises:
        ConfigurationError: it is no DSN, or asks for what cannot be had; names the option, never a value that may be
            secret.
    """
    scheme, authority, name, query = dsn.parts(database)
    query = {**_service(query), **query}
    query.pop("service", None)
    login, _, written = authority.rpartition("@")
    hosts = _hosts(written, query)
    seconds = _seconds(query, database, len(hosts))
    attributes, shuffled = _attributes(query, len(hosts)), _shuffled(query)
    keepalive = {
        option: found
        for option in ("keepalives", *_SOCKET_OPTIONS)
        if (found := _integer(query, option)) is not None
    }
    _refuse(query)
    for_driver = {key: query.pop(key) for key in list(query) if key in _DRIVER}
    user, colon, password = login.partition(":")
    authority = f"{quote(unquote(user), safe='')}{colon}{quote(unquote(password), safe='')}@" if login else ""
    text = f"{scheme}{authority}/{quote(name, safe='')}"
    text += f"?{urlencode(for_driver, quote_via=quote)}" if for_driver else ""
    if "options" not in query and (options := os.environ.get("PGOPTIONS")):
        query["options"] = options
    return Target(text, hosts, seconds, attributes, shuffled, keepalive, query)


def _service(query: Mapping[str, str]) -> Mapping[str, str]:
    """The options under the name of a service, from the first file that has it."""
    service = query.get("service") or os.environ.get("PGSERVICE")
    if not service:
        return {}
    places = [os.environ.get("PGSERVICEFILE") or Path.home() / ".pg_service.conf"]
    if system := os.environ.get("PGSYSCONFDIR"):
        places.append(Path(system) / "pg_service.conf")
    for place in places:
        file = configparser.ConfigParser(interpolation=None)
        try:
            file.read(place)
        except configparser.Error as error:
            raise errors.ConfigurationError(f"cannot read {place}: {error}") from error
        if service in file:
            return dict(file[service])
    raise errors.ConfigurationError(
        f"the service {service} of the DSN is in none of {', '.join(map(str, places))}"
    )


def _hosts(written: str, query: dict[str, str]) -> tuple[Host, ...]:
    inside, ports = query.pop("host", ""), query.pop("port", "") or os.environ.get("PGPORT", "")
    text = written or inside or os.environ.get("PGHOST", "")
    if not text:
        return (Host(None, _port(ports) if ports else None),)
    given = ports.split(",") if ports else []
    names = text.split(",")
    if len(given) not in (0, 1, len(names)):
        raise errors.ConfigurationError(f"the DSN has {len(names)} hosts and {len(given)} ports")
    ports_of = given * len(names) if len(given) == 1 else given or [""] * len(names)
    return tuple(_host(name, port) for name, port in zip(names, ports_of, strict=True))


def _host(text: str, otherwise: str) -> Host:
    """``name``, ``name:port``, ``[IPv6]:port``, a bare IPv6 address, or a socket's folder."""
    name, port = text, ""
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
    port = port or otherwise
    if not name:
        raise errors.ConfigurationError("the DSN has a host without a name")
    return Host(unquote(name), _port(port) if port else None)


def _port(text: str) -> int:
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER or not 0 < int(text) < 1 << 16:
        raise errors.ConfigurationError("a port of the DSN is no number from 1 to 65535")
    return int(text)


def _seconds(query: dict[str, str], database: settings.DatabaseSettings, hosts: int) -> float | None:
    """``connect_timeout`` of the DSN is each host's, as in libpq; that of the settings is shared by all."""
    own = _integer(query, "connect_timeout")
    if own is not None:
        return max(float(own), _LEAST_SHARE) if own > 0 else None
    return share(database.connect_timeout or None, hosts)


def share(seconds: float | None, count: int) -> float | None:
    """The part of the time that each of so many has; None: no limit."""
    if seconds is None or count < 2:
        return seconds
    return max(seconds / count, min(seconds, _LEAST_SHARE))


def _integer(query: dict[str, str], option: str) -> int | None:
    text = query.pop(option, None)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        raise errors.ConfigurationError(f"{option} of the DSN is no whole number") from None
    if abs(number) >= 1 << 31:
        raise errors.ConfigurationError(f"{option} of the DSN is beyond 32 bits")
    return number


def _attributes(query: dict[str, str], hosts: int) -> str:
    """Of several hosts the one that takes rows, where nothing else is said: the gateway writes."""
    asked = query.pop("target_session_attrs", None) or os.environ.get("PGTARGETSESSIONATTRS")
    if asked is None:
        return "read-write" if hosts > 1 else "any"
    if asked not in ATTRIBUTES:
        raise errors.ConfigurationError(f"target_session_attrs of the DSN is none of {', '.join(ATTRIBUTES)}")
    return asked


def _shuffled(query: dict[str, str]) -> bool:
    asked = query.pop("load_balance_hosts", "disable")
    if asked not in ("disable", "random"):
        raise errors.ConfigurationError("load_balance_hosts of the DSN is neither disable nor random")
    return asked == "random"


def _refuse(query: dict[str, str]) -> None:
    """Drop options that ask for nothing special; refuse what cannot be had."""
    for option in list(query):
        harmless = _NO_EFFECT.get(option, frozenset())
        if option in _NO_EFFECT and (harmless is None or query[option].lower() in harmless):
            del query[option]
        elif option in _REFUSED:
            raise errors.ConfigurationError(f"{option} of the DSN cannot be had here: {_REFUSED[option]}")
    if query.get("sslrootcert") == "system":
        raise errors.ConfigurationError(
            "sslrootcert=system cannot be had here: name a file, /etc/ssl/certs/ca-certificates.crt on Debian"
        )
