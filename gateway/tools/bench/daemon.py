"""The gateway under test: ``gateway run``, a process as in production, with everything on."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway import settings
from gateway.errors import GatewayError, UsageError
from gateway.observability import ask
from gateway.tools.bench import usage, written
from gateway.tools.servers.part import Part

_READY_WITHIN = 60.0
_LAST_WORDS = 6
"""Lines of its log."""


class MeasuredDaemon:
    """Runs inside the block; it must end clean, with everything settled.

    Attributes:
        part: the process.
        started: when (``time.monotonic``).
        peak_bytes: the most memory that was resident, once it is stopped.
    """

    def __init__(self, options: settings.Settings, folder: Path) -> None:
        self.part = Part("the gateway", folder / "gateway.log")
        self.started = 0.0
        self.peak_bytes = math.nan
        self._url = ask.address(options.observability)
        self._config = written.write_private(folder / "gateway.toml", written.toml(options))

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.part.pid is not None
        return self.part.pid

    async def __aenter__(self) -> Self:
        self.started = time.monotonic()
        await self.part.start([sys.executable, "-m", "gateway", "run", "--config", self._config])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.part.stop(timeout=5)
            return
        self.peak_bytes = usage.peak_bytes(self.pid)
        code = await self.part.stop()
        if code != 0:
            said = self.part.log.read_text("utf-8", "replace").splitlines()[-_LAST_WORDS:]
            raise GatewayError("\n  ".join([f"the gateway ended with exit code {code} and said:", *said]))

    async def ready(self) -> None:
        """Wait until it takes messages.

        Raises:
            StartError: it does not come so far.
        """
        await self.part.until(self._is_ready, _READY_WITHIN)

    async def status(self) -> dict[str, Any] | None:
        """What ``/status`` says; None: it does not answer."""
        try:
            return await ask.ask(self._url)
        except UsageError:
            return None

    async def _is_ready(self) -> bool:
        status = await self.status()
        return status is not None and bool(status["ready"])
