"""From a message to the rows it becomes: decode, resolve, validate, encode. Plain synchronous code."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import clock, settings, unreadable
from gateway.batches import MessageId, dead_letter_before
from gateway.devices.registry import Entry
from gateway.errors import MessageError
from gateway.ingest.new_chunks import FRESH_US, NewChunks
from gateway.ingest.routes import Routes, TopicRoute
from gateway.ingest.validation import TimeCheck, flag_time, receive_time
from gateway.ingest.waiting import Unresolved
from gateway.messages import Delivery, Device, Message, Reading, Receipt
from gateway.outcomes import Reason
from gateway.writer.layouts import Layout

_redelivered = operator.attrgetter("duplicate")
_DAY_US = 86_400 * clock.MICROS
_LONGEST_ID = 255
"""Characters of a message's own id, by which an index finds it: PostgreSQL has no keys of more than 2.7 kB."""

Encoded = tuple[bytes, int | None, list[MessageId], int]
"""All rows of a message; the receive time given to its first reading without a time, µs; its own ids; how many rows."""


class Intake:
    """The stages before the batch, one after the other."""

    def __init__(self, options: settings.ValidationSettings, routes: Routes, chunks: NewChunks) -> None:
        self._largest, self._routes, self._chunks = options.max_payload_bytes, routes, chunks
        self._max_days = options.max_days
        self._judge_time = TimeCheck(options).judge
        self.flagged: Counter[tuple[str, str]] = Counter()
        """What was flagged in readings that will be stored, by stream and reason, until the path reports it."""

    def fast_rows(
        self, delivery: Delivery, routes: Sequence[TopicRoute]
    ) -> tuple[list[bytes | None], Mapping[int, int]]:
        """The row of each message that is plain; None: :meth:`encode` decides.

        And the receive times, µs, that were given to those without a time, by index.
        """
        untimed: dict[int, int] = {}
        receipt = Receipt(delivery.received_us, untimed if _is_new(delivery) else None)
        rows = [
            None
            if (device := route.fast_device).fast_row is None or message.retain
            else device.fast_row(message.payload, device, route.reserved, at, receipt)
            for message, route, at in zip(delivery.messages, routes, range(len(routes)), strict=True)
        ]
        if untimed and None in rows:
            # Readings of a topic get their receive times in the order in which they came.
            others = {route for route, row in zip(routes, rows, strict=True) if row is None}
            for at in [at for at in untimed if routes[at] in others]:
                rows[at] = None
                del untimed[at]
        return rows, untimed

    def encode(self, message: Message, route: TopicRoute, delivery: Delivery) -> Encoded | Unresolved:
        """What the message becomes, or which devices must be looked up first.

        Raises:
            MessageError: it ends as a dead letter, or ignored.
        """
        # The conditions of _admit, which nearly no message meets: a call spared for all others.
        if route.ending is not None or message.retain or len(message.payload) > self._largest:
            self._admit(message, route)
        entry = route.entry
        device = None if entry is None else entry.device
        if device is None and entry is not None:
            if entry.refused() is None:
                return Unresolved([entry])
            raise _refusal(entry, route)
        readings = route.decode(message.payload)
        if device is None and (unknown := self._unknown(readings, route)):
            return Unresolved(unknown)
        return self._encode(readings, device, message, route, delivery)

    def _encode(
        self,
        readings: Sequence[Reading],
        device: Device | None,
        message: Message,
        route: TopicRoute,
        delivery: Delivery,
    ) -> Encoded:
        """All readings of a message; ``device``: that of the topic, None where the payload names them."""
        rows: list[bytes] = []
        ids: list[MessageId] = []
        flags, far = list[str](), list[int]()
        encode_row = route.layout.encode
        untimed, received_us, replayed = None, delivery.received_us, delivery.replayed
        next_us, alone = received_us if replayed else 0, device is not None and not replayed
        try:
            for reading in readings:
                owner = device if device and reading.device is None else self._owner(reading, route, device)
                time_us = self._judge_time(reading.time_us, received_us)
                if time_us is None:
                    time_us = (
                        receive_time(owner, received_us)
                        if alone
                        else next_us or self._first_time(readings, route, received_us)
                    )
                    untimed, next_us = untimed or time_us, time_us + 1
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
        if far or flags or len(rows) > self._max_days or message.retain:
            self._check_rarities(readings, rows, far, message, route, timed=untimed is None)
            self.flagged.update((route.stream_name, reason) for reason in flags)
        return rows[0] if len(rows) == 1 else b"".join(rows), untimed, ids, len(rows)

    def _check_rarities(
        self,
        readings: Sequence[Reading],
        rows: Sequence[bytes],
        far: Sequence[int],
        message: Message,
        route: TopicRoute,
        *,
        timed: bool,
    ) -> None:
        """What nearly no message has: readings of many days, of far ones, and the retain flag."""
        if len(rows) > self._max_days and _days_said(readings) > self._max_days:
            _check_days(route.layout, rows, self._max_days)
        if message.retain:
            _check_retained(route, timed=timed)
        if far and dead_letter_before(message) is None:
            self._chunks.admit(far, route.tenant)

    def _admit(self, message: Message, route: TopicRoute) -> None:
        """Let only those pass whose payload may be looked at."""
        fault = unreadable.fault(message)
        if fault is not None and route.ending is not Reason.STREAM_IGNORED:
            # Another one: an error and a frame that knows it keep each other, and the message.
            raise MessageError(fault.reason, fault.detail)
        if route.ending is not None:
            raise MessageError(route.ending, f"no stream takes the topic {message.topic[:200]!r}")
        if message.retain and route.retained == "ignore":
            raise _replayed()
        size = len(message.payload)
        if size > self._largest:
            raise MessageError(Reason.TOO_LARGE, f"{size} bytes (validation.max_payload_bytes)")

    def _unknown(self, readings: Sequence[Reading], route: TopicRoute) -> list[Entry]:
        """Which of the devices that the payload names must be looked up, where the topic names none."""
        named = {reading.device for reading in readings if reading.device is not None}
        entries = [self._routes.entry(route, serial_number) for serial_number in named]
        return [entry for entry in entries if entry.device is None and entry.refused() is None]

    def _first_time(self, readings: Sequence[Reading], route: TopicRoute, received_us: int) -> int:
        """The receive time of the first reading, where the payload names the devices; the others follow without a gap.

        A spool keeps this time only, and must come to the same times again: to date each device for itself would not.
        """
        owners = [self._owner(reading, route, None) for reading in readings]
        first_us = max(received_us, 1 + max(owner.last_receive_us for owner in owners))
        for owner in owners:
            owner.last_receive_us = first_us + len(readings) - 1
        return first_us

    def _owner(self, reading: Reading, route: TopicRoute, device: Device | None) -> Device:
        """The device that the payload names; it is that of the topic, where the topic names one."""
        if reading.device is None:
            raise MessageError(Reason.UNKNOWN_DEVICE, "neither the topic nor the payload names a device")
        if device is None:
            entry = self._routes.entry(route, reading.device)
            device = entry.device
            if device is None:
                raise _refusal(entry, route)
        if reading.device != device.serial_number:
            raise MessageError(Reason.DEVICE_MISMATCH, f"the payload speaks for {reading.device[:200]!r}")
        return device


