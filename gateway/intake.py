"""From a message to the rows it becomes: decode, resolve, validate, encode. Plain synchronous code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway import settings
from gateway.batches import MessageId
from gateway.devices.registry import Entry
from gateway.errors import MessageError
from gateway.messages import Chunk, Device, Message, Reading
from gateway.outcomes import Reason
from gateway.routes import Route, Routes
from gateway.validation import TimeCheck, receive_time
from gateway.waiting import Unresolved
from gateway.writer.rows import encode as encode_row

Encoded = tuple[bytes, int | None, list[MessageId]]
"""All rows of a message; the receive time given to its first reading without a time, µs; its own ids."""


class Intake:
    """The stages before the batch, one after the other."""

    def __init__(self, options: settings.Validation, routes: Routes) -> None:
        self._options, self._routes = options, routes
        self._times = TimeCheck(options)

    def encode(self, message: Message, route: Route, chunk: Chunk) -> Encoded:
        """What the message becomes.

        Raises:
            MessageError: it ends as a dead letter, or ignored.
            Unresolved: devices must be looked up first.
        """
        device = self._admit(message, route)
        readings = route.decode(message.payload)
        if device is None:
            self._see_that_known(readings, route)
        rows: list[bytes] = []
        ids: list[MessageId] = []
        unkeyed, next_us = None, chunk.received_us
        for reading in readings:
            owner = device or self._owner(reading, route)
            if reading.device is not None and reading.device != owner.serial_number:
                raise MessageError(Reason.DEVICE_MISMATCH, f"the payload speaks for {reading.device[:200]!r}")
            time_us = self._times.judge(reading.time_us, chunk.received_us)
            if time_us is None:
                time_us = next_us if chunk.replayed else receive_time(owner, chunk.received_us)
                unkeyed, next_us = unkeyed or time_us, time_us + 1
            if route.carries_id and (own_id := route.own_id(message, reading)) is not None:
                ids.append((owner.tenant_id, f"{owner.id}:{own_id}"))
            rows.append(encode_row(time_us, owner.columns, reading.metrics, _metadata(reading, owner)))
        _mind_retained(message, route, keyed=unkeyed is None)
        return rows[0] if len(rows) == 1 else b"".join(rows), unkeyed, ids

    def _admit(self, message: Message, route: Route) -> Device | None:
        """The device of the topic; None where the payload names it."""
        if route.ending is not None:
            raise MessageError(route.ending, f"no stream takes the topic {message.topic[:200]!r}")
        if message.retain and route.retained == "ignore":
            raise _replayed()
        size = len(message.payload)
        if size > self._options.max_payload_bytes:
            raise MessageError(Reason.TOO_LARGE, f"{size} bytes (validation.max_payload_bytes)")
        entry = route.entry
        return None if entry is None else entry.device or _known(entry, route)

    def _see_that_known(self, readings: Sequence[Reading], route: Route) -> None:
        """Have all devices that the payload names looked up at once, where the topic names none."""
        named = {reading.device for reading in readings if reading.device is not None}
        entries = [self._routes.entry(route, serial_number) for serial_number in named]
        unknown = [entry for entry in entries if entry.device is None and entry.refused() is None]
        if unknown:
            raise Unresolved(unknown)

    def _owner(self, reading: Reading, route: Route) -> Device:
        """The device that the payload names, where the topic names none."""
        if reading.device is None:
            raise MessageError(Reason.UNKNOWN_DEVICE, "neither the topic nor the payload names a device")
        entry = self._routes.entry(route, reading.device)
        return entry.device or _known(entry, route)


def _mind_retained(message: Message, route: Route, *, keyed: bool) -> None:
    """Brokers replay what is retained at every subscribe; without a time it would be stored as if it were new."""
    if message.retain and route.retained == "auto" and not keyed:
        raise _replayed()


def _replayed() -> MessageError:
    return MessageError(Reason.RETAINED, "a retained message, replayed by the broker")


def _known(entry: Entry, route: Route) -> Device:
    """The device of an entry that has none now: always raises, says what becomes of the message."""
    refusal = entry.refused()
    if refusal is None:
        raise Unresolved([entry])
    if route.unknown_device == "ignore" and refusal is Reason.UNKNOWN_DEVICE:
        raise MessageError(Reason.DEVICE_IGNORED, "the device is unknown")
    what = {
        Reason.UNKNOWN_TENANT: f"no tenant {entry.tenant!r}: `gateway tenant add`",
        Reason.UNKNOWN_DEVICE: f"no device {entry.serial_number!r} of tenant {entry.tenant!r}: `gateway device add`",
        Reason.DEVICE_DISABLED: f"device {entry.serial_number!r} is disabled: `gateway device enable`",
    }
    raise MessageError(refusal, what[refusal])


def _metadata(reading: Reading, owner: Device) -> dict[str, Any] | None:
    """What is stored beside the data: what the device said, what the check flagged, the message's own id."""
    metadata = reading.metadata
    if owner.check is not None and (flagged := owner.check(reading)):
        metadata = {**(metadata or {}), "violations": flagged}
    if reading.message_id is not None:
        metadata = {**(metadata or {}), "message_id": reading.message_id}
    return metadata
