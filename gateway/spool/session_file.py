"""The state of a client id's session beside its spool: known although no database is there."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.errors import SpoolError
from gateway.sessions.tracking import SessionState
from gateway.spool.disk import SESSION, Disk


class SessionFile:
    """Satisfies :class:`gateway.sessions.tracking.Store`. The folder must be open."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def load(self) -> SessionState | None:
        """What is kept; None: nothing, or nothing that can be read."""
        return self.read()

    def read(self) -> SessionState | None:
        """The same at once."""
        try:
            return msgspec.json.decode(self._disk.read_all(SESSION), type=SessionState)
        except (
            OSError,
            ValueError,
        ):  # also of a file that is damaged: no UTF-8, or numbers that no session has
            return None

    async def save(self, state: SessionState) -> None:
        """Make it durable.

        Raises:
            SpoolError: the disk failed.
        """
        try:
            await asyncio.to_thread(self._disk.replace, SESSION, msgspec.json.encode(state))
        except OSError as error:
            raise SpoolError(f"spool.folder {self._disk.folder}: {error.strerror or error}") from error
