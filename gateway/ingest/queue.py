"""What waits in memory for a connection to the database."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gateway.batches import Batch
from gateway.messages import Delivery, Message


class Queue:
    """Batches waiting to be written: sealed ones first, then whatever has collected.

    Bounds are looked at between deliveries, also of messages that were deferred: a batch may exceed them by one.

    Args:
        max_rows, max_bytes: of a batch, as they go to the database.
    """

    def __init__(self, *, max_rows: int, max_bytes: int) -> None:
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self.open = Batch()
        self._sealed: deque[Batch] = deque()

    def open_for(self, delivery: Delivery, message: Message) -> Batch:
        """The batch that collects, for messages of this delivery: packet ids of two sessions are never in one.

        Args:
            message: one of the delivery, which itself may be without its messages.
        """
        if self.open.session is not delivery.session and len(self.open):
            self._sealed.append(self.open)
            self.open = Batch()
        self.open.comes_with(delivery, message)
        return self.open

    def seal_if_full(self) -> bool:
        """Close the open batch when it is full. True: a full batch waits."""
        if self.open.row_count >= self._max_rows or self.open.row_bytes >= self._max_bytes:
            self._sealed.append(self.open)
            self.open = Batch()
        return self.full

    @property
    def full(self) -> bool:
        """Whether a full batch waits."""
        return bool(self._sealed)

    @property
    def empty(self) -> bool:
        """Whether nothing is held."""
        return not (self._sealed or len(self.open))

    def take(self) -> Batch | None:
        """The batch to write next; None when nothing is held."""
        if self._sealed:
            return self._sealed.popleft()
        if not len(self.open):
            return None
        batch, self.open = self.open, Batch()
        return batch

    def __iter__(self) -> Iterator[Batch]:
        yield from self._sealed
        yield self.open
