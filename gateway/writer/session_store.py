"""The state of a client id's session in the time-series database."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from gateway import clock
from gateway.sessions import State

_LOAD = "SELECT session, confirmed, in_turn, changed_at FROM mqtt_sessions WHERE client_id = $1"
_SAVE = """
INSERT INTO mqtt_sessions (client_id, session, confirmed, in_turn, changed_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (client_id) DO UPDATE SET session = $2, confirmed = $3, in_turn = $4, changed_at = $5
"""


class SessionTable:
    """Satisfies :class:`gateway.sessions.Store`.

    Args:
        connection: of a pool; its errors are StoreErrors.
    """

    def __init__(self, client_id: str, connection: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._client_id, self._connection = client_id, connection

    async def load(self) -> State | None:
        """What is kept; None: nothing."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_LOAD, self._client_id)
        if row is None:
            return None
        at_us = clock.from_datetime(row["changed_at"])
        return State(row["session"].bytes, row["confirmed"], row["in_turn"], at_us)

    async def save(self, state: State) -> None:
        """Make it durable."""
        session, at = uuid.UUID(bytes=state.session), clock.to_datetime(state.at_us)
        async with self._connection() as connection:
            await connection.execute(_SAVE, self._client_id, session, state.confirmed, state.in_turn, at)
