"""A bridge as people write it, on aiomqtt and asyncpg: a process of its own, until it is stopped.

    python tests/benchmarks/rivals/bridge_script.py job.json

It awaits one message at a time, and inserts a hundred rows at once. The library acknowledges messages as they come, so
what waits in memory is lost with the process.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

import aiomqtt
import asyncpg

ROWS_AT_ONCE = 100
_INSERT = "INSERT INTO telemetry (time, device_id, tenant_id, data) VALUES ($1, $2, $3, $4)"


async def bridge(job: dict[str, Any]) -> None:
    """Insert what comes."""
    connection = await asyncpg.connect(job["dsn"], password=job["password"])
    async with aiomqtt.Client(
        job["host"], job["port"], identifier=job["client_id"], clean_session=False
    ) as client:
        # The session holds the subscription; the answer to another SUBSCRIBE would come after the whole backlog.
        rows = []
        async for message in client.messages:
            serial_number = str(message.topic).split("/")[-1]
            reading = json.loads(message.payload)
            time = dt.datetime.fromtimestamp(reading["ts"] / 1000, dt.UTC)
            rows.append((time, job["devices"][serial_number], job["tenant"], json.dumps(reading["metrics"])))
            if len(rows) == ROWS_AT_ONCE:
                await connection.executemany(_INSERT, rows)
                rows = []


if __name__ == "__main__":
    asyncio.run(bridge(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
