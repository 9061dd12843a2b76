"""Named tasks with one watcher, and the signals that stop a daemon."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


class TaskGuard:
    """Runs named tasks; the death of one is the death of all, never silence."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task."""
        self._tasks.add(asyncio.create_task(work, name=name))

    async def watch(self, stop: asyncio.Event) -> None:
        """Return when ``stop`` is set.

        Raises:
            BaseException: what a task died of; its name is in a note. A task that returns is let go.
        """
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            while not stopping.done():
                await asyncio.wait({stopping, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in self._tasks if task.done()]:
                    self._tasks.discard(task)
                    _raise_what_killed(task)
        finally:
            stopping.cancel()

    async def cancel(self) -> None:
        """End all tasks and wait for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


def _raise_what_killed(task: asyncio.Task[None]) -> None:
    error = task.exception()
    if error is not None:
        error.add_note(f"in the task {task.get_name()!r}")
        raise error


class Signals:
    """SIGTERM and SIGINT: the first asks to stop, the second to stop at once.

    Attributes:
        stop: set by the first.
        at_once: set by the second.
    """

    def __init__(self) -> None:
        self.stop, self.at_once = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self.at_once if self.stop.is_set() else self.stop).set()
