"""Keepalive: pings by the clock whatever happens, and a watch over the broker's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_SILENT_TICKS = 3
"""Ticks of half a keepalive without a byte after which the peer counts as dead: 1.5 to 2 keepalives."""


class Keepalive:
    """The keepalive of one connection.

    Silence is counted in ticks, not in seconds: after a stall of the event loop or of the machine, what the
    broker has sent meanwhile is read before the next tick.

    Args:
        keepalive: seconds, as agreed with the broker.
        ping: sends a PINGREQ.
        dead: called once the broker has been silent for 1.5 keepalives.
    """

    def __init__(self, keepalive: float, ping: Callable[[], None], dead: Callable[[], None]) -> None:
        self._interval = keepalive / 2
        self._ping, self._dead = ping, dead
        self._silent = 0
        self._watching = True
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._interval, self._tick)

    def heard(self) -> None:
        """Bytes came."""
        self._silent = 0

    def suspend(self) -> None:
        """Nobody reads now: silence means nothing. Pings go on."""
        self._watching = False

    def resume(self) -> None:
        """Silence counts again, from now on."""
        self._watching = True
        self._silent = 0

    def stop(self) -> None:
        """The connection is gone."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._silent += 1
        if self._watching and self._silent > _SILENT_TICKS:
            self._dead()
            return
        self._timer = self._loop.call_later(self._interval, self._tick)
        self._ping()
