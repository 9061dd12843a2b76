"""Latency probes: each counts once, from its own time, in whatever order commits come."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
import uuid
from typing import Any

import pytest

from gateway import clock
from gateway.tools.bench.orders import Published
from gateway.tools.bench.probes import Probes


class Table:
    """Answers as the table would, whose rows appear by and by: a list for each look."""

    def __init__(self, *appearing: list[int]) -> None:
        self._appearing, self._there = list(appearing), list[int]()
        self.sent_us = clock.now_us() - 1_000_000
        self.asked_since: list[int] = []

    async def fetch(
        self, _query: str, _device: uuid.UUID, since: dt.datetime, _field: str
    ) -> list[dict[str, Any]]:
        """Those after a time, by time."""
        if self._appearing:
            self._there += self._appearing.pop(0)
        self.asked_since.append(clock.from_datetime(since))
        stamps = {number: self.sent_us + number for number in sorted(self._there)}
        return [
            {"time": clock.to_datetime(stamp), "number": number}
            for number, stamp in stamps.items()
            if stamp > self.asked_since[-1]
        ]


def published(probes: int) -> asyncio.Task[Published]:
    """A load that has ended."""

    async def said() -> Published:
        return Published(
            count=probes, seconds=1, stamp_ms=0, refused=0, unmatched=0, probes=probes, acks=[], cpu_seconds=0
        )

    return asyncio.create_task(said())


async def test_late_commits_are_not_missed() -> None:
    """A batch that overtakes another does not hide it; nothing is counted twice."""
    table = Table([0], [2, 3], [1], [4])
    probes = Probes(table, uuid.uuid4())
    await probes.look(published(5), timeout=5)
    assert len(probes.seconds) == 5
    assert all(1 <= seconds < 1 + time.monotonic() for seconds in probes.seconds)
    assert table.asked_since[2] == table.sent_us, "what is complete is passed by, and no more"


async def test_a_probe_that_never_comes_ends_the_wait() -> None:
    """There is no figure without all of them."""
    probes = Probes(Table([0, 2]), uuid.uuid4())
    with pytest.raises(TimeoutError):
        await probes.look(published(3), timeout=0.1)
