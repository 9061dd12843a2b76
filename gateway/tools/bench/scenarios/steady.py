"""``steady``: the highest publish rate at which the backlog does not grow, and what a message costs there.

First as fast as the broker takes messages; that bounds the search from above. A rate holds when the load could keep
it, and when what is left to store at its end is stored within a small share of the time: a backlog that grows takes
longer, the longer the load.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping

from gateway.tools.bench import usage
from gateway.tools.bench.bench import BROKER, POSTGRES, Bench
from gateway.tools.bench.daemon import MeasuredDaemon
from gateway.tools.bench.drains import PROCESS
from gateway.tools.bench.results import Findings, Table
from gateway.tools.bench.shape import Shape

_STEPS = 6
_KEPT = 0.98
"""Of the rate asked for, that the load must have reached."""
_LEFT_SECONDS = 0.25
_LEFT_SHARE = 0.02
"""Of the load's duration, that storing the rest may take; at least the seconds above."""
_FLAT_OUT = 1_000_000
"""Messages a second beyond reach: bounds the count of a load that is bounded by time."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One rate, tried.

    Attributes:
        asked: messages a second; infinite: as fast as it goes.
        reached: by the load.
        left: seconds from the end of the load until all of it was stored.
        cpu: µs per message, by process.
        seconds: that it lasted.
    """

    asked: float
    reached: float
    left: float
    messages: int
    cpu: Mapping[str, float]
    seconds: float

    @property
    def held(self) -> bool:
        """Whether the backlog did not grow."""
        kept = self.reached >= _KEPT * self.asked
        return kept and self.left <= max(_LEFT_SECONDS, _LEFT_SHARE * self.seconds)


async def run(bench: Bench) -> Findings:
    """The search."""
    kind = Shape()
    async with bench.running() as daemon:
        ceiling = await _try(bench, daemon, kind, math.inf)
        trials = [ceiling]
        low, high = 0.0, ceiling.reached
        for _ in range(_STEPS):
            trial = await _try(bench, daemon, kind, (low + high) / 2)
            trials.append(trial)
            low, high = (trial.asked, high) if trial.held else (low, trial.asked)
    return Findings([_table(kind, trials, low)])


async def _try(bench: Bench, daemon: MeasuredDaemon, kind: Shape, rate: float) -> Trial:
    paced = math.isfinite(rate)
    bench.tell(f"steady: {rate:,.0f} messages/s" if paced else "steady: as fast as the broker takes them")
    await bench.scratch.empty()
    seconds = bench.options.seconds
    meter = bench.meter(**{PROCESS: daemon.pid})
    before = meter.read()
    published = await bench.publish(
        kind, round((rate if paced else _FLAT_OUT) * seconds), rate=rate if paced else 0, seconds=seconds
    )
    ended = time.monotonic()
    seen = await bench.watching(
        bench.sight.all(published.count, bench.patience(published.count)), daemon.part
    )
    load = published.cpu_seconds / published.count * 1e6
    return Trial(
        asked=rate,
        reached=published.rate,
        left=max(seen.when - ended, 0),
        messages=published.count,
        cpu={"load": load, **usage.micros_per_message(before, meter.read(), published.count)},
        seconds=published.seconds,
    )


def _table(kind: Shape, trials: list[Trial], highest: float) -> Table:
    columns = (
        "asked messages/s", "reached", "messages", "s to store the rest", "held", "gateway µs/message", "broker µs",
        "PostgreSQL µs", "load µs",
    )  # fmt: skip
    names = (PROCESS, BROKER, POSTGRES, "load")
    rows = [
        (
            t.asked,
            t.reached,
            t.messages,
            t.left,
            "yes" if t.held else "no",
            *(t.cpu.get(n, math.nan) for n in names),
        )
        for t in sorted(trials, key=lambda trial: trial.asked)
    ]
    title = f"highest steady rate: {highest:,.0f} messages/s ({kind})"
    notes = [
        f"held: the load reached {_KEPT:.0%} of the rate; the rest was stored within {_LEFT_SHARE:.0%} of the time",
        "the load runs on the same machine, and its CPU is missing to the others",
    ]
    return Table("steady", title, columns, rows, notes)
