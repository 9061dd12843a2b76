"""Messages that the MQTT room could not read whole."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import topics
from gateway.outcomes import Reason
from gateway.spool import records
from gateway.unreadable import fault, is_cut, unreadable
from tests.support.batching import published


@pytest.mark.parametrize("reason", [Reason.BAD_PACKET, Reason.TOO_LARGE])
def test_what_is_wrong_survives_the_spool(reason: Reason) -> None:
    """A message spooled on its way to the dead letters is not taken for a good one when it is drained."""
    message = unreadable(b"t/\xff", b"{}", 7, duplicate=True, reason=reason, detail="why")
    kept: dict[str, Any] = {name: getattr(message, name) for name in message._fields}
    record = records.Record(**kept, stream="s", received_us=1, resumed=False, turn=1, identity=bytes(16))
    again = records.decode(records.encode(record))
    assert again is not None
    assert again.retain
    found = fault(again)
    assert found is not None
    assert (found.reason, found.detail) == (reason, "why")


def test_whole_messages_have_no_fault() -> None:
    """Whatever user properties they carry."""
    assert fault(published("t", b"", user_properties=[("gateway", "malformed_packet")])) is None


def topic_of(topic: bytes) -> str:
    """Of a message with this topic, where 100 bytes are allowed."""
    return unreadable(
        topic, b"", 1, duplicate=False, reason=Reason.TOO_LARGE, detail="why", longest_topic=100
    ).topic


def test_of_a_topic_without_end_the_ends_are_kept() -> None:
    """Still a topic of its stream, and another one than those that begin and end alike; a little longer is whole."""
    found = [topic_of(b"t/acme/" + b"x" * 60_000 + digit + b"x" * 100 + b"/up") for digit in (b"1", b"2")]
    assert len(set(found)) == 2
    for topic in found:
        assert (topic[:50], topic[-50:]) == ("t/acme/" + "x" * 43, "x" * 47 + "/up")
        assert "[60111 bytes, SHA-256 " in topic
        assert len(topic) < 200
        assert is_cut(topic)
        assert topics.Template("t/{tenant}/{device}/up").match(topic)
    whole = "t/" + "x" * 150
    assert (topic_of(whole.encode()), is_cut(whole)) == (whole, False)


def test_a_topic_is_cut_wherever_its_bytes_end() -> None:
    """In the middle of a character, or of what is no text: fit for ledger, spool and database."""
    for odd in ("\u20ac", "\U0001f642"):
        for before in range(4):
            topic = topic_of(b"t" * before + odd.encode() * 10_000)
            assert is_cut(topic)
            assert topic.encode().decode() == topic
            assert odd * 10 in topic
    assert len(topic_of(b"\xff" * 60_000)) < 600
