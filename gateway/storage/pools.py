"""Connections to the databases, and the one door at which driver errors are translated."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator

import asyncpg

from gateway import errors, settings
from gateway.storage import dsn, libpq, sessions, sqlstate

READ_ONLY = "25006"
_LOOK_EVERY = 1.0
"""Seconds that a session is believed to be with the same kind of server as before."""


def translate_error(error: BaseException, database: str) -> errors.StoreError | None:
    """The gateway's error for one of the driver's; None for anything that is no database trouble."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or "XX000"
        cause = f"{state} {_origin(error)}"
        hint = sqlstate.remedy(cause)
        doing = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
        message = error.args[0] if error.args else type(error).__name__
        text = f"{database}: {doing}{message} (SQLSTATE {state})"
        verdict, of_all = sqlstate.classify(cause), sqlstate.of_all(cause)
        return verdict(f"{text}; {hint}" if hint else text, state, of_all=of_all)
    if isinstance(error, TimeoutError):  # as a batch would that is too large for it
        return errors.TransientError(f"{database}: no answer in time", of_all=False)
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError | EOFError):
        return errors.TransientError(f"{database}: {_plain_words(error)}")
    return None


def _plain_words(error: Exception) -> str:
    """What it says, without the number of the operating system's error."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: is the server running, and is this its port?"
    if isinstance(error, socket.gaierror):
        return f"cannot resolve the host name: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        return "no server at this unix socket"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _origin(error: asyncpg.PostgresError) -> str:
    """What tells errors of one code apart: the server's routine, or a constraint that is ours."""
    constraint = getattr(error, "constraint_name", None) or ""
    return (
        constraint
        if constraint.startswith("gateway_")
        else getattr(error, "server_source_function", None) or ""
    )


@contextlib.contextmanager
def translate(database: str) -> Iterator[None]:
    """Turn the driver's errors into :class:`gateway.errors.StoreError` inside the block."""
    try:
        yield
    except Exception as error:
        translated = translate_error(error, database)
        if translated is None:
            raise
        try:
            raise translated from error
        finally:
            del translated  # it knows this frame: they would keep each other, and the batch of a frame above


@contextlib.contextmanager
def statement(name: str) -> Iterator[None]:
    """Name the statement in the errors of the block; inside of :func:`translate`."""
    try:
        yield
    except asyncpg.PostgresError as error:
        error.add_note(name)
        raise


@contextlib.contextmanager
def hanging_up(connection: asyncpg.Connection) -> Iterator[None]:
    """Whoever gives up waiting inside hangs up: the server may never answer, and the driver would wait for it again."""
    try:
        yield
    except (asyncio.CancelledError, TimeoutError):
        connection.terminate()
        raise


@contextlib.asynccontextmanager
async def transaction(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """All of the block or nothing; the ROLLBACK of a server that does not answer is not waited for."""
    work = connection.transaction()
    await work.start()
    try:
        with hanging_up(connection):
            yield
    except BaseException:
        if not connection.is_closed():
            await work.rollback()
        raise
    else:
        await work.commit()


def require_replicated(connection: sessions.ServerSession, database: str) -> None:
    """See that all commits of the session are where the server says that a commit has to be.

    Raises:
        TransientError: one is at the primary only, to be tried again by another session.
    """
    if connection.unreplicated:
        raise errors.TransientError(
            f"{database}: committed at the primary only: the wait for its synchronous standby was cancelled "
            "(pg_cancel_backend); tried again until a standby has it"
        )


@contextlib.asynccontextmanager
async def tried_out(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """The block in a transaction that leaves nothing."""
    work = connection.transaction()
    await work.start()
    try:
        with hanging_up(connection):
            yield
    finally:
        if not connection.is_closed():
            await work.rollback()


async def connect(
    database: settings.DatabaseSettings, *, application_name: str, name: str = "", any_encoding: bool = False
) -> sessions.ServerSession:
    """One connection, to the first of the DSN's hosts that is what it asks for; driver errors come out translated.

    ``synchronous_commit`` is raised to ``on`` where the server's default is ``off``: an acknowledgement must not
    outlive its row.

    Args:
        any_encoding: whether a database that is not UTF-8 will do.

    Raises:
        StoreError: the database cannot be reached or refuses us.
        ConfigurationError: the DSN is no DSN or asks for what cannot be had, or the password file cannot be read.
    """
    label = f"{name or application_name} at {dsn.server_name(database)}"
    with translate(label):
        return await _dial(database, application_name, label, any_encoding)


async def _dial(
    database: settings.DatabaseSettings, application_name: str, label: str, any_encoding: bool
) -> sessions.ServerSession:
    password = database.secret()
    try:
        target = libpq.read(database)
        given = {"application_name": application_name, **target.server_settings, "timezone": "UTC"}
        arguments = {
            "command_timeout": database.command_timeout or None,
            "server_settings": given,
            **({"password": password} if password is not None else {}),
        }
        return await sessions.Dialling(target, label, arguments, any_encoding=any_encoding).session()
    except errors.ConfigurationError as error:
        raise errors.ConfigurationError(f"the DSN of {application_name} cannot be used: {error}") from None
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise errors.ConfigurationError(f"the DSN of {application_name} cannot be used: {error}") from None
    except asyncpg.PostgresError as error:
        if not sessions.is_of_an_option(error):
            raise
        raise errors.ConfigurationError(
            f"{label}: {error}: an option of the DSN is neither libpq's nor a setting of the server, or a pooler does "
            "not pass it on; take it out of the DSN"
        ) from error


async def _is_of_use(held: sessions.ServerSession) -> bool:
    """Whether the session stands, and with a server that is what it was; else it is closed."""
    over = held.is_over
    if not over and time.monotonic() - held.looked_at >= _LOOK_EVERY:
        try:
            with translate("of use"), hanging_up(held):
                over = await held.has_changed()
        except errors.StoreError:
            over = True
    if over:
        held.terminate()
    return not over


class Pool:
    """A few connections to one database, opened when first needed and again after they broke."""

    def __init__(self, name: str, database: settings.DatabaseSettings, *, size: int = 2) -> None:
        self.name = name
        self._database = database
        self._free: asyncio.LifoQueue[sessions.ServerSession | None] = asyncio.LifoQueue()
        for _ in range(size):
            self._free.put_nowait(None)
        self._size = size

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[sessions.ServerSession]:
        """A connection for the block; errors inside come out translated, a broken connection is not kept."""
        held = await self._free.get()
        try:
            if held is None or not await _is_of_use(held):
                held = await connect(self._database, application_name=f"gateway-{self.name}", name=self.name)
            try:
                with translate(self.name), hanging_up(held):
                    yield held
            except errors.StandingError as error:
                if error.sqlstate == READ_ONLY:  # another host may be the primary now
                    held.terminate()
                raise
        finally:
            self._free.put_nowait(held)

    async def close(self) -> None:
        """Close all connections; those in use are waited for."""
        for _ in range(self._size):
            held = await self._free.get()
            if held is not None and not held.is_closed():
                held.terminate()
