"""Dead letters that are older than ``dead_letters.keep`` are deleted, some at a time."""

from __future__ import annotations

import asyncio
import datetime as dt

from gateway import errors
from gateway.observability import events
from gateway.storage import pools
from gateway.writer import dead_letter_sql

_AT_ONCE = 1000
_NEXT_SECONDS, _EVERY_SECONDS = 0.2, 300.0


class DeadLetterPurge:
    """Purges; several gateways of a database may at once.

    Args:
        keep: seconds.
    """

    def __init__(self, pool: pools.Pool, keep: float) -> None:
        self._pool, self._keep = pool, keep
        self._failed = ""

    async def run(self) -> None:
        """Run until cancelled. A failure is told once, and nothing waits for it."""
        while True:
            try:
                more = await self.once() == _AT_ONCE
                self._failed = ""
            except errors.StoreError as error:
                more = False
                self._tell(error)
            await asyncio.sleep(_NEXT_SECONDS if more else _EVERY_SECONDS)

    async def once(self) -> int:
        """Delete some of the oldest; how many.

        Raises:
            StoreError: none was deleted.
        """
        before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=self._keep)
        async with self._pool.connection() as connection:
            purged: int = await connection.fetchval(dead_letter_sql.PURGE, before, _AT_ONCE)
        return purged

    def _tell(self, error: errors.StoreError) -> None:
        text = f"old dead letters are not deleted: {error}"
        events.store_failed(
            database="timeseries",
            verdict="transient",
            sqlstate=error.sqlstate,
            error=text,
            retry_in=_EVERY_SECONDS,
            news=text != self._failed,
        )
        self._failed = text
