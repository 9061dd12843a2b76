"""A part of a demo or a bench: a child process with its own log file, watched while it runs and surely ended after.

Each part is a session of its own, so that Ctrl-C reaches the tool alone, which then stops the parts in order.
Where ``setpriv`` is there, the kernel ends a part when the tool dies without a word (kill -9).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from gateway.errors import GatewayError, StartError
from gateway.tools.servers import privileges
from gateway.tools.servers.privileges import RunAs

T = TypeVar("T")


class PartEndedError(GatewayError):
    """A part ended by itself; the text shows its last words."""


class Part:
    """One child process.

    Attributes:
        name: for error texts.
        log: file that takes the output, started anew with each process.
    """

    def __init__(self, name: str, log: Path, *, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self.name, self.log = name, log
        self._stop_signal = stop_signal
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Process id; None of a part that was never started."""
        return self._process.pid if self._process else None

    async def start(self, command: Sequence[str | Path], run_as: RunAs | None = None) -> None:
        """Start the process.

        Raises:
            StartError: the program cannot be run.
        """
        wrapped = [*privileges.wrapper(run_as, self._stop_signal), *map(str, command)]
        nothing = asyncio.subprocess.DEVNULL
        try:
            with self.log.open("wb") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *wrapped, stdin=nothing, stdout=output, stderr=output, start_new_session=True
                )
        except OSError as error:
            raise StartError(f"cannot start {self.name}: {error}") from error

    async def until(self, ready: Callable[[], Awaitable[bool]], timeout: float) -> None:
        """Wait until the part works.

        Raises:
            StartError: it ended instead, or was not ready after ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await ready():
                    if not self.running:
                        raise StartError(self._obituary())
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = f"{self.name} is not ready after {timeout:.0f} s; {self._last_words()}"
            raise StartError(text) from None

    async def finish(self, timeout: float) -> None:
        """Wait until a part that ends by itself has done its work.

        Raises:
            StartError: it failed, or took more than ``timeout`` seconds.
        """
        assert self._process is not None
        try:
            async with asyncio.timeout(timeout):
                failed = await self._process.wait() != 0
        except TimeoutError:
            raise StartError(f"{self.name} took more than {timeout:.0f} s; {self._last_words()}") from None
        finally:
            await self.stop()
        if failed:
            raise StartError(self._obituary())

    async def ended(self) -> NoReturn:
        """Return never; raise when the process ends, which nobody asked it to.

        Raises:
            PartEndedError: with the exit code and the last lines of the log.
        """
        assert self._process is not None
        await self._process.wait()
        raise PartEndedError(self._obituary())

    async def stop(self, timeout: float = 30) -> int | None:
        """Ask the process to end, kill it when it has not after ``timeout`` seconds. Idempotent.

        Returns:
            The exit code, negative when a signal ended it; None when it was never started.
        """
        if self._process is None:
            return None
        try:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                self._process.send_signal(self._stop_signal)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._process.wait()
        finally:
            if self.running:
                self._process.kill()
        return await self._process.wait()

    def _obituary(self) -> str:
        code = self._process.returncode if self._process else None
        return f"{self.name} ended by itself with exit code {code}; {self._last_words()}"

    def _last_words(self, lines: int = 6) -> str:
        spoken = self.log.read_text("utf-8", "replace").splitlines()[-lines:]
        return "\n  ".join([f"the end of {self.log}:", *(spoken or ["(it said nothing)"])])


async def unless_ended(parts: Iterable[Part], work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; should one of the parts end first, its error instead."""
    working = asyncio.create_task(work)
    endings = [asyncio.create_task(part.ended()) for part in parts]
    try:
        await asyncio.wait([working, *endings], return_when=asyncio.FIRST_COMPLETED)
        if working.done() and working.exception() is not None:
            # A part that died is the better explanation, but may be noticed a little later.
            await asyncio.wait(endings, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        for ending in endings:
            if ending.done():
                ending.result()
        return await working
    finally:
        for task in (working, *endings):
            task.cancel()
        await asyncio.gather(working, *endings, return_exceptions=True)
