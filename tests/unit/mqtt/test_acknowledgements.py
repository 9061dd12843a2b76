"""What the broker is known to have read, as a later process is told."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from gateway.messages import PACKET_IDS
from gateway.mqtt.acknowledgements import Acknowledgements
from gateway.mqtt.window import NO_ID
from gateway.sessions import tracking
from gateway.sessions.redeliveries import Redeliveries
from gateway.sessions.tracking import Sessions
from tests.support.sessions import MemoryStore
from tests.unit.mqtt.test_redeliveries_model import Sent


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acks wait, however busy the machine."""
    monkeypatch.setattr(tracking, "_PATIENT_SECONDS", math.inf)


class Process:
    """A daemon, until it is killed: what it has received, and which acks have left."""

    def __init__(self, store: MemoryStore, *, session_present: bool) -> None:
        self.sessions = Sessions("gateway", [store], Redeliveries())
        self.acks = Acknowledgements(self.sessions)
        self.acks.connected(session_present)
        self.left: list[int] = []

    def takes(self, positions: range) -> None:
        """Messages come, some at a time, of a broker that hands ids out in turn."""
        for at in range(positions.start, positions.stop, 1000):
            ids = [number % PACKET_IDS + 1 for number in range(at, min(at + 1000, positions.stop))]
            self.acks.register([Sent(packet_id, 0, duplicate=False) for packet_id in ids], ids)

    async def settles_all(self) -> None:
        """The state is kept once before."""
        await self.sessions.save()
        self.settles()

    def settles(self) -> None:
        """All are stored; of the acks those leave that may."""
        self.left += self.acks.settle(range(self.acks._window.next))


@pytest.mark.parametrize("read", [1, 20_000, 32_766, 50_000, "all"])
async def test_a_later_process_knows_how_far_the_broker_was(read: int | str) -> None:
    """Killed with more acks on their way than half a round of ids: what comes first is placed right all the same.

    Acks had left up to position 92 785 and 57 764 was kept: 92 786 was placed at 27 251, where a broker begins anew,
    and 7 154 readings without a time were stored twice.
    """
    store, at = MemoryStore(), 0
    for process in (Process(store, session_present=at > 0) for _ in range(6)):
        await process.sessions.save()  # as Sessions.keep does at once
        process.takes(range(at, 200_000))
        session = process.sessions.inherited if at else process.acks._session
        assert session is not None
        assert session.position(session.first) == at + 1
        process.settles()
        assert not at or not process.left  # none, until it is kept where this process began
        await process.settles_all()
        assert process.acks.held
        at += len(process.left) if read == "all" else min(int(read), len(process.left))
    assert at >= 6


async def test_what_comes_first_is_noted_behind_messages_without_an_ack() -> None:
    """A message of QoS 0 before it: no ack may be held for what is never kept."""
    store = MemoryStore()
    for session_present in (False, True):
        process = Process(store, session_present=session_present)
        await process.sessions.save()
        process.acks.register([Sent(NO_ID, 0, duplicate=False)], [NO_ID])
        process.takes(range(10))
        await process.settles_all()
        assert (len(process.left), process.acks.held) == (10, False)


async def test_acks_leave_on_as_it_is_kept_what_the_broker_has_read() -> None:
    """None is held for ever, and none where that cannot be kept in time."""
    store = MemoryStore()
    process = Process(store, session_present=False)
    process.takes(range(200_000))
    while process.acks.held or not process.left:
        await process.settles_all()
        process.acks.confirm(process.acks.acknowledged)
    assert len(process.left) == 200_000


class Resumed:
    """A process that goes on with a session; its messages are acknowledged as they come."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._sessions = Sessions("gateway", [self.store], Redeliveries())
        self.acks = Acknowledgements(self._sessions)
        self.acks.connected(True)

    def takes(self, ids: Sequence[int]) -> None:
        """Messages come, some at a time, and their acks leave."""
        for at in range(0, len(ids), 1000):
            some = ids[at : at + 1000]
            delivery = self.acks.register([Sent(packet_id, 0, duplicate=False) for packet_id in some], some)
            self.acks.settle(range(delivery.first, delivery.first + len(some)))

    async def confirmed(self) -> int:
        """What is kept of it."""
        await self._sessions.save()
        assert self.store.state is not None
        return self.store.state.confirmed


@pytest.mark.parametrize("between", [[], [NO_ID] * 100_000], ids=["", "QoS 0 between"])
@pytest.mark.parametrize("count", [100, 40_000, PACKET_IDS - 1, PACKET_IDS, 100_000, 200_000])
async def test_what_was_read_is_told_from_what_came_a_round_of_ids_later(
    count: int, between: list[int]
) -> None:
    """Of so many outstanding messages the broker has read the acks of the first 50: no more is taken for read.

    mosquitto 2.0.11 sends all that waits when it resumes a session. Once 80 000 messages were outstanding, position
    18 489 was kept as 84 024, and 167 dead letters were stored twice after the next kill.
    """
    gateway = Resumed()
    gateway.takes([n % PACKET_IDS + 1 for n in range(50)])
    gateway.takes(between)
    gateway.takes([n % PACKET_IDS + 1 for n in range(50, count)])
    gateway.acks.confirm(50)
    assert await gateway.confirmed() == 50
    gateway.acks.confirm(count + len(between))
    assert await gateway.confirmed() == count
