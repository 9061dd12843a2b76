"""The window of unacknowledged messages of one connection: settled in any order, acknowledged in order. Pure.

Acks leave in the order in which the messages came (MQTT 5 §4.6, [MQTT-4.6.0-2]): what may leave is the
settled prefix. All messages take a delivery number, QoS 0 as well; those have no packet id and need no ack.

An ack that left may still be lost with the connection. Packet ids are kept until the broker is known to have read
their acks, so that :meth:`Window.restart` can tell what may come again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.messages import NO_REPEATS, PACKET_IDS

NO_ID = 0
"""Stands for the packet id of a QoS 0 message: MQTT never uses 0."""

_COMPACT_AT = 8192


class Outstanding(NamedTuple):
    """A message that the broker may deliver again when the connection is gone.

    Attributes:
        number: its delivery number.
        sent: its ack has left, and may have been read. Where it has not, the message surely comes again.
    """

    number: int
    sent: bool


class Window:
    """Delivery numbers to packet ids. Numbers rise without gaps over the window's whole life.

    The cost of a message is some 30 ns with contiguous ranges: one list entry, one byte, slices.

    Args:
        first: the first of the numbers.
    """

    __slots__ = ("_base", "_confirmed", "_head", "_ids", "_resent", "_settled", "held", "last")

    def __init__(self, first: int = 0) -> None:
        self._base = first  # delivery number of _ids[0]
        self._head = 0  # the acks of what is before it have left
        self._confirmed = 0  # and the broker has read the acks of what is before this
        self._ids: list[int] = []
        self._settled = bytearray()
        self._resent: dict[int, int] = {}  # what was sent again, and which message has its ack
        self.last = NO_ID
        """The last packet id of this connection, but for what was sent again."""
        self.held = False
        """Acks could leave, and were not let."""

    def register(self, packet_ids: Sequence[int], *, resent: Mapping[int, int] = NO_REPEATS) -> int:
        """Messages came, with these packet ids (``NO_ID`` at QoS 0): the delivery number of the first.

        Args:
            resent: of those that have no ack of their own (their id is ``NO_ID``), the delivery number of the message
                under whose id they came; its ack waits until they are settled too, if it has not left.
        """
        first = self.next
        self._ids += packet_ids
        self._settled += bytes(len(packet_ids))
        unsent = self._base + self._head
        self._resent.update((number, one) for number, one in resent.items() if one >= unsent)
        self.last = next(filter(None, reversed(packet_ids)), self.last)
        return first

    @property
    def next(self) -> int:
        """The delivery number of the next message."""
        return self._base + len(self._ids)

    def goes_on_with(self, ids: Sequence[int], *, consecutive: bool) -> bool:
        """Whether these ids, no zeros, are handed out in turn after the last one, so that all are of new messages.

        Hazard: mosquitto resumes a session with more than a round of ids unacknowledged: they may be here all the same.

        Args:
            consecutive: what :func:`gateway.mqtt.packet_ids.are_consecutive` says of them.
        """
        follow = len(self._ids) == self._confirmed or ids[:1] == [self.last % PACKET_IDS + 1]
        return not ids or (consecutive and follow)

    def found(self, ids: Collection[int], *, sent: bool) -> dict[int, Outstanding]:
        """Those under these packet ids whose ack has not left; ``sent``: whose ack is not known to have been read."""
        since = self._confirmed if sent else self._head
        here = self._ids[since:]
        return {} if set(ids).isdisjoint(here) else self._by_id(since)

    def _by_id(self, since: int) -> dict[int, Outstanding]:
        # Of two messages under one id the later counts: the ack of the earlier was read, or the id were not free.
        return {
            packet_id: Outstanding(self._base + at, at < self._head)
            for at, packet_id in enumerate(self._ids[since:], since)
            if packet_id != NO_ID
        }

    def settle(self, numbers: Iterable[int], until: int | None = None) -> list[int]:
        """The packet ids whose acks may leave now, in the order in which the messages came.

        Args:
            until: those of this delivery number and later stay, for a later call.

        Numbers from before :meth:`restart` are forgotten, and one settled twice counts once.

        Raises:
            IndexError: a number that was never given.
        """
        settled, head = self._settled, self._head
        if isinstance(numbers, range) and numbers.step == 1:
            self._settle_range(numbers)
        else:
            base = self._base
            for number in numbers:
                if number >= base:
                    settled[number - base] = 1
        unsettled = settled.find(0, head)
        self._head = unsettled if unsettled >= 0 else len(settled)
        if self._resent:
            self._head = min(self._head, self._first_sent_again())
        self.held = until is not None and self._head > max(head, until - self._base)
        if self.held and until is not None:
            self._head = max(head, until - self._base)
        leaving = self._ids[head : self._head]
        if self._confirmed > _COMPACT_AT and self._confirmed * 2 > len(settled):
            self._compact()
        return [packet_id for packet_id in leaving if packet_id] if NO_ID in leaving else leaving

    def restart(self) -> dict[int, Outstanding]:
        """The connection is gone: the broker delivers again what it has no ack of, under new numbers; by packet id."""
        outstanding = self._by_id(self._confirmed)
        self._base = self.next
        self._head = self._confirmed = 0
        self.last, self.held = NO_ID, False
        self._resent.clear()
        self._ids.clear()
        self._settled.clear()
        return outstanding

    @property
    def confirmed(self) -> int:
        """The broker has read the acks of all messages before this number."""
        return self._base + self._confirmed

    @property
    def acknowledged(self) -> int:
        """The acks of all messages before this number have left."""
        return self._base + self._head

    def confirm(self, before: int) -> int:
        """The broker has read the acks of what came before this number; the last new packet id of it, or ``NO_ID``."""
        at = before - self._base
        if at <= self._confirmed:
            return NO_ID
        ids, self._confirmed = self._ids[self._confirmed : at], at
        return next((packet_id for packet_id in reversed(ids) if packet_id), NO_ID)

    def newer(self, number: int) -> int:
        """How many messages with packet ids of their own came from this number on."""
        ids = self._ids[number - self._base :]
        return len(ids) - ids.count(NO_ID)

    @property
    def unacknowledged(self) -> int:
        """Messages that came and are not acknowledged, QoS 0 among them."""
        return len(self._ids) - self._head

    def _first_sent_again(self) -> int:
        """Where the first message is of which what came again under its id is not settled."""
        self._resent = {
            number: first for number, first in self._resent.items() if not self._settled[number - self._base]
        }
        return min(self._resent.values(), default=self.next) - self._base

    def _settle_range(self, numbers: range) -> None:
        start = max(numbers.start - self._base, self._head)
        stop = numbers.stop - self._base
        if stop > len(self._settled):
            raise IndexError(f"delivery number {numbers.stop - 1} was never given")
        if start < stop:
            self._settled[start:stop] = b"\1" * (stop - start)

    def _compact(self) -> None:
        self._base += self._confirmed
        del self._ids[: self._confirmed]
        del self._settled[: self._confirmed]
        self._head -= self._confirmed
        self._confirmed = 0
