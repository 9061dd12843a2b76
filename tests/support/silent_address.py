"""An address of loopback that takes no connection and refuses none: it drops SYN, as a firewall does."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

SILENT = "127.0.0.2"


@contextlib.contextmanager
def silent(port: int) -> Iterator[str]:
    """Make this port of :data:`SILENT` silent: its backlog is full, and Linux drops what comes then."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind((SILENT, port))
        listener.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((SILENT, port))
        yield SILENT


def resolve_to(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    """The broker's name has these addresses, in this order; uvloop resolves by libuv, which knows no patch."""

    async def resolve(_host: str, port: int) -> list[Any]:
        return [
            found
            for address in addresses
            for found in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        ]

    monkeypatch.setattr("gateway.mqtt.dial._addresses", resolve)
