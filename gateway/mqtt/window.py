"""The window of unacknowledged messages of one connection: settled in any order, acknowledged in order. Pure.

Acks leave in the order in which the messages came (MQTT 5 §4.6, [MQTT-4.6.0-2]): what may leave is the
settled prefix. All messages take a delivery number, QoS 0 as well; those have no packet id and need no ack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NO_ID = 0
"""Stands for the packet id of a QoS 0 message: MQTT never uses 0."""

_COMPACT_AT = 8192


class Window:
    """Delivery numbers to packet ids. Numbers rise without gaps over the window's whole life.

    The cost of a message is some 30 ns with contiguous ranges: one list entry, one byte, slices.
    """

    __slots__ = ("_base", "_head", "_ids", "_settled")

    def __init__(self) -> None:
        self._base = 0  # delivery number of _ids[0]
        self._head = 0  # what is before it has been acknowledged
        self._ids: list[int] = []
        self._settled = bytearray()

    def register(self, packet_ids: Sequence[int]) -> int:
        """Messages came, with these packet ids (``NO_ID`` at QoS 0): the delivery number of the first."""
        first = self._base + len(self._ids)
        self._ids += packet_ids
        self._settled += bytes(len(packet_ids))
        return first

    def settle(self, numbers: Iterable[int]) -> list[int]:
        """The packet ids whose acks may leave now, in the order in which the messages came.

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
        leaving = self._ids[head : self._head]
        if self._head > _COMPACT_AT and self._head * 2 > len(settled):
            self._compact()
        return [packet_id for packet_id in leaving if packet_id] if NO_ID in leaving else leaving

    def restart(self) -> None:
        """The connection is gone: the broker delivers again what was not acknowledged, under new numbers."""
        self._base += len(self._ids)
        self._head = 0
        self._ids.clear()
        self._settled.clear()

    @property
    def unacknowledged(self) -> int:
        """Messages that came and are not acknowledged, QoS 0 among them."""
        return len(self._ids) - self._head

    def _settle_range(self, numbers: range) -> None:
        start = max(numbers.start - self._base, self._head)
        stop = numbers.stop - self._base
        if stop > len(self._settled):
            raise IndexError(f"delivery number {numbers.stop - 1} was never given")
        if start < stop:
            self._settled[start:stop] = b"\1" * (stop - start)

    def _compact(self) -> None:
        self._base += self._head
        del self._ids[: self._head]
        del self._settled[: self._head]
        self._head = 0
