"""mosquitto on a loopback port."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.errors import StartError
from gateway.tools.servers import privileges, programs
from gateway.tools.servers.part import Part
from gateway.tools.servers.ports import answers, free_port

IN_MEMORY = (
    "persistence false",
    "# What the gateway cannot take at once waits here; the default drops beyond 1000.",
    "max_queued_messages 0",
)
"""Nothing on disk, no limit to what waits."""


def program() -> Path | None:
    """The program; None: it is not installed."""
    return programs.find_program("mosquitto")


def configuration(port: int, *lines: str) -> str:
    """The text of its configuration: one listener, what it says on standard error, and these lines."""
    return "\n".join([f"listener {port} 127.0.0.1", "log_dest stderr", *lines]) + "\n"


class MosquittoServer:
    """Runs inside the block, for clients without credentials.

    Args:
        file: its configuration, which is written at the start.
        log: what it says goes there.
        lines: of the configuration.
    """

    name = "mosquitto"
    mqtt5 = True

    def __init__(self, file: Path, log: Path, *lines: str) -> None:
        self.port = free_port()
        self.part = Part(self.name, log)
        self._file, self._lines = file, lines

    async def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            StartError: it is not installed, or does not start; the text shows what it said.
        """
        found = program()
        if found is None:
            raise StartError("mosquitto is not on the PATH: install the package 'mosquitto'")
        self._file.write_text(configuration(self.port, "allow_anonymous true", *self._lines), "utf-8")
        await self.part.start([found, "-c", self._file], privileges.other_user(self._file, found))
        await self.part.until(lambda: answers(self.port), timeout=20)

    async def stop(self) -> None:
        """Stop it. Idempotent."""
        await self.part.stop()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
