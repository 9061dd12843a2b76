"""``start``: from the start of the process to the first committed row, when a message of every device waits."""

from __future__ import annotations

from gateway.tools.bench import drains
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import Drained
from gateway.tools.bench.percentiles import median
from gateway.tools.bench.results import Findings, Table
from gateway.tools.bench.shape import Shape

_COLUMNS = ("devices", "messages", "s to first row", "least", "most", "s until all are stored")


async def run(bench: Bench) -> Findings:
    """As often as there are rounds."""
    kind = Shape(devices=bench.options.devices)
    count = kind.devices + 1
    runs: list[Drained] = []
    for _ in range(bench.options.rounds):
        bench.tell(f"start: {kind}")
        runs.append(await drains.drain(bench, kind, count))
    first = [run.to_first for run in runs]
    row = (kind.devices, count, median(first), min(first), max(first), median([run.wall for run in runs]))
    notes = ["one message of each device waits in the session; the cache of devices is empty"]
    return Findings([Table("start", f"start of the process ({kind})", _COLUMNS, [row], notes)])