def _is_new(delivery: Delivery) -> bool:
    """Whether surely no message of it was stored before: a reading without a time would not meet itself."""
    if delivery.replayed or delivery.repeats:
        return False
    return not (delivery.resumed and any(map(_redelivered, delivery.messages)))


def _days_said(readings: Sequence[Reading]) -> int:
    """How many days the readings may fall on at most; receive times are of two."""
    return 2 + len({one.time_us // _DAY_US for one in readings if one.time_us is not None})


def _check_days(layout: Layout, rows: Sequence[bytes], most: int) -> None:
    """Each day is a chunk or a partition that the transaction has to lock; there are not locks without end."""
    days = len({row.time_us // _DAY_US for blob in rows for row in layout.take_apart(blob)})
    if days > most:
        raise MessageError(
            Reason.TOO_MANY_DAYS, f"its readings fall on {days} days, more than {most} (validation.max_days)"
        )


def _message_id(owner: Device, own_id: str) -> MessageId:
    """What the message is remembered by."""
    if len(own_id) > _LONGEST_ID:
        what = f"message_id of {len(own_id)} characters, more than {_LONGEST_ID}: {own_id[:40]!r}…"
        raise MessageError(Reason.BAD_SHAPE, what)
    return owner.tenant_id, f"{owner.id}:{own_id}"


def _check_retained(route: TopicRoute, *, timed: bool) -> None:
    """Brokers replay what is retained at every subscribe; without a time it would be stored as if it were new."""
    if route.retained == "auto" and not timed:
        raise _replayed()


def _replayed() -> MessageError:
    return MessageError(Reason.RETAINED, "a retained message, replayed by the broker")


def _refusal(entry: Entry, route: TopicRoute) -> MessageError:
    """Why the messages of a refused device are not taken."""
    refusal = entry.refusal
    assert refusal is not None, "what is not decided is looked up first"
    if route.unknown_device == "ignore" and refusal is Reason.UNKNOWN_DEVICE:
        return MessageError(Reason.DEVICE_IGNORED, "the device is unknown")
    what = {
        Reason.UNKNOWN_TENANT: f"no tenant {entry.tenant!r}: `gateway tenant add`",
        Reason.UNKNOWN_DEVICE: f"no device {entry.serial_number!r} of tenant {entry.tenant!r}: `gateway device add`",
        Reason.PROVISIONING_LIMIT: f"device {entry.serial_number!r} of tenant {entry.tenant!r} is beyond what is "
        "provisioned within an hour (registry.provisioned_per_hour): replay it later, or `gateway device import`",
        Reason.DEVICE_DISABLED: f"device {entry.serial_number!r} is disabled: `gateway device enable`",
    }
    return MessageError(refusal, what[refusal])


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
