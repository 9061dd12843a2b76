"""Patience with servers that are away: hold, back off, say what is waited for, go on when they are back.

Several tasks share one: the component is ready again when none of them waits any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from gateway import errors
from gateway.backoff import Backoff
from gateway.observability import events, health


class Patience:
    """Tries until it works, and keeps the component's state true meanwhile.

    Args:
        shortest, longest: seconds between tries after a transient error.
        standing: seconds between tries after an error that somebody must mend.
    """

    def __init__(
        self, component: health.Component, *, shortest: float, longest: float, standing: float
    ) -> None:
        self._component = component
        self._shortest, self._longest, self._standing = shortest, longest, standing
        self._waiting: dict[object, str] = {}
        self._away_since: float | None = None

    async def until_done(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Call ``attempt`` until it raises no :class:`gateway.errors.StoreError`.

        A secret's file that cannot be read just now (a rotation) is for somebody to mend, and no end of a daemon.
        """
        who = object()
        try:
            await self._try(who, attempt)
        finally:
            self._waiting.pop(who, None)
        if not self._waiting:
            self._back()

    async def _try(self, who: object, attempt: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(self._shortest, self._longest)
        while True:
            try:
                await attempt()
            except (errors.StandingError, errors.ConfigurationError) as error:
                wait = self._standing
                self._away(who, error, "standing", wait)
            except errors.StoreError as error:
                wait = backoff.next()
                self._away(who, error, "transient", wait)
            else:
                return
            await asyncio.sleep(wait)

    def _away(self, who: object, error: errors.GatewayError, verdict: str, wait: float) -> None:
        """Logs when something new is wrong, counts always."""
        text, component = str(error), self._component
        news = text not in (component.detail, *self._waiting.values())
        self._waiting[who] = text
        (component.failed if verdict == "standing" else component.waiting)(text)
        if self._away_since is None:
            self._away_since = time.monotonic()
        events.store_failed(
            database=component.name,
            verdict=verdict,
            sqlstate=error.sqlstate if isinstance(error, errors.StoreError) else None,
            error=text,
            retry_in=wait,
            news=news,
        )

    def _back(self) -> None:
        if self._away_since is not None:
            events.store_recovered(database=self._component.name, seconds=time.monotonic() - self._away_since)
            self._away_since = None
        self._component.ready()
