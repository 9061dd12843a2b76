"""Counting acknowledgements."""

from __future__ import annotations

import mqtt5
import pytest

from gateway.errors import GatewayError
from gateway.tools.bench.acks import Acks

PLAIN = [mqtt5.PubAckPacket(number).write() for number in (1, 0x4002, 65_535)]
UNMATCHED = mqtt5.PubAckPacket(7, reason_code=mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS).write()
REFUSED = mqtt5.PubAckPacket(8, reason_code=mqtt5.PubAckReasonCode.QUOTA_EXCEEDED, reason_str="full").write()


@pytest.mark.parametrize("portion", [1, 3, 4, 5, 1000])
@pytest.mark.parametrize(
    ("sent", "count", "unmatched", "refused"),
    [
        (PLAIN * 100, 300, 0, 0),
        ([*PLAIN, UNMATCHED, *PLAIN, REFUSED, *PLAIN], 11, 1, 1),
        ([UNMATCHED, *PLAIN * 2], 7, 1, 0),
    ],
)
def test_acks_are_counted_however_they_come(
    sent: list[bytes], count: int, unmatched: int, refused: int, portion: int
) -> None:
    """Short and long ones mixed, cut anywhere: each counts once, and what it says is kept."""
    stream, acks = b"".join(sent), Acks()
    for at in range(0, len(stream), portion):
        acks.feed(stream[at : at + portion])
    assert (acks.count, acks.unmatched, acks.refused) == (count, unmatched, refused)


def test_a_disconnect_is_an_error() -> None:
    """A broker that says goodbye does not leave the load waiting."""
    said = mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.QUOTA_EXCEEDED).write()
    with pytest.raises(GatewayError, match="quota exceeded"):
        Acks().feed(PLAIN[0] + said)
