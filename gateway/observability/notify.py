"""Tell systemd how the daemon fares: ``sd_notify(3)``, the protocol only, over its datagram socket.

Without ``NOTIFY_SOCKET`` in the environment everything here does nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Self

from gateway.observability import events


class Notify:
    """The line to systemd. Calls never block and never raise: without a listener the daemon goes on."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._interval = _interval(environment)
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @property
    def interval(self) -> float | None:
        """Seconds between two signs of life: half of what systemd allows; None: it asks for none."""
        return self._interval if self._socket else None

    def ready(self, status: str) -> None:
        """Start-up is over."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(_status(text))

    def stopping(self) -> None:
        """The daemon has begun to stop."""
        self._send("STOPPING=1", _status("stopping"))

    async def watch(self) -> None:
        """Signs of life as long as the event loop runs; returns at once when systemd asks for none."""
        while self.interval is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.interval)

    def close(self) -> None:
        """Say nothing more. Idempotent."""
        if self._socket:
            self._socket.close()
        self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _send(self, *lines: str) -> None:
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            events.notify_failed(error=str(error))


def _address(text: str) -> str | None:
    """``/path``, or ``@name`` in the abstract namespace; vsock is for whole machines, not for daemons."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _interval(environment: Mapping[str, str]) -> float | None:
    allowed = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0 or meant_for not in ("", str(os.getpid())):
        return None
    return int(allowed) / 1_000_000 / 2


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())
