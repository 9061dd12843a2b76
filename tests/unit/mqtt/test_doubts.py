"""What no bookkeeping can tell is warned of once: acks left and were lost, and what then comes looks new."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.messages import digest
from gateway.mqtt.acknowledgements import Acknowledgements
from gateway.sessions.redeliveries import Redeliveries
from gateway.sessions.tracking import Sessions
from tests.support.sessions import MemoryStore
from tests.unit.mqtt.test_redeliveries_model import Sent, run

DIFFERENT = [b"1", b"2", b"3"]
EQUAL = [b"closed"] * 3
WARNED = [("warning", "mqtt redeliveries look new")]


class Gateway:
    """Stores untimed messages and acknowledges them; whether the broker reads that, it does not know."""

    def __init__(self) -> None:
        self.redeliveries = Redeliveries()
        self._sessions = Sessions("gateway", [MemoryStore()], self.redeliveries)
        self.acks = Acknowledgements(self._sessions)
        self.acks.connected(False)
        run(self._sessions.save())

    def takes(
        self, ids: Sequence[int], payloads: Sequence[bytes], *, dup: bool = False, timed: Sequence[bytes] = ()
    ) -> None:
        """Messages come, and their acks leave."""
        messages = [
            Sent(packet_id, 0, dup, payload=payload) for packet_id, payload in zip(ids, payloads, strict=True)
        ]
        delivery = self.acks.register(messages, ids)
        numbered = [
            one for one in zip(itertools.count(delivery.first), messages) if one[1].payload not in timed
        ]
        self.redeliveries.enter([number for number, _ in numbered], [digest(one) for _, one in numbered])
        self.acks.settle(range(delivery.first, delivery.first + len(messages)))
        assert not self.acks.held

    def reconnects(self) -> None:
        """The connection breaks; the session is resumed."""
        self.acks.lost()
        self.acks.connected(True)


def said(logs: Sequence[Any]) -> list[tuple[str, str]]:
    """Level and text of what was logged for an operator."""
    return [(one["log_level"], one["event"]) for one in logs if one["log_level"] != "debug"]


@pytest.mark.parametrize(
    ("again", "payloads", "dup"),
    [([4, 5, 6], DIFFERENT, False), ([1, 2, 3], EQUAL, True), ([1, 2, 3], DIFFERENT, False)],
    ids=["Artemis", "RabbitMQ", "rumqttd"],
)
def test_under_other_ids(again: list[int], payloads: list[bytes], dup: bool) -> None:
    """Once, however often it happens; in one read of the socket or in several."""
    gateway = Gateway()
    gateway.takes([1, 2, 3], [b"first", b"second", b"third"])
    gateway.acks.pinged()
    gateway.acks.answered()
    gateway.takes([4, 5, 6] if again[0] == 1 else [1, 2, 3], payloads)
    with capture_logs() as logs:
        gateway.reconnects()
        for packet_id, payload in zip(again, payloads, strict=True):
            gateway.takes([packet_id], [payload], dup=dup)
        gateway.reconnects()
        gateway.takes([one + 6 for one in again], payloads, dup=dup)
    assert said(logs) == WARNED


def test_under_ids_that_come_again_soon() -> None:
    """HiveMQ: the broker may have read the ack and used the id for another message of the same bytes."""
    gateway = Gateway()
    gateway.takes([1, 2, 3], DIFFERENT)
    gateway.takes([1, 2, 3], DIFFERENT)
    with capture_logs() as logs:
        gateway.reconnects()
        gateway.takes([2, 3], DIFFERENT[1:], dup=True)
    assert said(logs) == WARNED


def test_beside_messages_with_a_time() -> None:
    """Those meet themselves in their table, and are not remembered."""
    gateway = Gateway()
    gateway.takes([1, 2, 3, 4], [b"1", b"timed", b"2", b"3"], timed=[b"timed"])
    with capture_logs() as logs:
        gateway.reconnects()
        gateway.takes([5, 6, 7, 8], [b"1", b"timed", b"2", b"3"], timed=[b"timed"])
    assert said(logs) == WARNED


@pytest.mark.parametrize(
    ("ids", "payloads", "dup"),
    [
        ([1, 2, 3], EQUAL, True),
        ([2, 3, 4], EQUAL, False),
        ([4, 5, 6], EQUAL, False),
        ([4, 5, 6], EQUAL, True),
        ([4, 5], [b"closed", b"opened"], False),
    ],
    ids=[
        "known",
        "known in part",
        "others of the same bytes",
        "others that were lost on their way",
        "others",
    ],
)
def test_nothing_to_warn_of(ids: list[int], payloads: list[bytes], dup: bool) -> None:
    """mosquitto, with devices that say the same again and again."""
    gateway = Gateway()
    gateway.takes([1, 2, 3], EQUAL)
    with capture_logs() as logs:
        gateway.reconnects()
        gateway.takes(ids, payloads, dup=dup)
    assert said(logs) == []


def test_more_than_a_round_of_ids_is_new() -> None:
    """A session resumed with all that waits in it (mosquitto): an id in flight is another message's in its turn."""
    gateway = Gateway()
    for start in range(0, 140_000, 500):
        ids = [number % 65_535 + 1 for number in range(start, start + 500)]
        delivery = gateway.acks.register([Sent(packet_id, 0, False) for packet_id in ids], ids)
        assert not delivery.resent
    assert len(gateway.acks.settle(range(140_000), leaving=True)) == 140_000
