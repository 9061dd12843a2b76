"""SQL from tests that have no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import asyncpg

T = TypeVar("T")


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread with an event loop of its own, whatever runs in ours."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def query(dsn: str, statement: str, *arguments: Any) -> list[Any]:
    """The rows of one statement, on a connection of its own. Driver errors pass as they are."""

    async def fetch() -> list[Any]:
        connection = await asyncpg.connect(dsn, timeout=10, command_timeout=120)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close(timeout=5)

    return wait_for(fetch())


def scalar(dsn: str, statement: str, *arguments: Any) -> Any:
    """The first column of the first row; None without rows."""
    rows = query(dsn, statement, *arguments)
    return rows[0][0] if rows else None


def execute(dsn: str, script: str) -> None:
    """One or more statements without parameters."""

    async def run() -> None:
        connection = await asyncpg.connect(dsn, timeout=10, command_timeout=120)
        try:
            await connection.execute(script)
        finally:
            await connection.close(timeout=5)

    wait_for(run())


@contextlib.contextmanager
def locked(dsn: str, *tables: str, mode: str = "EXCLUSIVE") -> Iterator[None]:
    """Another's transaction holds these tables; nothing can be written to them meanwhile, unless ``mode`` lets it."""
    ready, over = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(dsn, timeout=10)
        await connection.execute(f"BEGIN; LOCK TABLE {', '.join(tables)} IN {mode} MODE")
        ready.set()
        over.wait(600)
        await connection.close(timeout=5)

    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(wait_for, hold())
        try:
            assert ready.wait(20), "the tables are locked"
            yield
        finally:
            over.set()
            held.result()


def without_trigger(function: str, table: str = "telemetry") -> str:
    """The statements that take this trigger function from the table, beside those that write.

    The table is locked first, as writers do: DROP … CASCADE begins with its partitions, and would wait in a circle.
    """
    return f"BEGIN; LOCK TABLE {table}; DROP FUNCTION IF EXISTS {function} CASCADE; COMMIT"
