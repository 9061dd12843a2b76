"""The plain bridge: what people write in an afternoon, with the same libraries."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from gateway.tools.bench import drains, shape, written
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import Drained
from gateway.tools.bench.shape import Shape
from gateway.tools.servers.part import Part
from tests.benchmarks.rivals import bridge_script

_MOST = 100_000
"""It is slow, and its rate does not depend on the length of the backlog."""


class Bridge:
    """One process; it writes into the same table."""

    name = "plain bridge"

    def missing(self) -> str | None:
        """Its libraries are the gateway's own."""
        return None

    async def drain(self, bench: Bench, kind: Shape, count: int) -> Drained:
        """Whole portions only: it has no clock that would send an incomplete one."""
        count = max(min(count, _MOST) // bridge_script.ROWS_AT_ONCE, 1) * bridge_script.ROWS_AT_ONCE
        client_id = await bench.backlog(kind, count, "bridge")
        job = json.dumps(await _job(bench, kind, client_id))
        file = written.write_private(bench.folder / "bridge.json", job)
        part, started = Part("the plain bridge", bench.folder / "bridge.log"), time.monotonic()
        await part.start([sys.executable, Path(bridge_script.__file__), file])
        try:
            assert part.pid is not None
            look = drains.observe(bench, bench.sight, count, started=started, pid=part.pid)
            return await bench.watching(look, part)
        finally:
            await part.stop()


async def _job(bench: Bench, kind: Shape, client_id: str) -> dict[str, Any]:
    database = bench.installation.timeseries
    serials = [shape.LAST, *map(shape.serial, range(kind.devices))]
    return {
        "host": bench.mqtt.host,
        "port": bench.mqtt.port,
        "client_id": client_id,
        "dsn": database.dsn.get_secret_value(),
        "password": database.secret(),
        "tenant": str(bench.scratch.tenant),
        "devices": await bench.scratch.ids(serials),
    }
