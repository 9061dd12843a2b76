"""What is refused by the spool is told, and no longer than it is so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway import decoders, settings
from gateway.errors import MessageError, TransientError
from gateway.ingest.overflow import SpoolOverflow
from gateway.ingest.routes import Stream, TopicRoute
from gateway.ingest.waiting import Waiting
from gateway.messages import Delivery, Reading
from gateway.observability.health import Component, ComponentState
from gateway.outcomes import Reason
from gateway.spool.spool import Spool
from gateway.storage.retry import Retrying
from tests.support.batching import published
from tests.support.sessions import forget
from tests.support.waiting import eventually_async
from tests.unit.spool.spooling import opened, record, rest


class Scene:
    """A small spool, and a database that is there or away."""

    def __init__(self, folder: Path) -> None:
        self.spool: Spool = opened(folder)
        self.component = Component("spool")
        self.stores = Retrying(Component("timeseries"), shortest=0.01, longest=0.01, standing=0.01)
        self.overflow = SpoolOverflow(
            self.spool, self.component, self.stores, spooled=forget, after=0.05, probe=self.write
        )
        self.away = True

    def ready(self) -> bool:
        """Whether the spool is said to work."""
        return self.component.state is ComponentState.READY

    async def write(self) -> None:
        """Into the database."""
        if self.away:
            raise TransientError("connection refused")

    async def fill(self) -> None:
        """As much as there is room for, until something is refused."""
        number = 0
        while await self.overflow.keep([record(number, b"x" * 9000)], self.stores):
            number += 1


async def test_a_full_spool_is_told_until_it_is_drained(tmp_path: Path) -> None:
    """Unready while it is full; ready again when there is room, although nothing has to be spooled any more."""
    scene = Scene(tmp_path)
    watch = asyncio.create_task(scene.overflow.watch_disk())
    await scene.fill()
    assert not scene.ready()
    scene.away = False
    assert await scene.overflow.in_time(scene.stores, scene.write)
    await asyncio.sleep(0)
    assert not scene.ready(), "it is still full"
    scene.spool.settle(rest(scene.spool)[1])
    await eventually_async(scene.ready, timeout=5)
    watch.cancel()
    scene.spool.close()


async def test_who_was_refused_finds_out_himself(tmp_path: Path) -> None:
    """While the database is away, nobody but those who must be spooled says that the spool works: no flicker."""
    scene = Scene(tmp_path)
    await scene.fill()
    scene.spool.settle(rest(scene.spool)[1])
    watch = asyncio.create_task(scene.overflow.watch_disk())
    assert not await scene.overflow.in_time(scene.stores, scene.write)
    await asyncio.wait([watch], timeout=1.5)
    assert not scene.ready()
    assert await scene.overflow.keep([record(0)], scene.stores)
    assert scene.ready()
    watch.cancel()
    scene.spool.close()


def test_what_waits_is_dated_with_room_for_its_readings(tmp_path: Path) -> None:
    """By what the stream's decoder makes of it, in any format; what it refuses, however full of braces, takes one."""
    scene = Scene(tmp_path)

    def decode(payload: bytes) -> list[Reading]:
        if b"{" in payload:
            raise MessageError(Reason.MALFORMED, "no lines")
        return [Reading({"n": 1}) for _ in payload.split()]

    options = settings.StreamSettings(name="lines", topic="t/{tenant}/{device}")
    route = TopicRoute(Stream(options, decode), {"tenant": "acme", "device": "A"})
    waited = [
        Waiting(number, published("t/acme/A", payload), route, Delivery((), number, 1000))
        for number, payload in enumerate((b"1 2 3", b"{" * 500, b"4 5", b"6"))
    ]
    assert [one.received_us for one in scene.overflow.records_of(waited)] == [1000, 1003, 1004, 1006]
    scene.spool.close()


def test_what_holds_one_reading_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the format says so: a message that waits is dated without a look into it."""
    scene = Scene(tmp_path)

    def decode(payload: bytes) -> list[Reading]:
        raise AssertionError(payload)

    monkeypatch.setitem(decoders._FORMATS, "one", decoders.Format(lambda _limits: decode, one_reading=True))
    options = settings.StreamSettings(name="one", topic="t/{tenant}/{device}", decoder="one")
    route = TopicRoute(Stream(options, decode), {"tenant": "acme", "device": "A"})
    message = published("t/acme/A", b"1")
    waited = [Waiting(number, message, route, Delivery((), number, 1000)) for number in range(3)]
    assert [one.received_us for one in scene.overflow.records_of(waited)] == [1000, 1001, 1002]
    scene.spool.close()
