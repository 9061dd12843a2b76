"""Batches and settings as the path makes them, for tests of what comes after."""

from __future__ import annotations

import itertools
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import mqtt5
from pydantic import SecretStr

from gateway import batches, settings
from gateway.batches import Batch
from gateway.errors import MessageError
from gateway.messages import Device, DeviceType, Field, Share
from gateway.outcomes import MessageIdReused, OnConflict, Reason, Tally, UnknownFields, Violations
from gateway.writer import rows
from gateway.writer.layouts.document import encoding
from tests.support.databases import Databases

BEGAN = "GATEWAY_TEST_BEGAN_US"
NOW_US = int(os.environ.setdefault(BEGAN, str(time.time_ns() // 1_000_000_000 * 1_000_000)))
"""When the tests began, µs, in whole seconds: one for all workers, as it is in the names of tests."""
ANYTHING_GOES = DeviceType(uuid.uuid4(), "anything", {})


class StubRoute:
    """A stream, as a batch sees it."""

    def __init__(
        self,
        on_conflict: OnConflict = "merge",
        *,
        tenant: str | None = "acme",
        device: str | None = "S-1",
        message_id_reused: MessageIdReused = "store",
        table: str = "telemetry",
        share: Share = "device",
    ) -> None:
        self.stream_name, self.tally = "telemetry", Tally()
        self.share: Share = share
        self.on_conflict: OnConflict = on_conflict
        self.tenant, self.serial_number = tenant, device
        self.message_id_reused: MessageIdReused = message_id_reused
        self.table = table


def a_device(serial_number: str = "S-1") -> Device:
    """A device that no other test has."""
    device = Device(uuid.uuid4(), uuid.uuid4(), serial_number, "acme", ANYTHING_GOES)
    device.columns = rows.device_columns(device)
    return device


def a_type(
    *fields: Field, violations: Violations = "flag", unknown_fields: UnknownFields = "keep"
) -> DeviceType:
    """A device type with these fields."""
    named = {field.name: field for field in fields}
    return DeviceType(uuid.uuid4(), "sensor", named, violations, unknown_fields)


_packet_ids = itertools.cycle(range(1, 65_536))


def published(
    topic: str,
    payload: bytes | Mapping[str, Any] | Sequence[Any],
    *,
    qos: int = 1,
    packet_id: int | None = None,
    **rest: Any,
) -> mqtt5.PublishPacket:
    """A message as the MQTT library yields it; at QoS 1 with a packet id, the next one unless it is given."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    number = (next(_packet_ids) if packet_id is None else packet_id) if qos else None
    return mqtt5.PublishPacket(topic, raw, qos=mqtt5.QoS(qos), packet_id=number, **rest)


class Filling:
    """Fills a batch; each method returns the index that its message got there. No two messages have one number."""

    _numbers = itertools.count()

    def __init__(self, batch: Batch | None = None) -> None:
        self.batch = Batch() if batch is None else batch

    def timed(
        self,
        device: Device,
        time_us: int,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        on_conflict: OnConflict = "merge",
        qos: int = 1,
        received_us: int = NOW_US,
    ) -> int:
        """A message with one reading that has a time of its own."""
        encoded = encoding.encode(time_us, device.columns, data, metadata, received_us)
        index = self.message(device, encoded, data, on_conflict=on_conflict, qos=qos)
        self.batch.received_us[index] = received_us
        return index

    def untimed(
        self,
        device: Device,
        received_us: int,
        data: dict[str, Any],
        *,
        on_conflict: OnConflict = "merge",
        qos: int = 1,
    ) -> int:
        """A message with one reading that got its receive time as key."""
        index = self.message(
            device,
            encoding.encode(received_us, device.columns, data, None),
            data,
            on_conflict=on_conflict,
            qos=qos,
        )
        self.batch.untimed[index] = received_us
        return index

    def message(
        self, device: Device, encoded: bytes, payload: Any, *, on_conflict: OnConflict = "merge", qos: int = 1
    ) -> int:
        """A message with these rows."""
        batch = self.batch
        message = published(f"t/acme/{device.serial_number}", payload, qos=qos)
        batch.add(
            next(self._numbers), message, StubRoute(on_conflict, device=device.serial_number), NOW_US, encoded
        )
        return len(batch.numbers) - 1

    def letter(
        self,
        message: mqtt5.PublishPacket,
        reason: Reason = Reason.MALFORMED,
        detail: str = "not JSON",
        *,
        origin: StubRoute | None = None,
    ) -> uuid.UUID:
        """A message on its way to the dead letters; the id of its letter."""
        number, origin = next(self._numbers), origin or StubRoute()
        made = batches.dead_letter(number, message, origin, NOW_US, MessageError(reason, detail))
        self.batch.add_dead_letter(number, origin, made)
        return made.id


def database(dsn: str, **options: Any) -> settings.DatabaseSettings:
    """The settings of the database at this DSN."""
    return settings.DatabaseSettings(dsn=SecretStr(dsn), **options)


NOWHERE = "postgresql://nobody@127.0.0.1:9/nowhere"
"""For a path that asks no database."""


def settings_for(
    databases: Databases | None, *streams: Mapping[str, Any], **sections: Any
) -> settings.Settings:
    """Settings of a gateway on these databases; quick to try again. Default stream: ``t/{tenant}/{device}``."""
    metadata_dsn = databases.metadata_dsn if databases else NOWHERE
    timeseries_dsn = databases.timeseries_dsn if databases else NOWHERE
    return settings.Settings(
        mqtt=settings.MqttSettings(client_id=sections.pop("client_id", "test")),
        databases=settings.DatabasesSettings(
            metadata=database(metadata_dsn), timeseries=database(timeseries_dsn)
        ),
        streams=tuple(
            settings.StreamSettings(**{"name": "telemetry", "topic": "t/{tenant}/{device}", **stream})
            for stream in streams or [{}]
        ),
        writer=settings.WriterSettings(
            **{"retry_min": 0.02, "retry_max": 0.1, "standing_retry": 0.1, **sections.pop("writer", {})}
        ),
        **sections,
    )
