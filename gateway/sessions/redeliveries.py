"""What this process has brought to its end and the broker may deliver again: its digests, by delivery number. Pure.

A message is named by the number under which it came, so that nothing is believed of an id alone: the source says which
earlier delivery a message repeats, and only when both are of the same bytes is it the same message.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from gateway.messages import DIGEST_BYTES, Message, digest


class _Batch(msgspec.Struct, frozen=True):
    """Messages that ended together; ``digests`` joined.

    16 bytes a message: a broker that is behind with its answers leaves hundreds of thousands here.
    """

    last: int
    numbers: array[int]
    digests: bytes

    def each(self) -> Iterator[tuple[int, bytes]]:
        """Number and digest of each message."""
        starts = range(0, len(self.digests), DIGEST_BYTES)
        return zip(self.numbers, (self.digests[at : at + DIGEST_BYTES] for at in starts), strict=True)


class Redeliveries:
    """The memory of one path. Only what would look new when it came again has to be entered."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._found: dict[int, bytes] | None = (
            None  # made when it is first asked for, and kept up from then on
        )

    def enter(self, numbers: Sequence[int], digests: Sequence[bytes]) -> None:
        """These have come to their end, or will have before :meth:`knows` is called for them."""
        if numbers:
            self._batches.append(_Batch(max(numbers), array("q", numbers), b"".join(digests)))
            if (
                self._found is not None
            ):  # each message that is known again is entered: it must not cost all others
                self._found.update(zip(numbers, digests, strict=True))

    def forget(self, before: int) -> None:
        """The broker has read the acknowledgements of all messages before this number."""
        while self._batches and self._batches[0].last < before:
            forgotten = self._batches.popleft()
            if self._found is not None:
                for number in forgotten.numbers:
                    self._found.pop(number, None)
        if not self._batches:
            self._found = None

    def knows(self, number: int, message: Message) -> bool:
        """Whether this very message came to its end as the delivery with that number."""
        return self._entered().get(number) == digest(message)

    def digests(self, numbers: Sequence[int]) -> list[bytes]:
        """Of those of these deliveries that were entered, in this order."""
        entered = self._entered()
        return [entered[number] for number in numbers if number in entered]

    def _entered(self) -> dict[int, bytes]:
        if self._found is None:
            # Asked after a lost connection only, for many messages then, and for what is sent again on one.
            self._found = {number: one for batch in self._batches for number, one in batch.each()}
        return self._found
