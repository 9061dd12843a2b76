"""How long it takes from publishing to a row that others see.

Some of the messages are probes: their time is the moment of their publishing, in µs, and they are numbered. A
connection beside the gateway's asks for the probes after those that it has seen, every two milliseconds, by the
primary key: a range of a few rows. A probe counts as visible when the answer with it has come, so each latency is an
upper bound, by up to the interval and the duration of the query. Both clocks are this machine's.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

from gateway import clock
from gateway.tools.bench import shape
from gateway.tools.bench.orders import Published

_EVERY = 0.002
_AFTER = """
SELECT time, (data->>$3)::integer AS number FROM telemetry WHERE device_id = $1 AND time > $2 ORDER BY time
"""


class Probes:
    """Looks for the probes of one load.

    Attributes:
        seconds: from publishing to visibility, of each probe seen.
    """

    def __init__(self, connection: Any, device: uuid.UUID) -> None:
        self._connection, self._device = connection, device
        self._visible: set[int] = set()
        self._next, self._since_us = 0, 0
        self.seconds: list[float] = []

    async def look(self, publishing: asyncio.Task[Published], timeout: float) -> Published:
        """Look until all probes are visible; what the load says.

        Raises:
            TimeoutError: some are not, ``timeout`` seconds after the first look.
        """
        async with asyncio.timeout(timeout):
            while not publishing.done() or self._next < publishing.result().probes:
                began = time.monotonic()
                await self._look_once()
                await asyncio.sleep(max(began + _EVERY - time.monotonic(), 0))
        return publishing.result()

    async def _look_once(self) -> None:
        rows = await self._connection.fetch(
            _AFTER, self._device, clock.to_datetime(self._since_us), shape.COUNTER
        )
        now_us = clock.now_us()
        for row in rows:
            sent_us = clock.from_datetime(row["time"])
            if row["number"] not in self._visible:
                self._visible.add(row["number"])
                self.seconds.append((now_us - sent_us) / clock.MICROS)
            if row["number"] == self._next:
                # Hazard: commits of two connections may come out of order, so only what is complete is passed by.
                self._next, self._since_us = self._next + 1, sent_us
