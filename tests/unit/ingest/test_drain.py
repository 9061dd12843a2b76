"""The drain of a spool says how far it is, what it waits for, and what it cannot read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from gateway.errors import SpoolError
from gateway.ingest.in_flight import InFlight
from gateway.ingest.pipeline import Pipeline
from gateway.ingest.queue import Queue
from gateway.ingest.spool_source import SpoolControl, SpoolSource
from gateway.ingest.suspects import Suspects
from gateway.messages import Delivery
from gateway.observability.health import Component, ComponentState
from tests.support.waiting import eventually_async
from tests.unit.spool.spooling import opened, record


class Standing:
    """A path that takes messages, and brings none of them to its end."""

    def __init__(self) -> None:
        self.in_flight = InFlight(Queue(max_rows=10, max_bytes=10**6), Queue(max_rows=10, max_bytes=10**6))
        self.taken: list[int] = []

    def take(self, delivery: Delivery) -> None:
        """Remember its number."""
        self.taken.append(delivery.first)

    def idle(self) -> None:
        """Nothing more comes for now."""


async def test_it_says_how_far_it_is(tmp_path: Path) -> None:
    """Until everything is settled there is something that it waits for; what moves is told from what stands."""
    spool, path, component = opened(tmp_path), Standing(), Component("spool")
    control = SpoolControl(spool)
    drain = SpoolSource(spool, control, cast("Pipeline", path), component, Suspects(None))
    assert drain.oldest(1) == []
    await spool.append([record(0), record(1)])
    assert drain.oldest(1) == [{"records": 2, "waits_for": "the drain"}]
    before = drain.progress_marker()
    assert drain.progress_marker() == before
    running = asyncio.create_task(drain.run())
    await eventually_async(lambda: path.taken == [0, 1])
    assert drain.progress_marker() != before
    assert drain.oldest(1)
    control.settle([0, 1])
    assert drain.oldest(1) == []
    running.cancel()
    spool.close()


async def test_a_spool_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told for as long as it is so."""
    spool, path, component = opened(tmp_path), Standing(), Component("spool")
    control = SpoolControl(spool)
    drain = SpoolSource(spool, control, cast("Pipeline", path), component, Suspects(None))

    def fails(_max_bytes: int) -> None:
        raise SpoolError("spool.folder: Input/output error")

    await spool.append([record(0)])
    with monkeypatch.context() as broken:
        broken.setattr(spool, "next_chunk", fails)
        running = asyncio.create_task(drain.run())
        await eventually_async(lambda: component.state is ComponentState.FAILED)
        assert "Input/output error" in component.detail
    await eventually_async(lambda: component.state is ComponentState.READY)
    assert path.taken == [0]
    running.cancel()
    spool.close()
