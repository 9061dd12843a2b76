"""Rivals that bring a table of their own: started, seen to fill it, stopped, the table dropped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from gateway.storage import engines, migrate
from gateway.tools.bench import drains
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import Drained
from gateway.tools.bench.sight import Sight
from gateway.tools.servers.part import Part

MOST = 100_000
"""They are slow, and their rates do not depend on the length of the backlog."""


async def drain(bench: Bench, part: Part, command: Sequence[str | Path], table: str, count: int) -> Drained:
    """Run the command until the table has ``count`` rows."""
    async with migrate.session("timeseries", bench.installation.timeseries) as connection:
        started = time.monotonic()
        await part.start(command)
        try:
            assert part.pid is not None
            look = drains.observe(bench, Sight(connection, table), count, started=started, pid=part.pid)
            return await bench.watching(look, part)
        finally:
            await part.stop()
            await connection.execute(f"DROP TABLE IF EXISTS {table}")


async def execute(bench: Bench, *statements: str) -> None:
    """As the owner of the time-series database."""
    async with migrate.session("timeseries", bench.installation.timeseries) as connection:
        for statement in statements:
            await connection.execute(statement)


async def hypertables(bench: Bench) -> bool:
    """Whether the rivals' tables should be such, as the gateway's are."""
    async with migrate.session("timeseries", bench.installation.timeseries) as connection:
        return (await engines.detect(connection)).name == "timescaledb"
