"""Messages of MQTT 3.1.1 that are refused as they come."""

from __future__ import annotations

import pytest

from gateway.mqtt.paho_messages import QOS_1, message_in
from gateway.outcomes import Reason
from gateway.unreadable import fault, is_cut

PUBLISH = 0x30 | QOS_1


def body(topic: bytes, payload: bytes = b"payload") -> bytearray:
    """What follows the length of a PUBLISH with packet id 7."""
    return bytearray(len(topic).to_bytes(2) + topic + b"\0\7" + payload)


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        (b"t" * 60_000, Reason.TOO_LARGE),
        (b"t" * 150, Reason.TOO_LARGE),
        (b"t" * 50 + b"\xff", Reason.BAD_PACKET),
    ],
)
def test_a_topic_without_end_is_cut(topic: bytes, reason: Reason) -> None:
    """Of what is refused no more than the bound is kept, or a little more; payload and packet id are whole."""
    found = message_in(PUBLISH, body(topic), longest_topic=100)
    wrong = fault(found)
    assert wrong is not None
    assert wrong.reason is reason
    assert (found.packet_id, found.payload) == (7, b"payload")
    assert is_cut(found.topic) == (len(topic) > 200)
    assert len(found.topic) < 200


def test_of_a_packet_that_is_too_large_the_topic_is_cut_too() -> None:
    """And of the payload the head is kept."""
    found = message_in(PUBLISH, body(b"t" * 60_000, b"x" * 10**6), largest=1000, longest_topic=100)
    assert is_cut(found.topic)
    assert 0 < len(found.payload) < 2**17
