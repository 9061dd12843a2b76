"""``memory``: the most that the gateway ever has resident, where it could grow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from gateway.storage import dsn, migrate
from gateway.tools.bench import drains
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.results import Findings, Table
from gateway.tools.bench.shape import Shape

_MIB = 2**20
_BACKENDS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = $1 AND application_name LIKE 'gateway-%' AND usename <> current_user
"""


async def run(bench: Bench) -> Findings:
    """One case after the other."""
    options, rows, notes = bench.options, [], ["peak: VmHWM of the process, from its start"]
    for kind in (Shape(), Shape(devices=options.devices)):
        bench.tell(f"memory: backlog, {kind}")
        count = max(options.messages, kind.devices + 1)
        drained = await drains.drain(bench, kind, count)
        rows.append((f"backlog ({kind})", count, drained.peak_bytes / _MIB))
    if bench.installation.own:
        bench.tell("memory: time-series database away")
        rows.append(await _away(bench))
    else:
        notes.append("not run: database away: it is yours to stop")
    return Findings([Table("memory", "peak of memory", ("what", "messages", "peak MiB"), rows, notes)])


async def _away(bench: Bench) -> tuple[Any, ...]:
    """Everything is published while the database takes no connection, and stored when it does again."""
    count, kind = bench.options.messages, Shape()
    await bench.scratch.empty()
    async with bench.running() as daemon:
        async with _no_connections(bench):
            await bench.publish(kind, count)
            await asyncio.sleep(bench.options.seconds)
        await bench.watching(bench.sight.all(count, bench.patience(count)), daemon.part)
    what = f"database away for {bench.options.seconds:.0f} s after a load ({kind})"
    return (what, count, daemon.peak_bytes / _MIB)


@contextlib.asynccontextmanager
async def _no_connections(bench: Bench) -> AsyncIterator[None]:
    """The time-series database ends the gateway's connections, and takes no new ones."""
    name = dsn.database_name(bench.installation.timeseries)
    async with migrate.session("metadata", bench.installation.metadata) as connection:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            await connection.execute(_BACKENDS, name)
            yield
        finally:
            await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
