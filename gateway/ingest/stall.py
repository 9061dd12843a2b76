"""Notices that nothing moves although everything should, and ends a process whose event loop stands still."""

from __future__ import annotations

import asyncio
import faulthandler
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.observability import events
from gateway.observability.health import ComponentState, Health
from gateway.outcomes import Tally

_EVERY_SECONDS = 1.0
_OLDEST = 10


class WatchedPath(Protocol):
    """What is watched."""

    def oldest(self, count: int) -> list[dict[str, object]]:
        """The oldest messages received and not settled; none: nothing is held."""

    def progress_marker(self) -> object:
        """Another value as soon as a batch under way gets on."""


class ReconnectableSource(Protocol):
    """What is made anew."""

    def reconnect(self, reason: str) -> None:
        """Drop the connection and make a new one."""


class StallWatchdog:
    """Messages held, servers up, nothing settled for ``limit`` seconds: unready, told, and the connection made anew.

    The broker then delivers the unacknowledged messages again, which mends whatever was lost on our side of the wire.

    Args:
        source: None: there is no connection to make anew, as for the drain of a spool.
        name: of the component that is unready.
        servers: components without which nothing is expected to move.
    """

    def __init__(
        self,
        held: WatchedPath,
        source: ReconnectableSource | None,
        tallies: Mapping[str, Tally],
        health: Health,
        *,
        limit: float,
        name: str = "progress",
        servers: Sequence[str] = ("metadata", "mqtt", "timeseries"),
    ) -> None:
        self._held, self._source, self._tallies, self._servers = held, source, tallies, servers
        self._health, self._state, self._limit = health, health.component(name), limit
        self._seen: object = None
        self._since = 0.0

    async def watch(self) -> None:
        """Task: look once a second."""
        while True:
            self.look(time.monotonic())
            await asyncio.sleep(_EVERY_SECONDS)

    def look(self, now: float) -> None:
        """Compare with the last look."""
        settled = sum(sum(tally.settled.values()) for tally in self._tallies.values())
        seen = (settled, self._held.progress_marker())
        if seen != self._seen or not self._servers_up() or not self._held.oldest(1):
            self._seen, self._since = seen, now
            self._state.ready()
        elif now - self._since >= self._limit:
            self._give_up(now)

    def _servers_up(self) -> bool:
        return all(self._health.component(name).state is ComponentState.READY for name in self._servers)

    def _give_up(self, now: float) -> None:
        seconds, self._since = now - self._since, now
        oldest = self._held.oldest(_OLDEST)
        events.no_progress(what=self._state.name, seconds=seconds, oldest=oldest)
        reason = f"nothing settled for {seconds:.0f} s although all servers work (watchdog.no_progress)"
        self._state.failed(reason)
        if self._source is not None:
            self._source.reconnect(reason)


async def end_when_hung(limit: float | None) -> None:
    """Task: the process ends, with exit code 1 and a traceback, when the event loop does not come back for ``limit``.

    A thread of the interpreter's own sees to that, which needs nothing that Python code could hold.
    """
    try:
        while limit is not None:
            faulthandler.dump_traceback_later(limit, exit=True)
            await asyncio.sleep(limit / 4)
    finally:
        faulthandler.cancel_dump_traceback_later()
