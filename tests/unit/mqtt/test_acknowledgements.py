"""What the broker is known to have read, as a later process is told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.messages import PACKET_IDS
from gateway.mqtt.acknowledgements import Acknowledgements
from gateway.mqtt.window import NO_ID
from gateway.sessions.redeliveries import Redeliveries
from gateway.sessions.tracking import Sessions
from tests.support.sessions import MemoryStore
from tests.unit.mqtt.test_redeliveries_model import Sent


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
