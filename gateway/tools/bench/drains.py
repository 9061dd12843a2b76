"""A backlog in a persistent session, drained: the measurement that most scenarios are made of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.tools.bench import usage
from gateway.tools.bench.bench import BROKER, POSTGRES, Bench
from gateway.tools.bench.daemon import MeasuredDaemon
from gateway.tools.bench.percentiles import median
from gateway.tools.bench.shape import Shape
from gateway.tools.bench.sight import Sight

PROCESS = "process"
"""Who drains."""
_MIB = 2**20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How a backlog was drained.

    Attributes:
        messages: in the backlog.
        rate: messages a second, from the first look at committed rows to the last; not a number when the first
            look saw all of them.
        to_first: seconds from the start of the process to the first committed row.
        wall: seconds from the start of the process to the last.
        cpu: µs per message by process, over the same stretch as ``rate``.
        peak_bytes: the most memory that the process ever had.
    """

    messages: int
    rate: float
    to_first: float
    wall: float
    cpu: Mapping[str, float]
    peak_bytes: float = math.nan


async def drain(bench: Bench, kind: Shape, count: int, *, warm: int = 1) -> Drained:
    """Publish a backlog, start the gateway, see everything committed.

    Args:
        warm: the stretch begins with the first look that sees this many rows; those are not in the figures.
    """
    await bench.backlog(kind, count)
    async with bench.daemon() as daemon:
        drained = await bench.watching(see(bench, daemon, count, warm), daemon.part)
    return dataclasses.replace(drained, peak_bytes=daemon.peak_bytes)


async def see(bench: Bench, daemon: MeasuredDaemon, count: int, warm: int) -> Drained:
    """Look on while the daemon drains."""
    return await observe(bench, bench.sight, count, warm=warm, started=daemon.started, pid=daemon.pid)


async def observe(
    bench: Bench, sight: Sight, count: int, *, warm: int = 1, started: float, pid: int
) -> Drained:
    """Look on until the process, ``started`` then (``time.monotonic``), has made ``count`` rows."""
    meter, patience = bench.meter(**{PROCESS: pid}), bench.patience(count)
    first = await sight.first(warm, patience)
    before = meter.read()
    last = await sight.all(count, patience)
    after, rows = meter.read(), last.rows - first.rows
    return Drained(
        messages=count,
        rate=rows / (last.when - first.when) if rows else math.nan,
        to_first=first.when - started,
        wall=last.when - started,
        cpu=usage.micros_per_message(before, after, rows) if rows else {},
    )


COLUMNS = (
    "what", "messages", "messages/s", "least", "most", "s to first row", "s in all", "µs/message", "broker µs",
    "PostgreSQL µs", "peak MiB",
)  # fmt: skip
NOTE = (
    "messages/s: median of the rounds, from the first committed row to the last; s: from the start of the process; "
    "µs: CPU per message, over the same stretch"
)


def summary(what: str, runs: Sequence[Drained]) -> list[Any]:
    """A row of a table with these columns: the medians of some runs."""
    rates = [run.rate for run in runs]
    cpu = [median([run.cpu[name] for run in runs if name in run.cpu]) for name in (PROCESS, BROKER, POSTGRES)]
    return [
        what, runs[0].messages, median(rates), min(rates), max(rates), median([run.to_first for run in runs]),
        median([run.wall for run in runs]), *cpu, max(run.peak_bytes for run in runs) / _MIB,
    ]  # fmt: skip
