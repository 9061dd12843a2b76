"""What can be measured, one file each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from gateway.bench.bench import Bench
from gateway.bench.options import Scenario
from gateway.bench.results import Findings
from gateway.bench.scenarios import drain, latency, memory, scale, start, steady

RUN: Mapping[Scenario, Callable[[Bench], Awaitable[Findings]]] = {
    Scenario.DRAIN: drain.run,
    Scenario.STEADY: steady.run,
    Scenario.LATENCY: latency.run,
    Scenario.SCALE: scale.run,
    Scenario.MEMORY: memory.run,
    Scenario.START: start.run,
}
