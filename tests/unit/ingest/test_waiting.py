"""Messages that cannot be decided yet, aside from the path."""

from __future__ import annotations

import asyncio

import pytest

from gateway.batches import DEFERRED_BYTES, OVERHEAD_BYTES
from gateway.devices.registry import Entry
from gateway.ingest.routes import TopicRoute
from gateway.ingest.waiting import DeferredQueue, Waiting
from gateway.messages import Delivery
from tests.support.batching import NOW_US, published, settings_for
from tests.support.flow import Flow

A, B, C = (Entry("acme", serial, None) for serial in "ABC")


@pytest.fixture
async def routes() -> dict[str, TopicRoute]:
    """A route of each of two streams."""
    flow = Flow(settings_for(None, {}, {"name": "other", "topic": "o/{tenant}/{device}"}))
    return {"telemetry": flow.path.routes.find("t/acme/A"), "other": flow.path.routes.find("o/acme/A")}


def waiting(
    number: int, route: TopicRoute, *entries: Entry, payload: bytes = b"{}", since: int = 0
) -> Waiting:
    """A message set aside."""
    return Waiting(number, published("t", payload), route, Delivery((), number, NOW_US, since=since), entries)


async def test_an_empty_room() -> None:
    """Nobody, nothing held, and nobody is called."""
    room = DeferredQueue()
    assert (len(room), room.size, room.all(), room.entries(10), room.count_by_stream()) == (0, 0, [], [], {})
    assert room.release(lambda _one: True) == []
    assert room.oldest() > 2**62


async def test_what_waits_is_counted(routes: dict[str, TopicRoute]) -> None:
    """In messages by stream, in bytes, and by number and connection."""
    room = DeferredQueue()
    room.add(waiting(7, routes["telemetry"], payload=b"x" * 100, since=5))
    room.add(waiting(3, routes["other"], since=2))
    room.add(waiting(9, routes["telemetry"], since=5))
    assert len(room) == 3
    assert room.size == 104 + 3 * (OVERHEAD_BYTES + DEFERRED_BYTES + len("t"))
    assert room.count_by_stream() == {"telemetry": 2, "other": 1}
    assert (room.oldest(), room.earliest().number) == (3, 3)


async def test_who_is_called_leaves_in_the_order_of_coming(routes: dict[str, TopicRoute]) -> None:
    """The others stay, and the bytes held are theirs."""
    room = DeferredQueue()
    for number in range(6):
        room.add(waiting(number, routes["telemetry"], payload=b"x" * number))
    called = room.release(lambda one: one.number % 2 == 1)
    assert [one.number for one in called] == [1, 3, 5]
    assert [one.number for one in room.all()] == [0, 2, 4]
    assert room.size == 6 + 3 * (OVERHEAD_BYTES + DEFERRED_BYTES + len("t"))


async def test_devices_are_waited_for_once(routes: dict[str, TopicRoute]) -> None:
    """However many messages wait for them: they are looked up together."""
    room = DeferredQueue()
    for number, entries in enumerate(((A,), (A, B), (C, B), (A,))):
        room.add(waiting(number, routes["telemetry"], *entries))
    assert room.entries(10) == [A, B, C]
    assert room.entries(2) == [A, B]


async def test_somebody_wakes_who_asks(routes: dict[str, TopicRoute]) -> None:
    """At once when somebody waits already; not after the last has left."""
    room = DeferredQueue()
    asking = asyncio.create_task(room.wait_nonempty())
    await asyncio.sleep(0)
    assert not asking.done()
    room.add(waiting(1, routes["telemetry"]))
    await asyncio.wait_for(asking, 1)
    await asyncio.wait_for(room.wait_nonempty(), 1)
    room.release(lambda _one: True)
    asking = asyncio.create_task(room.wait_nonempty())
    await asyncio.sleep(0)
    assert not asking.done()
    asking.cancel()


def test_what_left_is_not_counted(routes: dict[str, TopicRoute]) -> None:
    """One by one, until nothing is held."""
    room = DeferredQueue()
    for number in range(3):
        room.add(waiting(number, routes["telemetry"], payload=b"x" * number))
    sizes = [room.size]
    while len(room):
        room.pop()
        sizes.append(room.size)
    assert sizes == sorted(sizes, reverse=True)
    assert (len(set(sizes)), sizes[-1]) == (4, 0)


async def test_those_of_one_delivery_are_released_together(routes: dict[str, TopicRoute]) -> None:
    """Into one batch: they were received at once, and two batches are committed in any order."""
    room = DeferredQueue()
    for number in range(6):
        room.add(waiting(number, routes["telemetry"], A))
    first, second = room.all()[0].delivery, room.all()[5].delivery
    for one in room.all():
        one.delivery = first if one.number < 4 else second
    assert [one.number for one in room.release(lambda _one: True, 2)] == [0, 1, 2, 3]
    assert [one.number for one in room.release(lambda _one: True, 1)] == [4, 5]


async def test_some_are_released(routes: dict[str, TopicRoute]) -> None:
    """The first so many; the others stay in their order, and what they hold is counted on."""
    room = DeferredQueue()
    for number in range(6):
        room.add(waiting(number, routes["telemetry"], A))
    size = room.size
    released = room.release(lambda one: one.number != 1, 3)
    assert [one.number for one in released] == [0, 2, 3]
    assert [one.number for one in room.all()] == [1, 4, 5]
    assert room.size == size // 2
