"""Ctrl-C, SIGTERM, and a terminal that is closed."""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """While entered, signals end the tool in order.

    Where somebody waits for it (``patient``), the first signal is a polite request; otherwise, and the second time,
    the running task is cancelled, which stops all parts too but proves nothing.
    """

    def __init__(self) -> None:
        self.patient = False
        self._asked = asyncio.Event()
        self._task = asyncio.current_task()

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    async def asked(self, timeout: float | None = None) -> bool:
        """Whether somebody asked to stop; waits for that, at most ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self._asked.wait()
        except TimeoutError:
            return False

    def _signalled(self) -> None:
        if self.patient and not self._asked.is_set():
            self._asked.set()
        elif self._task is not None:
            self._task.cancel()
