"""From readings to rows: whose each is, at what time, what is flagged in it. Plain synchronous code, for any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gateway.batches import MessageId
from gateway.errors import MessageError
from gateway.ingest.new_chunks import FRESH_US
from gateway.ingest.routes import TopicRoute
from gateway.ingest.validation import flag_time
from gateway.messages import Device, Message, Reading
from gateway.outcomes import Reason

_LONGEST_ID = 255
"""Characters of a message's own id, by which an index finds it: PostgreSQL has no keys of more than 2.7 kB."""

OwnerOf = Callable[[Reading], Device]
"""Whose the reading is. Raises :class:`gateway.errors.MessageError`."""
ReceiveTime = Callable[[Device], int]
"""The receive time, µs, of the next reading of this device that has no time of its own."""


class EncodedRows(msgspec.Struct):
    """What the readings of a message became.

    Attributes:
        rows: one a reading, in the order of the readings.
        untimed: the receive time given to the first reading without a time, µs.
        ids: the message's own.
        flags: reasons of what was flagged.
        far: times, µs, for which there may be no chunk yet.
    """

    rows: list[bytes]
    untimed: int | None
    ids: list[MessageId]
    flags: list[str]
    far: list[int]


class ConsecutiveTimes:
    """Receive times without a gap, whatever the device: a spool keeps the first, and must come to the same ones again.

    Args:
        first: says it, µs, when it is needed.
    """

    def __init__(self, first: Callable[[], int]) -> None:
        self._first, self._next_us = first, 0

    def __call__(self, _owner: Device) -> int:
        """The next one."""
        time_us = self._next_us or self._first()
        self._next_us = time_us + 1
        return time_us


def reserve(owners: Iterable[Device], count: int, received_us: int) -> int:
    """The first of so many receive times, µs, that no reading of these devices has; none will get them."""
    owners = list(owners)
    first_us = max(received_us, 1 + max(owner.last_receive_us for owner in owners))
    for owner in owners:
        owner.last_receive_us = first_us + count - 1
    return first_us


def encode(
    readings: Sequence[Reading],
    message: Message,
    route: TopicRoute,
    received_us: int,
    *,
    judge_time: Callable[[int | None, int], int | None],
    owner_of: OwnerOf,
    receive_time: ReceiveTime,
) -> EncodedRows:
    """All readings of a message.

    Args:
        judge_time: see :class:`gateway.ingest.validation.TimeCheck`.

    Raises:
        MessageError: for one of them; the message is refused as a whole.
    """
    rows: list[bytes] = []
    ids: list[MessageId] = []
    flags, far = list[str](), list[int]()
    encode_row, untimed = route.layout.encode, None
    try:
        for reading in readings:
            owner = owner_of(reading)
            time_us = judge_time(reading.time_us, received_us)
            if time_us is None:
                time_us = receive_time(owner)
                untimed = untimed or time_us
            elif not -FRESH_US < received_us - time_us < FRESH_US:
                far.append(time_us)
            own_id = reading.message_id if route.id_in_payload else route.own_id(message)
            if own_id is not None:
                ids.append(_message_id(owner, own_id))
            flagged = None if owner.check is None else owner.check(reading)
            untimely = reading.unused_time is not None or time_us != reading.time_us is not None
            metadata = reading.metadata
            if flagged or untimely or reading.message_id is not None:
                flagged = flag_time(reading, time_us, owner.type, flagged) if untimely else flagged
                metadata = _with_notes(reading, flagged, flags)
            rows.append(encode_row(time_us, owner.columns, reading.metrics, metadata, received_us))
    except MessageError as refused:
        raise refused if len(readings) == 1 else _in_one(refused, len(rows)) from None
    return EncodedRows(rows, untimed, ids, flags, far)


def _message_id(owner: Device, own_id: str) -> MessageId:
    """What the message is remembered by."""
    if len(own_id) > _LONGEST_ID:
        what = f"message_id of {len(own_id)} characters, more than {_LONGEST_ID}: {own_id[:40]!r}…"
        raise MessageError(Reason.BAD_SHAPE, what)
    return owner.tenant_id, f"{owner.id}:{own_id}"


def _in_one(refused: MessageError, index: int) -> MessageError:
    """The refusal of a message for one of its readings, which is named."""
    return MessageError(refused.reason, f"[{index}]: {refused.detail}")


def _with_notes(reading: Reading, flagged: dict[str, str] | None, flags: list[str]) -> dict[str, Any] | None:
    """What is stored beside the data: what the device said, what was flagged, the message's own id.

    Args:
        flags: the reasons of what was flagged are added here.
    """
    metadata = dict(reading.metadata or {})
    if flagged:
        metadata["violations"] = flagged
        flags.extend(flagged.values())
    if reading.message_id is not None:
        metadata["message_id"] = reading.message_id
    return metadata or None
