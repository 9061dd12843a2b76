"""Packet ids and digests of the records spooled last: what the broker may deliver again because an ack was lost.

Hazard: a packet id comes again for another message, perhaps of the same bytes. The broker takes ids in turn and
reuses none before our acknowledgement, so an entry is believed only until 65 535 more messages came for the first
time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from gateway.buffer.records import Record

WINDOW = 65_535
"""Most messages that can be unacknowledged: as many as there are packet ids (MQTT 5 §2.2.1)."""
_DIGEST_BYTES = 8


class Recent:
    """For each packet id the digest of the last record spooled under it. 1 MiB, whatever happens.

    Messages are counted over processes: each one's turns go on where its predecessor's ended, as far as its
    records tell.
    """

    def __init__(self, digest: Callable[[Record], bytes]) -> None:
        self._digest = digest
        self._digests = array("Q", bytes(8 * (WINDOW + 1)))
        self._received = array("Q", bytes(8 * (WINDOW + 1)))
        self._base, self._last, self._epoch = 1, 0, b""

    def begin(self, epoch: bytes) -> None:
        """The records that follow were received by the process with this id."""
        if epoch != self._epoch:
            self._base, self._epoch = self._last + 1, epoch

    def add(self, record: Record) -> None:
        """A record was spooled."""
        received = self._base + record.turn
        self._last = max(self._last, received)
        if record.packet_id:
            self._digests[record.packet_id] = _as_int(self._digest(record))
            self._received[record.packet_id] = received

    def knows(self, packet_id: int, digest: bytes, turn: int) -> bool:
        """Whether a message is spooled already.

        Args:
            turn: how far packet ids have come in this process.
        """
        received = self._received[packet_id]
        return (
            received > 0
            and self._base + turn - received <= WINDOW
            and self._digests[packet_id] == _as_int(digest)
        )


def _as_int(digest: bytes) -> int:
    return int.from_bytes(digest[:_DIGEST_BYTES], "little")
