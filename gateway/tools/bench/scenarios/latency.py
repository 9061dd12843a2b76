"""``latency``: from publishing to a committed row that others see, at rates from a few devices to a large fleet."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from gateway.errors import GatewayError
from gateway.storage import migrate
from gateway.tools.bench import shape
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.daemon import MeasuredDaemon
from gateway.tools.bench.orders import Published
from gateway.tools.bench.percentiles import percentile
from gateway.tools.bench.probes import Probes
from gateway.tools.bench.results import Findings, Table
from gateway.tools.bench.shape import Shape

RATES = (100, 2_000, 20_000)
_PROBES = 200
"""A second, at most."""
_COLUMNS = (
    "asked messages/s", "reached", "probes", "p50 ms", "p99 ms", "p99.9 ms", "worst ms", "broker's ack p50 ms",
    "broker's ack p99 ms",
)  # fmt: skip
_SHARES = (0.5, 0.99, 0.999, 1)


async def run(bench: Bench) -> Findings:
    """One rate after the other, with one gateway that has seen all devices before."""
    kind = Shape()
    rows = []
    async with (
        bench.running() as daemon,
        migrate.session("timeseries", bench.installation.timeseries) as looking,
    ):
        warm = kind.devices + 2
        await bench.scratch.empty()
        # Slowly where the broker keeps little: it must not drop what is waited for below.
        await bench.publish(kind, warm, rate=bench.limit or 0, probe_every=2 * kind.devices)
        # Rows that came after the table is emptied would be counted with the first measurement.
        await bench.sight.all(warm, bench.patience(warm))
        for rate in RATES if bench.limit is None else [rate for rate in RATES if rate <= bench.limit]:
            bench.tell(f"latency: {rate:,} messages/s")
            rows.append(await _measure(bench, daemon, looking, kind, rate))
    notes = [
        "from just before the write of the PUBLISH until a query, asked every 2 ms, gave the row to another connection",
        "the broker's ack: from the same moment to its PUBACK to the load",
    ]
    return Findings([Table("latency", f"publish to visible row ({kind})", _COLUMNS, rows, notes)])


async def _measure(bench: Bench, daemon: MeasuredDaemon, looking: Any, kind: Shape, rate: int) -> list[Any]:
    await bench.scratch.empty()
    await bench.still()
    device = uuid.UUID((await bench.scratch.ids([shape.PROBE]))[shape.PROBE])
    probes = Probes(looking, device)
    published = await bench.watching(_publish(bench, probes, kind, rate), daemon.part)
    await bench.sight.all(published.count, bench.patience(published.count))
    visible = [percentile(probes.seconds, share) * 1000 for share in _SHARES]
    acks = [percentile(published.acks, share) * 1000 for share in (0.5, 0.99)]
    return [rate, published.rate, published.probes, *visible, *acks]


async def _publish(bench: Bench, probes: Probes, kind: Shape, rate: int) -> Published:
    """The load, while its probes are looked for."""
    count = round(rate * bench.options.seconds) + 1
    load = bench.publish(kind, count, rate=rate, probe_every=max(rate // _PROBES, 2))
    publishing = asyncio.create_task(load)
    try:
        return await probes.look(publishing, bench.options.seconds + bench.patience(count))
    except TimeoutError:
        raise GatewayError(f"{len(probes.seconds)} probes were seen, and no more came") from None
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
