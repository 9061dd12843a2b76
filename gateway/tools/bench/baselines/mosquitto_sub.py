"""``mosquitto_sub`` into nothing: what the broker can hand over, to a client that only acknowledges."""

from __future__ import annotations

import math
import time
from pathlib import Path

from gateway.tools.bench import usage
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import PROCESS, Drained
from gateway.tools.bench.shape import Shape
from gateway.tools.servers.part import Part
from gateway.tools.servers.programs import find_program

_NOTHING = Path("/dev/null")


class MosquittoSub:
    """Measured from the start of the process to its end: it needs some milliseconds to start."""

    name = "mosquitto_sub"

    def missing(self) -> str | None:
        """It comes with a package of its own."""
        found = find_program("mosquitto_sub")
        return None if found else "mosquitto_sub is not on the PATH: install the package 'mosquitto-clients'"

    async def drain(self, bench: Bench, kind: Shape, count: int) -> Drained:
        """It ends by itself after ``count`` messages."""
        client_id = await bench.backlog(kind, count, "mosquitto-sub")
        meter, part = bench.meter(), Part("mosquitto_sub", _NOTHING)
        before, own_before, started = meter.read(), usage.children_seconds(), time.monotonic()
        await part.start(["mosquitto_sub", *self._arguments(bench, client_id, count)])
        await bench.watching(part.finish(bench.patience(count)))
        seconds = time.monotonic() - started
        own = (usage.children_seconds() - own_before) / count * 1e6
        cpu = {PROCESS: own, **usage.micros_per_message(before, meter.read(), count)}
        return Drained(messages=count, rate=count / seconds, to_first=math.nan, wall=seconds, cpu=cpu)

    def _arguments(self, bench: Bench, client_id: str, count: int) -> list[str]:
        where = ["-h", bench.mqtt.host, "-p", str(bench.mqtt.port), "-i", client_id, "-t", bench.names.filter]
        return [*where, "-q", "1", "-c", "-C", str(count)]
