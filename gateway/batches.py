"""A batch: messages that go to the database together, encoded."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

from gateway.errors import MessageError
from gateway.messages import NO_SESSION, DeadLetter, Delivery, Message, Share
from gateway.outcomes import MessageIdReused, OnConflict, Tally

MessageId = tuple[uuid.UUID, str]
"""A message's own id: tenant, and a text that is unique within it."""

OVERHEAD_BYTES = 640
"""What one held message costs beside its bytes: packet, and slots in lists."""
DEFERRED_BYTES = 640
"""What one that is deferred costs besides: what is kept of its delivery, and mostly a route and a device's entry of its
own, which nothing else holds."""
_PROPERTY_BYTES = 160
"""What a user property costs beside its bytes: a tuple of two texts."""
_NEVER = 2**63
_MOST_KEYS = 10_000
"""Of which the times are remembered, as long as they lie ahead."""


class Route(Protocol):
    """Which stream a message came by, and what its topic says."""

    @property
    def stream_name(self) -> str:
        """Name of the stream."""

    @property
    def on_conflict(self) -> OnConflict:
        """What the stream does about another reading of the same device and time."""

    @property
    def table(self) -> str:
        """Which table its rows go to; see :class:`gateway.writer.layouts.StreamTarget`."""

    @property
    def message_id_reused(self) -> MessageIdReused:
        """What becomes of a message whose own id another message had: ``store`` or ``dead_letter``."""

    @property
    def tally(self) -> Tally:
        """The stream's books."""

    @property
    def tenant(self) -> str | None:
        """The tenant, as the topic or the stream names it."""

    @property
    def serial_number(self) -> str | None:
        """The device, as the topic names it."""

    @property
    def share(self) -> Share:
        """With which others its dead letters share what is kept of an hour."""


def held_bytes(message: Message) -> int:
    """What a message costs in memory, about."""
    size = len(message.payload) + len(message.topic) + OVERHEAD_BYTES
    return size + _of_properties(message) if message.user_properties else size


def _of_properties(message: Message) -> int:
    return sum(len(name) + len(value) + _PROPERTY_BYTES for name, value in message.user_properties)


class Batch:
    """Messages that go to the database in one transaction, if it will have them all.

    Parallel lists, an index is a message: its delivery number, itself, its origin, its receive time, and all its rows
    encoded and joined. Dead letters have lists of their own.

    Attributes:
        untimed: messages with a reading that had no time of its own, by index: the receive time given to the first
            such reading, µs. Only the redelivery ledger can know these messages again.
        ids: of messages that carry ids of their own, by index.
        replayed: some messages were dead letters before.
        spooled: some messages were in the spool, where those go, too, whose commit got no answer.
        session, turn: of the latest delivery that a message of it came in; see :class:`gateway.messages.Delivery`.
        size: bytes held in memory.
        row_count, row_bytes: what goes to the database: rows, and their bytes as encoded; a dead letter is a row.
    """

    __slots__ = (
        "dead_letter_numbers",
        "dead_letter_routes",
        "dead_letters",
        "ids",
        "messages",
        "numbers",
        "received_us",
        "replayed",
        "routes",
        "row_bytes",
        "row_count",
        "rows",
        "session",
        "size",
        "spooled",
        "turn",
        "untimed",
    )

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.messages: list[Message] = []
        self.routes: list[Route] = []
        self.received_us: list[int] = []
        self.rows: list[bytes] = []
        self.untimed: dict[int, int] = {}
        self.ids: dict[int, Sequence[MessageId]] = {}
        self.replayed = self.spooled = False
        self.dead_letters: list[DeadLetter] = []
        self.dead_letter_numbers: list[int] = []
        self.dead_letter_routes: list[Route] = []
        self.session, self.turn = NO_SESSION, 0
        self.size = self.row_count = self.row_bytes = 0

    def __len__(self) -> int:
        return len(self.numbers) + len(self.dead_letters)

    def comes_with(self, delivery: Delivery, message: Message) -> None:
        """A message of this delivery follows: the batch is of its session. Of a delivery all are replayed, or none."""
        self.session, self.turn = delivery.session, max(self.turn, delivery.turn)
        if not delivery.replayed:
            return
        if dead_letter_before(message) is None:
            self.spooled = True
        else:
            self.replayed = True

    def add(
        self,
        number: int,
        message: Message,
        route: Route,
        received_us: int,
        row: bytes,
        *,
        readings: int = 1,
        untimed: int | None = None,
        ids: Sequence[MessageId] = (),
    ) -> None:
        """Hold a message with its rows, one a reading.

        Args:
            untimed, ids: see the attributes.
        """
        if untimed is not None:
            self.untimed[len(self.numbers)] = untimed
        if ids:
            self.ids[len(self.numbers)] = ids
        self.numbers.append(number)
        self.messages.append(message)
        self.routes.append(route)
        self.received_us.append(received_us)
        self.rows.append(row)
        self.row_count += readings
        self.row_bytes += len(row)
        self.size += held_bytes(message) + len(row)

    def add_all(
        self,
        delivery: Delivery,
        routes: Sequence[Route],
        rows: Sequence[bytes],
        untimed: Mapping[int, int],
    ) -> None:
        """Hold all messages of a delivery, each with one row.

        Args:
            untimed: by index, the receive times, µs, that were given to readings without a time.
        """
        count, held = len(rows), len(self.numbers)
        if untimed:
            self.untimed.update({held + at: received_us for at, received_us in untimed.items()})
        self.numbers += range(delivery.first, delivery.first + count)
        self.messages += delivery.messages
        self.routes += routes
        self.received_us += [delivery.received_us] * count
        self.rows += rows
        messages, encoded = delivery.messages, sum(map(len, rows))
        received = sum([len(message.payload) + len(message.topic) for message in messages])
        with_more = [message for message in messages if message.user_properties]
        self.row_count += count
        self.row_bytes += encoded
        self.size += received + encoded + OVERHEAD_BYTES * count + sum(map(_of_properties, with_more))

    def add_dead_letter(self, number: int, route: Route, letter: DeadLetter) -> None:
        """Hold a message on its way to the dead letters."""
        self.dead_letters.append(letter)
        self.dead_letter_numbers.append(number)
        self.dead_letter_routes.append(route)
        self.row_count += 1
        self.row_bytes += len(letter.message.payload) + len(letter.message.topic)
        self.size += held_bytes(letter.message) + OVERHEAD_BYTES

    def pick(self, indices: Sequence[int], letters: Sequence[int]) -> Batch:
        """These messages and dead letters, in this order, as a batch of their own.

        It is written as it is: how many rows it has is not counted.
        """
        picked = Batch()
        picked.session, picked.turn = self.session, self.turn
        picked.replayed, picked.spooled = self.replayed, self.spooled
        for index in indices:
            picked.add(
                self.numbers[index],
                self.messages[index],
                self.routes[index],
                self.received_us[index],
                self.rows[index],
                untimed=self.untimed.get(index),
                ids=self.ids.get(index, ()),
            )
        for index in letters:
            picked.add_dead_letter(
                self.dead_letter_numbers[index], self.dead_letter_routes[index], self.dead_letters[index]
            )
        return picked

    def dead_letter_for(self, index: int, error: MessageError) -> DeadLetter:
        """The message with this index as a dead letter."""
        return dead_letter(
            self.numbers[index],
            self.messages[index],
            self.routes[index],
            self.untimed.get(index, self.received_us[index]),
            error,
        )

    def row_bytes_of(self, indices: Sequence[int]) -> int:
        """Of the rows of these messages, as encoded."""
        return sum(len(self.rows[index]) for index in indices)

    def oldest(self) -> int:
        """The least delivery number."""
        return min(min(self.numbers, default=_NEVER), min(self.dead_letter_numbers, default=_NEVER))

    def count_by_stream(self) -> Counter[str]:
        """How many messages of each stream are held."""
        return Counter(route.stream_name for route in (*self.routes, *self.dead_letter_routes))


