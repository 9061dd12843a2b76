"""Wait for conditions, never for luck."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
_BELOW_EPHEMERAL = range(12_000, 32_000)
"""The kernel gives away those from 32 768 on (Linux, ``ip_local_port_range``)."""
_WORKERS = 16


def eventually(
    condition: Callable[[], T], *, timeout: float = 10.0, every: float = 0.02, what: str = ""
) -> T:
    """The condition's first true value.

    A condition that raises is taken as not yet true; the last error is named when time is up.

    Raises:
        AssertionError: it did not come true within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        found, seen = _attempt(condition)
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}; last seen: {seen!r}")
        time.sleep(every)


def _attempt(condition: Callable[[], T]) -> tuple[T | None, object]:
    try:
        found = condition()
    except (OSError, AssertionError, LookupError, ValueError) as error:
        return None, error
    return found, found


def steadily(claim: Callable[[], object], *, seconds: float, every: float = 0.2) -> None:
    """Check a claim, which raises when it does not hold, again and again for this long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        claim()
        time.sleep(every)


async def eventually_async(
    condition: Callable[[], T | Awaitable[T]], *, timeout: float = 10.0, every: float = 0.01, what: str = ""
) -> T:
    """Like :func:`eventually`, leaving the event loop free; errors of the condition pass."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        value: T = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}; last seen: {value!r}")
        await asyncio.sleep(every)


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now, and that nothing else is given while its server is away.

    Not one of the kernel's choice: what it gives is free again, for another worker's server, as soon as a server stops,
    and a daemon that dials its broker again would be at that other one's.
    """
    return next(port for port in _ports if _is_free(port))


def _ports_of_this_worker() -> Iterator[int]:
    """In a circle that begins anywhere: another run may be on the machine."""
    share = len(_BELOW_EPHEMERAL) // _WORKERS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    own = _BELOW_EPHEMERAL[worker * share : (worker + 1) * share]
    start = random.randrange(share)
    return itertools.cycle([*own[start:], *own[:start]])


_ports = _ports_of_this_worker()


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def listening(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
