"""Sessions with a server: the hosts of a DSN in turn, each with its share of the time; and what is in between.

A pooler (PgBouncer, Odyssey, pgcat, RDS Proxy) may give every transaction another session of the server. Nothing of a
session can be relied on behind one: neither LISTEN, SET, prepared statements nor advisory locks. It is known by the
process id that it made up for its clients, which is not that of the server process that answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import asyncpg

from gateway import errors
from gateway.storage.libpq import Target
from gateway.storage.places import Place, places

_LOOK_SECONDS = 10.0
_UTF8 = "UTF8"
_NEVER_FULL = 2**30
_ROLE = """
SELECT pg_is_in_recovery() AS standby,
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only
"""
_ASK = f"""
{_ROLE.rstrip()}, pg_backend_pid() AS pid, current_setting('synchronous_commit') AS commits,
       current_setting('server_encoding') AS encoding
"""
_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)
_TIMELINE = """
SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline FROM pg_control_system()
"""
"""Of a primary: the cluster that it is of, and how often one of its standbys had taken over before, in hexadecimal."""

_newest: dict[int, str] = {}
"""The newest timeline seen of each cluster."""


class Line(NamedTuple):
    """Of which cluster a primary is, and on which timeline."""

    cluster: int
    timeline: str

    @property
    def is_former(self) -> bool:
        """Whether a newer primary was seen."""
        return self.timeline < _newest.get(self.cluster, "")


class ServerSession(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection whose session is the server's own.

    Attributes:
        standby, read_only: what the server was when the session began.
        looked_at: when it was seen that it still is, of :func:`time.monotonic`.
        unreplicated: a COMMIT did not wait for a synchronous standby: it is done at the primary only.
        line: cluster and timeline of a primary; of others, or where there is no choice, none.
    """

    pooled = False

    def __init__(self, protocol: Any, transport: asyncio.Transport, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        self.socket = transport.get_extra_info("socket")
        # Hazard: in a COPY the driver waits for room to send, past its own time-out, and for ever when the session ends
        # meanwhile. There is always room: what is sent is a batch, which is in memory anyway.
        transport.set_write_buffer_limits(high=_NEVER_FULL)
        self.standby = self.read_only = False
        self.looked_at = 0.0
        self.line: Line | None = None
        self.unreplicated = False
        self.add_log_listener(self._noticed)

    def _noticed(self, _connection: object, notice: asyncpg.PostgresLogMessage) -> None:
        """The wait of a COMMIT that is cancelled (pg_cancel_backend) is but a warning, in any language."""
        routine = getattr(notice, "server_source_function", None)
        self.unreplicated |= routine == "SyncRepWaitForLSN"

    def began(self, found: asyncpg.Record, line: Line | None) -> None:
        """Note what the server is."""
        self.standby, self.read_only, self.looked_at = found["standby"], found["read_only"], time.monotonic()
        self.line = line

    @property
    def is_over(self) -> bool:
        """Whether it is closed, or with a primary that was replaced meanwhile, as another session has seen."""
        return self.is_closed() or (self.line is not None and self.line.is_former)

    async def has_changed(self) -> bool:
        """Whether the server is another than the session began with: demoted, promoted, read-only, writable again.

        Such a session is of no use any more: what the DSN asks for may be another host now.
        """
        found = await self.fetchrow(_ROLE, timeout=_LOOK_SECONDS)
        self.looked_at = time.monotonic()
        return self.is_over or (found["standby"], found["read_only"]) != (self.standby, self.read_only)


class PooledSession(ServerSession):
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

    async def session(self) -> ServerSession:
        """A session with the first host that is reached and is what the DSN asks for.

        Raises:
            TransientError: none of several hosts.
            StandingError: the database is not UTF-8, or the pooler cannot be used.
            Exception: the driver's, of a single host or where another host would not help.
        """
        failures: dict[Place, BaseException] = {}
        asked = self._target.attributes
        for wanted in ("standby", "any") if asked == "prefer-standby" else (asked,):
            async for place in places(self._target):
                try:
                    async with asyncio.timeout(place.seconds):
                        return await self._open(place, wanted)
                except (
                    _UnfitError,
                    OSError,
                    asyncpg.PostgresError,
                    asyncpg.InterfaceError,
                    EOFError,
                ) as error:
                    if isinstance(error, TimeoutError):
                        place.was_silent()
                    if _is_final(error):
                        raise
                    failures[place] = error
        raise self._failure(failures)

    def _failure(self, failures: Mapping[Place, BaseException]) -> BaseException:
        """Of a single place its own error."""
        told = "; ".join(f"{place}: {_described(error, place)}" for place, error in failures.items())
        none = errors.TransientError(
            f"{self._label}: no host answers that is {self._target.attributes} ({told})"
        )
        alone = next(iter(failures.values()))
        return none if len(failures) > 1 or isinstance(alone, _UnfitError) else alone

    async def _open(self, place: Place, wanted: str) -> ServerSession:
        session = await self._connect(place, connection_class=ServerSession)
        try:
            found = await self._ask(session)
            _check(found, wanted)
            line = None
            if not found["standby"] and (len(self._target.hosts) > 1 or not place.alone):
                line = await _line(session)
                _check_line(line, wanted)
            self._check_encoding(found["encoding"])
            if found["pid"] != session.get_server_pid():
                session.terminate()
                session = await self._connect(place, connection_class=PooledSession, statement_cache_size=0)
            elif found["commits"] == "off":  # an acknowledgement must not outlive its row
                await session.execute("SET synchronous_commit = on")
            session.began(found, line)
        except BaseException:  # cancelled, too: this is its only reference yet
            session.terminate()
            raise
        return session

    async def _connect(self, place: Place, **more: Any) -> ServerSession:
        """``target_session_attrs`` is for :func:`_check`, which asks once for direct and pooled sessions."""
        there = {"host": place.host.name, "port": place.host.port, "loop": place.loop()}
        there |= {"target_session_attrs": "any", "timeout": None}
        session: ServerSession = await asyncpg.connect(self._target.dsn, **there, **self._arguments, **more)
        with socket.socket(fileno=os.dup(session.socket.fileno())) as own:
            self._target.tune(own)
        return session

    async def _ask(self, session: ServerSession) -> asyncpg.Record:
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


def _described(error: BaseException, place: Place) -> str:
    if isinstance(error, TimeoutError):
        return "no answer" if place.seconds is None else f"no answer in {place.seconds:g} s"
    return str(error) or type(error).__name__


def _is_final(error: BaseException) -> bool:
    """Of a refused login, a missing database or a wrong option: hosts are copies of each other, as libpq has it."""
    state = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    return (
        isinstance(error, ValueError)
        or (state or "").startswith(("28", "3D", "42"))
        or is_of_an_option(error)
    )


def is_of_an_option(error: BaseException) -> bool:
    """Whether the DSN asks for a setting that does not exist, or that a pooler does not pass on.

    Of a pooler by its words, for all it has to say is 08P01: also that it has too many clients, or no server.
    """
    return isinstance(error, asyncpg.UndefinedObjectError) or (
        isinstance(error, asyncpg.ProtocolViolationError) and "startup parameter" in str(error)
    )


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


async def _line(session: ServerSession) -> Line | None:
    """Of a primary; None where it may not be asked for."""
    with contextlib.suppress(asyncpg.PostgresError):
        # Without a name, for a pooler may be in between.
        found = await (await session.prepare(_TIMELINE, name="")).fetchrow()
        line = Line(found["system_identifier"], found["timeline"])
        _newest[line.cluster] = max(_newest.get(line.cluster, ""), line.timeline)
        return line
    return None


def _check_line(line: Line | None, wanted: str) -> None:
    """A primary whose standby took over meanwhile is none any more, although it may not know it yet.

    What would be written there is lost as soon as it follows the new one.
    """
    if line is not None and line.is_former and wanted in ("read-write", "primary"):
        raise _UnfitError(
            f"it is a former primary, of timeline {int(line.timeline, 16)}: one of timeline "
            f"{int(_newest[line.cluster], 16)} was seen; make it a standby of that one, or restart the gateway if it "
            "was restored"
        )


_NOT_UTF8 = (
    "{label}: the database's encoding is {encoding}, and readings are UTF-8: make another, CREATE DATABASE … ENCODING "
    "'UTF8' TEMPLATE template0 (`gateway db init` does), and let the DSN name it"
)
_STATEMENT_MODE = (
    "{label}: the pooler gives out sessions statement by statement, so nothing can be written as a whole: set "
    "pool_mode = transaction there, or point the DSN at the server itself"
)
