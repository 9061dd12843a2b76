"""The TCP connection to the broker. All addresses of its name share the time (RFC 8305): a silent one costs little."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohappyeyeballs

_NEXT_ADDRESS_SECONDS = 0.25
"""RFC 8305 §5: so long is one address tried alone."""


async def dial(host: str, port: int) -> socket.socket:
    """A connected socket that does not block: of the address that answers first.

    Raises:
        OSError: no address answers; the name has none.
        UnicodeError: the name is none.
    """
    made = await aiohappyeyeballs.start_connection(
        await _addresses(host, port), happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1
    )
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


async def _addresses(host: str, port: int) -> list[Any]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
