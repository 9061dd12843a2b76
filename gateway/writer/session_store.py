"""The state of a client id's session in the time-series database."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from gateway import clock
from gateway.sessions.tracking import SessionState

_COLUMNS = "session, confirmed, in_turn, changed_at, filters, in_use"
_LOAD = f"SELECT {_COLUMNS} FROM mqtt_sessions WHERE client_id = $1"
_SAVE = """
INSERT INTO mqtt_sessions (client_id, gateway, session, confirmed, in_turn, changed_at, filters, in_use)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (client_id) DO UPDATE
SET gateway = $2, session = $3, confirmed = $4, in_turn = $5, changed_at = $6, filters = $7, in_use = $8
"""
_LIST = f"SELECT client_id, gateway, {_COLUMNS} FROM mqtt_sessions ORDER BY client_id"
Connect = Callable[[], AbstractAsyncContextManager[Any]]


class Kept(NamedTuple):
    """The state of one client id's session, and the gateway that it is of."""

    client_id: str
    gateway: str
    state: SessionState


async def all_kept(connect: Connect) -> list[Kept]:
    """The sessions of all client ids, of all gateways on this database.

    Raises:
        StoreError: they cannot be read now.
    """
    async with connect() as connection:
        rows = await connection.fetch(_LIST)
    return [Kept(row["client_id"], row["gateway"], _state(row)) for row in rows]


class SessionTable:
    """Satisfies :class:`gateway.sessions.tracking.Store`.

    Args:
        gateway: that the client id is of.
        connection: of a pool; its errors are StoreErrors.
    """

    def __init__(self, client_id: str, gateway: str, connection: Connect) -> None:
        self._client_id, self._gateway, self._connection = client_id, gateway, connection

    async def load(self) -> SessionState | None:
        """What is kept; None: nothing."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_LOAD, self._client_id)
        return None if row is None else _state(row)

    async def save(self, state: SessionState) -> None:
        """Make it durable."""
        session, at = uuid.UUID(bytes=state.session), clock.to_datetime(state.at_us)
        async with self._connection() as connection:
            await connection.execute(
                _SAVE,
                *(self._client_id, self._gateway, session, state.confirmed, state.in_turn, at),
                *(list(state.filters), state.in_use),
            )


def _state(row: Any) -> SessionState:
    at_us = clock.from_datetime(row["changed_at"])
    filters = tuple(row["filters"])
    return SessionState(row["session"].bytes, row["confirmed"], row["in_turn"], at_us, filters, row["in_use"])
