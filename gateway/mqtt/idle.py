"""Know that a socket has gone idle: the event loop has polled again and read nothing from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class IdleWatch:
    """Watches the reads of one connection.

    What ``call_soon`` holds runs between a poll and its reads (asyncio) or before the poll (uvloop): two hops
    span one poll and its reads in both.
    """

    def __init__(self, idle: Callable[[], None]) -> None:
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._reads = 0
        self._armed = False

    def read(self) -> None:
        """Bytes were read."""
        self._reads += 1

    def arm(self) -> None:
        """Messages came: report once that nothing follows."""
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._poll_once)

    def _poll_once(self) -> None:
        self._loop.call_soon(self._idle_unless_read, self._reads)

    def _idle_unless_read(self, reads: int) -> None:
        if reads != self._reads:
            self._loop.call_soon(self._poll_once)
            return
        self._armed = False
        self._idle()
