"""Sessions with a server: the hosts of a DSN in turn, each with its share of the time; and what is in between.

A pooler (PgBouncer, Odyssey, pgcat, RDS Proxy) may give every transaction another session of the server. Nothing of a
session can be relied on behind one: neither LISTEN, SET, prepared statements nor advisory locks. It is known by the
process id that it made up for its clients, which is not that of the server process that answers.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Mapping
from typing import Any

import asyncpg

from gateway import errors
from gateway.storage.libpq import Host, Target

_SILENT_SECONDS = 30.0
"""A host that did not answer is asked last for so long: each connection would wait for it again."""

_UTF8 = "UTF8"
_ASK = """
SELECT pg_backend_pid() AS pid, current_setting('synchronous_commit') AS commits,
       current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only
"""
_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)

_silent: dict[Host, float] = {}


class Session(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection whose session is the server's own."""

    pooled = False

    def __init__(self, protocol: Any, transport: asyncio.Transport, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        self.socket = transport.get_extra_info("socket")


class Pooled(Session):
    """A connection to a pooler: every transaction says for itself what the server's session may not know."""

    pooled = True

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """A transaction begins with what is promised of every commit, in the same exchange."""
        if query.startswith("BEGIN"):
            query = f"{query.rstrip(';')}; {_DURABLE}"
        status: str = await super().execute(query, *args, timeout=timeout)
        return status

    async def copy_to_table(self, table_name: str, **options: Any) -> str:
        """A COPY by itself would commit as the session at the server happens to be set."""
        if self.is_in_transaction():
            status: str = await super().copy_to_table(table_name, **options)
            return status
        async with self.transaction():
            return str(await super().copy_to_table(table_name, **options))


class _UnfitError(Exception):
    """A host is not what is asked for; the text says why."""


class Dialling:
    """One connection attempt.

    Args:
        label: what errors begin with.
        arguments: the driver's.
        any_encoding: whether the database need not be UTF-8.
    """

    def __init__(
        self, target: Target, label: str, arguments: Mapping[str, Any], *, any_encoding: bool = False
    ) -> None:
        self._target, self._label, self._arguments = target, label, arguments
        self._any_encoding = any_encoding

    async def session(self) -> Session:
        """A session with the first host that is reached and is what the DSN asks for.

        Raises:
            TransientError: none of several hosts.
            StandingError: the database is not UTF-8, or the pooler cannot be used.
            Exception: the driver's, of a single host or where another host would not help.
        """
        failures: dict[Host, str] = {}
        asked = self._target.attributes
        for wanted in ("standby", "any") if asked == "prefer-standby" else (asked,):
            for host in _order(self._target):
                try:
                    async with asyncio.timeout(self._target.seconds):
                        return await self._open(host, wanted)
                except (
                    _UnfitError,
                    OSError,
                    asyncpg.PostgresError,
                    asyncpg.InterfaceError,
                    EOFError,
                ) as error:
                    self._failed(host, error)
                    failures[host] = self._described(error)
        told = "; ".join(f"{host}: {failure}" for host, failure in failures.items())
        raise errors.TransientError(f"{self._label}: no host answers that is {asked} ({told})")

    def _failed(self, host: Host, error: BaseException) -> None:
        """Raise it where no other host would help."""
        if isinstance(error, TimeoutError):
            _silent[host] = time.monotonic() + _SILENT_SECONDS
        if not isinstance(error, _UnfitError) and (len(self._target.hosts) == 1 or _is_final(error)):
            raise error

    def _described(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer in {self._target.seconds:g} s"
        return str(error) or type(error).__name__

    async def _open(self, host: Host, wanted: str) -> Session:
        session = await self._connect(host, connection_class=Session)
        try:
            found = await self._ask(session)
            _check(found, wanted)
            self._check_encoding(found["encoding"])
            if found["pid"] != session.get_server_pid():
                session.terminate()
                session = await self._connect(host, connection_class=Pooled, statement_cache_size=0)
            elif found["commits"] == "off":  # an acknowledgement must not outlive its row
                await session.execute("SET synchronous_commit = on")
        except BaseException:  # cancelled, too: nobody else knows of it yet
            session.terminate()
            raise
        return session

    async def _connect(self, host: Host, **more: Any) -> Session:
        """``target_session_attrs`` is for :func:`_check`, which asks once for direct and pooled sessions."""
        place = {"host": host.name, "port": host.port, "target_session_attrs": "any", "timeout": None}
        session: Session = await asyncpg.connect(self._target.dsn, **place, **self._arguments, **more)
        with socket.socket(fileno=os.dup(session.socket.fileno())) as own:
            self._target.tune(own)
        return session

    async def _ask(self, session: Session) -> asyncpg.Record:
        """What is on the other end, in one transaction: behind a pooler it is one session of the server."""
        try:
            async with session.transaction():
                # Without a name: another client's statement of that name may be in the pooler's session.
                return await (await session.prepare(_ASK, name="")).fetchrow()
        except asyncpg.PostgresError as error:
            if "statement pooling" not in str(error):
                raise
            raise errors.StandingError(_STATEMENT_MODE.format(label=self._label)) from error

    def _check_encoding(self, encoding: str) -> None:
        if not self._any_encoding and encoding != _UTF8:
            raise errors.StandingError(_NOT_UTF8.format(label=self._label, encoding=encoding))


def _order(target: Target) -> list[Host]:
    """The hosts as written, or shuffled; those that were silent just now come last."""
    hosts = random.sample(target.hosts, len(target.hosts)) if target.shuffled else list(target.hosts)
    now = time.monotonic()
    return sorted(hosts, key=lambda host: _silent.get(host, 0.0) > now)


def _is_final(error: BaseException) -> bool:
    """Of a refused login, a missing database or a wrong option: hosts are copies of each other, as libpq has it."""
    state = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    return isinstance(error, ValueError) or (state or "").startswith(("28", "3D", "42", "08P"))


def _check(found: asyncpg.Record, wanted: str) -> None:
    fits = {
        "any": True,
        "read-write": not found["read_only"],
        "read-only": found["read_only"],
        "primary": not found["standby"],
        "standby": found["standby"],
    }
    if not fits[wanted]:
        kind = "a standby" if found["standby"] else "read-only" if found["read_only"] else "a primary"
        raise _UnfitError(f"it is {kind}, not {wanted}")


_NOT_UTF8 = (
    "{label}: the database's encoding is {encoding}, and readings are UTF-8: make another, CREATE DATABASE … ENCODING "
    "'UTF8' TEMPLATE template0 (`gateway db init` does), and let the DSN name it"
)
_STATEMENT_MODE = (
    "{label}: the pooler gives out sessions statement by statement, so nothing can be written as a whole: set "
    "pool_mode = transaction there, or point the DSN at the server itself"
)
