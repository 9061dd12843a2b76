"""What earlier processes spooled last, by packet id: what the broker may deliver again because an ack was lost.

What this process spools it knows by delivery number (``redeliveries``). Of what was spooled before, that is
believed which the redelivery ledger would believe too (:meth:`gateway.sessions.tracking.Sessions.believes`).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.messages import PACKET_IDS
from gateway.spool.records import Record


class Recent:
    """For each packet id the last record spooled under it; at most as many as there are ids."""

    def __init__(self, digest: Callable[[Record], bytes]) -> None:
        self._digest = digest
        self._found: dict[int, tuple[bytes, int, bytes]] = {}
        self._last: dict[bytes, int] = {}

    def add(self, record: Record) -> None:
        """A record of an earlier process, in the order of the appends."""
        if record.packet_id and record.session:
            self._found[record.packet_id] = record.session, record.turn, self._digest(record)
            self._last[record.session] = max(record.turn, self._last.get(record.session, 0))

    def knows(self, packet_id: int, digest: bytes, session: bytes, believes: Callable[[int], bool]) -> bool:
        """Whether this very message was spooled in the session, and what is noted of its position may be believed."""
        found_in, position, found = self._found.get(packet_id, (b"", 0, b""))
        if found_in != session or position <= self._last.get(session, 0) - PACKET_IDS:
            return False
        return found == digest and believes(position)
