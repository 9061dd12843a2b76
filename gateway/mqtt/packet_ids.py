"""How far a broker's packet ids have come in a session. Pure.

Most brokers hand ids out in turn, 1 … 65 535 and again from 1, so an id comes again only after all others. Seen
otherwise: HiveMQ and rumqttd use a small pool again and again; RabbitMQ, Moquette, mochi and rumqttd begin anew at
every connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.messages import PACKET_IDS as IDS

_AHEAD = IDS // 2


class PacketIds:
    """The ids of one session, unrolled: an id that is handed out in turn is ahead of all before it.

    Attributes:
        turn: the highest id so far, counted on over the wrap: ``turn % 65535`` is the id. 0: none came.
        in_turn: no id came again before all others had, and on no connection one behind its predecessor: what is sent
            again is sent in its order (MQTT 5 §4.6).
        read: turn up to which the broker has read our acks.
        previous: the last id of this connection; 0: none came.
    """

    def __init__(self, *, in_turn: bool = True) -> None:
        self.turn = self.read = 0
        self.in_turn = in_turn
        self.previous = 0

    def connected(self) -> None:
        """A connection begins: what is in flight is sent again."""
        self.previous = 0

    def observe(self, ids: Sequence[int], *, consecutive: bool) -> None:
        """Ids of messages that came for the first time, in their order; no zeros.

        Args:
            consecutive: what :func:`are_consecutive` says of them.
        """
        if not ids:
            return
        if consecutive and ids[0] == self.turn % IDS + 1:
            self.turn += len(ids)
            self.previous = ids[-1]
            return
        for packet_id in ids:
            self.observe_one(packet_id, fresh=True)

    def observe_one(self, packet_id: int, *, fresh: bool) -> None:
        """One id. ``fresh``: it is no redelivery, so an id that lies behind is handed out anew."""
        self.check(packet_id, self.previous)
        self.previous = packet_id
        ahead = (packet_id - self.turn) % IDS
        if 0 < ahead <= _AHEAD or not self.turn:
            self.turn += ahead or IDS
        elif fresh:
            self.in_turn = False

    def check(self, packet_id: int, previous: int) -> None:
        """See that an id follows its predecessor of the same connection, and that the first was not read before."""
        if previous:
            self.in_turn &= is_ahead(packet_id, previous)
        elif self.read and not is_ahead(packet_id, self.turn):
            self.in_turn &= self.turn_of(packet_id) > self.read

    def is_behind(self, packet_id: int) -> bool:
        """Whether an id has been used before, as far as ids are handed out in turn."""
        return bool(self.turn) and not is_ahead(packet_id, self.turn)

    def turn_of(self, packet_id: int, newer: int = 0) -> int:
        """Where an id lies after which so many others came.

        Hazard: mosquitto resumes a session with all that waits in it, whatever our receive maximum. Then more than a
        round of ids is outstanding, and the id alone does not say in which of two rounds it came.
        """
        behind = (self.turn - packet_id) % IDS
        return self.turn - behind - max(0, round((newer - behind) / IDS)) * IDS


def are_consecutive(ids: Sequence[int]) -> bool:
    """Whether each of these ids, no zeros, is the next after its predecessor, over the wrap as well."""
    if not ids:
        return True
    first, stop = ids[0], ids[0] + len(ids)
    if stop <= IDS + 1:
        return ids == list(range(first, stop))
    return ids == [*range(first, IDS + 1), *range(1, stop - IDS)]


def is_ahead(packet_id: int, of: int) -> bool:
    """Whether an id comes within half a round after another one, or after a turn."""
    return 0 < (packet_id - of) % IDS <= _AHEAD
