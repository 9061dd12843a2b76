"""Looks at a daemon all the time, over all its lives: its books, whether it is ready, what it takes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil

from tests.support.daemon import Daemon

EVERY = 0.1
"""Seconds between looks: recovery times are as fine as that."""
ENDS = ("stored", "duplicate", "spooled", "dead_lettered", "ignored")


class Look(NamedTuple):
    """One look.

    Attributes:
        at: ``time.monotonic``.
        pid: of the life that was seen.
        total: the books of all streams.
        drained: how messages of the spool ended.
        memory: resident, bytes.
        descriptors: open files and sockets.
    """

    at: float
    pid: int
    ready: bool
    balanced: bool
    total: dict[str, int]
    drained: Counter[str]
    figures: dict[str, Any]
    memory: int
    descriptors: int

    @property
    def settled(self) -> int:
        """How often a message has come to an end in this life: in the spool, and once more when it is drained."""
        return sum(map(self.ended, ENDS))

    def ended(self, outcome: str) -> int:
        """Messages that ended so in this life."""
        return self.total[outcome] + self.drained[outcome]


class Watch:
    """A thread that looks until it is closed.

    Attributes:
        looks: all that was seen, the oldest first; while the daemon does not answer, nothing is.
    """

    def __init__(self, daemon: Daemon, *, every: float = EVERY) -> None:
        self._daemon, self._every = daemon, every
        self.looks: list[Look] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def lives(self) -> dict[int, Look]:
        """The last look at each life, by process id."""
        return {look.pid: look for look in list(self.looks)}

    def ended(self, outcome: str) -> int:
        """Messages that ended so in all lives; what one did after the last look at it is missing."""
        return sum(look.ended(outcome) for look in self.lives.values())

    @property
    def peak_memory(self) -> int:
        """The most resident bytes seen."""
        return max((look.memory for look in list(self.looks)), default=0)

    def unbalanced(self) -> list[Look]:
        """Looks that found the conservation law broken."""
        return [look for look in list(self.looks) if not look.balanced]

    def recovery(self, since: float, last: Look | None, noticed: Callable[[Look], bool]) -> float | None:
        """Seconds from ``since`` until it had noticed, was ready, and had settled more than at ``last``."""
        for look in list(self.looks):
            if last is not None and last.pid == look.pid and look.settled <= last.settled:
                continue
            if look.at > since and look.ready and look.settled and noticed(look):
                return look.at - since
        return None

    def last(self) -> Look | None:
        """The newest look."""
        return self.looks[-1] if self.looks else None

    def _run(self) -> None:
        while not self._over.wait(self._every):
            if (look := self._look()) is not None:
                self.looks.append(look)

    def _look(self) -> Look | None:
        """None when there is nothing to see: no process, no answer, another life meanwhile."""
        try:
            process = psutil.Process(self._daemon.pid)
            status = self._daemon.status()
            memory, descriptors = process.memory_info().rss, process.num_fds()
        except (OSError, ValueError, psutil.Error, AssertionError):
            return None
        if process.pid != self._daemon.pid or not self._daemon.running:
            return None
        drained: Counter[str] = sum(map(Counter, status["drained"].values()), Counter())
        return Look(
            at=time.monotonic(),
            pid=process.pid,
            ready=status["ready"],
            balanced=status["balanced"],
            total=status["total"],
            drained=drained,
            figures=status["figures"],
            memory=memory,
            descriptors=descriptors,
        )
