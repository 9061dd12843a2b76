"""Waiting for the broker's answer, or for the end of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.errors import GatewayError

T = TypeVar("T")
Ended = asyncio.Future[GatewayError]
"""Resolved once a connection is over, with the reason."""


async def either(awaited: asyncio.Future[Any], ended: Ended, timeout: float | None = None) -> bool:
    """Wait for this or for the end; False: neither came in time."""
    both: list[asyncio.Future[Any]] = [awaited, ended]
    done, _ = await asyncio.wait(both, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


async def answer(
    awaited: asyncio.Future[T], ended: Ended, *, timeout: float, progress: Callable[[], object]
) -> T:
    """The answer, however late, as long as something else moves meanwhile: it may come behind a backlog.

    Args:
        timeout: seconds without progress.
        progress: what changes as long as things move.

    Raises:
        GatewayError: the connection ended; the reason.
        TimeoutError: no answer, and nothing moved.
    """
    before = progress()
    while not await either(awaited, ended, timeout):
        now = progress()
        if now == before:
            raise TimeoutError
        before = now
    if ended.done():
        raise ended.result()
    return awaited.result()