def dead_letter(
    number: int, message: Message, route: Route, received_us: int, error: MessageError
) -> DeadLetter:
    """The message as a dead letter; the one it was before, when it is replayed."""
    before = dead_letter_before(message)
    return DeadLetter(
        number,
        message,
        route.stream_name,
        received_us,
        error.reason,
        error.detail,
        identity=identity(number, message) if before is None else before.bytes,
        tenant=route.tenant,
        device=route.serial_number,
        share=route.share,
        replay_failed=before is not None,
    )


class UniqueReceiveTimes:
    """Receive times that no two messages share, with room for the readings of each."""

    def __init__(self) -> None:
        self.last_us = 0

    def next(self, received_us: int, readings: int = 1) -> int:
        """The first of this message's own, not before ``received_us``, µs; the others follow without a gap."""
        own = max(received_us, self.last_us + 1)
        self.last_us = own + readings - 1
        return own


class UniqueReceiveTimesByKey:
    """The same apart for each key, so that many readings of one device do not date those of all others ahead."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, UniqueReceiveTimes] = {}
        self._full = _MOST_KEYS

    def next(self, key: Hashable, received_us: int, readings: int = 1) -> int:
        """See :meth:`UniqueReceiveTimes.next`."""
        if len(self._by_key) >= self._full:
            self._by_key = {key: own for key, own in self._by_key.items() if own.last_us >= received_us}
            self._full = max(_MOST_KEYS, 2 * len(self._by_key))
        return self._by_key.setdefault(key, UniqueReceiveTimes()).next(received_us, readings)


def dead_letter_before(message: Message) -> uuid.UUID | None:
    """The dead letter that the message was before it was replayed."""
    found: uuid.UUID | None = getattr(message, "dead_letter_id", None)
    return found


def identity(number: int, message: Message) -> bytes:
    """Sixteen bytes that are this message's alone among those of all processes, the same after a stay in the spool."""
    spooled: bytes | None = getattr(message, "identity", None)
    return spooled or hashlib.blake2b(_EPOCH + number.to_bytes(8), digest_size=16).digest()


_EPOCH = uuid.uuid4().bytes
"""Of this process: delivery numbers begin at 0 in each."""
