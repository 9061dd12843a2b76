"""Real processes that tests start, stop, kill and freeze, with their logs kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.support import run
from tests.support.waiting import eventually

STOP_TIMEOUT = 30.0
LIVE: list[Process] = []
"""Every process of this test session that was not closed: their logs are shown when a test fails."""


class Process:
    """One program, started and stopped any number of times; its folder and log outlive each run.

    Args:
        name: shown in reports and in the folder's name.
        parent: in which the run has its folder; where temporary files are by default.
    """

    def __init__(self, name: str, *, parent: Path | None = None) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"gateway-test-{name}-", dir=run.folder(parent)))
        self.log = self.folder / "log.txt"
        self.log.touch()
        self._process: subprocess.Popen[bytes] | None = None
        LIVE.append(self)

    def command(self) -> Sequence[str]:
        """What is run."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """The program's whole environment."""
        return os.environ

    def is_ready(self) -> bool:
        """Whether the program does its work; asked until it does."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """Process id of the running program."""
        return self._running.pid

    @property
    def running(self) -> bool:
        """Whether the program runs (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def memory(self) -> int:
        """Resident bytes of the running program, without its children."""
        found: int = psutil.Process(self.pid).memory_info().rss
        return found

    def start(self, *, timeout: float = 60.0) -> Self:
        """Start and wait until ready."""
        self.launch()
        eventually(self._ready_or_dead, timeout=timeout, what=f"{self.name} ready; log: {self.folder}")
        assert self.running, f"{self.name} ended with {self._running.returncode} at start:\n{self.tail()}"
        return self

    def launch(self) -> None:
        """Start, and wait for nothing."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
                user=self._user(),
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself."""
        self._running.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Its exit code, once it ended by itself (negative: the signal that ended it).

        Raises:
            AssertionError: it goes on.
        """
        try:
            return self._running.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {timeout:g} s:\n{self.tail()}") from None

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """Ask it to end (SIGTERM) and wait; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL, and wait until it and its children are gone."""
        family = self._family()
        self.signal(signal.SIGKILL)
        self.wait()
        _, alive = psutil.wait_procs(family[1:], timeout=STOP_TIMEOUT)
        assert not alive, f"children of {self.name} outlived it: {alive}"

    def suspend(self) -> None:
        """Freeze the program and its children (SIGSTOP): they answer nothing, and no connection breaks."""
        self._each(psutil.Process.suspend)

    def resume(self) -> None:
        """Undo :meth:`suspend`."""
        self._each(psutil.Process.resume)

    def close(self) -> None:
        """End it however it is, and remove its folder."""
        if self.running:
            self._each(psutil.Process.kill)
            self.wait()
        if self in LIVE:
            LIVE.remove(self)
        shutil.rmtree(self.folder, ignore_errors=True)

    def tail(self, characters: int = 6000, since: int = 0) -> str:
        """The end of the log, of what was written from byte ``since`` on."""
        with self.log.open("rb") as log:
            log.seek(max(since, self.log_size() - characters))
            return log.read().decode("utf-8", "replace")

    def log_size(self) -> int:
        """Bytes in the log."""
        return self.log.stat().st_size

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    def _user(self) -> int | None:
        """Whom it runs as; None: as ourselves."""
        return None

    def _each(self, action: Callable[[psutil.Process], None]) -> None:
        for member in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):  # children come and go
                action(member)

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def _ready_or_dead(self) -> bool:
        return not self.running or self.is_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
