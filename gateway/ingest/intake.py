"""From a message to the rows it becomes: decode, resolve, validate, encode. Synchronous but for large messages."""

from __future__ import annotations

import asyncio
import functools
import operator
from collections import Counter
from collections.abc import Mapping, Sequence

from gateway import clock, settings, unreadable
from gateway.batches import MessageId, dead_letter_before
from gateway.devices.registry import Entry
from gateway.errors import MessageError
from gateway.ingest import row_encoding
from gateway.ingest.new_chunks import NewChunks
from gateway.ingest.routes import Routes, TopicRoute
from gateway.ingest.row_encoding import EncodedRows, OwnerOf, ReceiveTime
from gateway.ingest.validation import TimeCheck, receive_time
from gateway.ingest.waiting import LARGE_BYTES, Unresolved
from gateway.messages import Delivery, Device, Message, Reading, Receipt
from gateway.outcomes import Reason
from gateway.writer.layouts import Layout

_redelivered = operator.attrgetter("duplicate")
_DAY_US = 86_400 * clock.MICROS

Encoded = tuple[bytes, int | None, list[MessageId], int]
"""All rows of a message; the receive time given to its first reading without a time, µs; its own ids; how many rows."""


class Intake:
    """The stages before the batch, one after the other."""

    def __init__(self, options: settings.ValidationSettings, routes: Routes, chunks: NewChunks) -> None:
        self._largest, self._routes, self._chunks = options.max_payload_bytes, routes, chunks
        self._max_days = options.max_days
        self._judge_time = TimeCheck(options).judge
        self._encode_rows = functools.partial(row_encoding.encode, judge_time=self._judge_time)
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

        def owner_of(reading: Reading) -> Device:
            return device if device and reading.device is None else self._owner(reading, route, device)

        receive = _receive(readings, device, owner_of, delivery)
        encoded = self._encode_rows(
            readings, message, route, delivery.received_us, owner_of=owner_of, receive_time=receive
        )
        return self._checked(encoded, readings, message, route)

    def is_large(self, message: Message, route: TopicRoute) -> bool:
        """Whether this is for :meth:`encode_large`: it will be decoded, and that takes long."""
        if not LARGE_BYTES < len(message.payload) <= self._largest or route.ending is not None:
            return False
        if message.retain and (route.retained == "ignore" or unreadable.fault(message) is not None):
            return False
        return route.entry is None or route.entry.device is not None

    async def encode_large(
        self, message: Message, route: TopicRoute, delivery: Delivery
    ) -> Encoded | Unresolved:
        """Like :meth:`encode`, with the event loop free for others: what takes long is done in a thread.

        Hazard: that thread must touch nothing that the event loop changes. So whose the readings are, and which
        receive times they take, is settled before.
        """
        if not self.is_large(message, route):  # its device was forgotten meanwhile
            return self.encode(message, route, delivery)
        readings = await asyncio.to_thread(route.decode, message.payload)
        device = None if route.entry is None else route.entry.device
        if device is None and (unknown := self._unknown(readings, route)):
            return Unresolved(unknown)
        owners = self._owners(readings, route, device)
        first_us = delivery.received_us
        if not delivery.replayed and self._any_untimed(readings, first_us):
            known = [owner for owner in owners.values() if isinstance(owner, Device)]
            first_us = row_encoding.reserve(known, len(readings), first_us)

        def owner_of(reading: Reading) -> Device:
            owner = owners[reading.device]
            if isinstance(owner, MessageError):
                raise MessageError(owner.reason, owner.detail)
            return owner

        receive = row_encoding.ConsecutiveTimes(lambda: first_us)
        received_us, encode = delivery.received_us, self._encode_rows
        encoded = await asyncio.to_thread(
            encode, readings, message, route, received_us, owner_of=owner_of, receive_time=receive
        )
        return self._checked(encoded, readings, message, route)

    def _owners(
        self, readings: Sequence[Reading], route: TopicRoute, device: Device | None
    ) -> dict[str | None, Device | MessageError]:
        """Whose the readings are, by what they say, or why they are refused."""
        owners: dict[str | None, Device | MessageError] = {} if device is None else {None: device}
        for reading in readings:
            if reading.device not in owners:
                try:
                    owners[reading.device] = self._owner(reading, route, device)
                except MessageError as refused:
                    owners[reading.device] = MessageError(refused.reason, refused.detail)
        return owners

    def _any_untimed(self, readings: Sequence[Reading], received_us: int) -> bool:
        """Whether some reading takes a receive time."""
        return any(self._judge_time(reading.time_us, received_us) is None for reading in readings)

    def _checked(
        self, encoded: EncodedRows, readings: Sequence[Reading], message: Message, route: TopicRoute
    ) -> Encoded:
        rows = encoded.rows
        if encoded.far or encoded.flags or len(rows) > self._max_days or message.retain:
            self._check_rarities(readings, encoded, message, route)
            self.flagged.update((route.stream_name, reason) for reason in encoded.flags)
        return rows[0] if len(rows) == 1 else b"".join(rows), encoded.untimed, encoded.ids, len(rows)

    def _check_rarities(
        self, readings: Sequence[Reading], encoded: EncodedRows, message: Message, route: TopicRoute
    ) -> None:
        """What nearly no message has: readings of many days, of far ones, and the retain flag."""
        if len(encoded.rows) > self._max_days and _days_said(readings) > self._max_days:
            _check_days(route.layout, encoded.rows, self._max_days)
        if message.retain:
            _check_retained(route, timed=encoded.untimed is None)
        if encoded.far and dead_letter_before(message) is None:
            self._chunks.admit(encoded.far, route.tenant)

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


def _receive(
    readings: Sequence[Reading], device: Device | None, owner_of: OwnerOf, delivery: Delivery
) -> ReceiveTime:
    """What dates the readings without a time: of a topic's device by its own, else one after the other.

    A spool keeps the first time only: to date each device for itself would not come to the same again.
    """
    received_us = delivery.received_us
    if delivery.replayed:
        return row_encoding.ConsecutiveTimes(lambda: received_us)
    if device is not None:
        return functools.partial(receive_time, received_us=received_us)
    return row_encoding.ConsecutiveTimes(
        lambda: row_encoding.reserve(map(owner_of, readings), len(readings), received_us)
    )


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
    return MessageError(refusal, _REFUSALS[refusal].format(device=entry.serial_number, tenant=entry.tenant))


_REFUSALS = {
    Reason.UNKNOWN_TENANT: "no tenant {tenant!r}: `gateway tenant add`",
    Reason.UNKNOWN_DEVICE: "no device {device!r} of tenant {tenant!r}: `gateway device add`",
    Reason.PROVISIONING_LIMIT: "device {device!r} of tenant {tenant!r} is beyond what is provisioned within an hour "
    "(registry.provisioned_per_hour): replay it later, or `gateway device import`",
    Reason.DEVICE_DISABLED: "device {device!r} is disabled: `gateway device enable`",
}
