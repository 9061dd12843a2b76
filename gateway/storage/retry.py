"""Tries while servers are away: hold, back off, say what is waited for, go on when they are back.

Several tasks share one: the component is ready again when none of them waits any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from gateway import errors
from gateway.backoff import Backoff
from gateway.observability import events, health
from gateway.storage import sqlstate

_BOUND_UNKNOWN = 3.0
"""Seconds, at most, for an error of which nothing says that it passes: the statement itself may be to blame."""


class Retrying:
    """Tries until it works, and keeps the component's state true meanwhile.

    Args:
        shortest, longest: seconds between tries after a transient error.
        standing: seconds between tries after an error that an operator must mend.
        bound: seconds after which a transient error is raised; a standing one is raised at once. None: never.
    """

    def __init__(
        self,
        component: health.Component,
        *,
        shortest: float,
        longest: float,
        standing: float,
        bound: float | None = None,
    ) -> None:
        self._bound = bound
        self._component = component
        self._shortest, self._longest, self._standing = shortest, longest, standing
        self._waiting: dict[object, str] = {}
        self._away_since: float | None = None

    async def until_done(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Call ``attempt`` until it raises no :class:`gateway.errors.StoreError`, or for as long as patience lasts.

        A secret's file that cannot be read just now (a rotation) is for an operator to mend, and no end of a daemon.
        """
        task = object()
        try:
            await self._try(task, attempt)
        finally:
            self._waiting.pop(task, None)
        if not self._waiting:
            self._back()

    def report_failure(self, work: object, error: errors.StoreError) -> None:
        """Work is held because of this error, with no task of its own that tries; until :meth:`report_recovery`."""
        self._away(
            id(work), error, "standing" if isinstance(error, errors.StandingError) else "transient", 0.0
        )

    def report_recovery(self, work: object) -> None:
        """It is not held any more, or is tried again, which will report what it meets."""
        if self._waiting.pop(id(work), None) is not None and not self._waiting:
            self._back()

    async def _try(self, task: object, attempt: Callable[[], Awaitable[None]]) -> None:
        backoff, began = Backoff(self._shortest, self._longest), time.monotonic()
        while True:
            try:
                await attempt()
            except (errors.StandingError, errors.ConfigurationError) as error:
                if self._bound is not None:
                    raise
                wait = self._standing
                self._away(task, error, "standing", wait)
            except errors.StoreError as error:
                wait = backoff.next()
                self.give_up(error, time.monotonic() + wait - began)
                self._away(task, error, "transient", wait)
            else:
                return
            await asyncio.sleep(wait)

    def give_up(self, error: errors.StoreError, seconds: float) -> None:
        """Raise the error when it was, or would be, waited for longer than patience lasts."""
        if self._bound is None:
            return
        bound = self._bound if sqlstate.passes(error) else min(self._bound, _BOUND_UNKNOWN)
        if seconds > bound:
            raise type(error)(
                f"{error}; given up after {bound:g} s", error.sqlstate, of_all=error.of_all
            ) from error

    def _away(self, waiting: object, error: errors.GatewayError, verdict: str, wait: float) -> None:
        """Logs when something new is wrong, counts always."""
        text, component = str(error), self._component
        news = text not in (component.detail, *self._waiting.values())
        self._waiting[waiting] = text
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
