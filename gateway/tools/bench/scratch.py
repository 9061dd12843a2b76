"""What the bench makes in an installation, and removes: a tenant, a device type, devices, their readings.

Everything bears one name, ``gateway-bench-<token>``: it is the tenant's slug, the stream's name, the first level of
the topics, and begins every client id. Nothing else is touched: each statement is bound to that name, or to the id of
that tenant.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Sequence
from typing import Any

from gateway import settings
from gateway.devices import provisioning
from gateway.devices.models import NewTenant
from gateway.errors import UsageError
from gateway.tools.bench import shape
from gateway.topics import Template

_PORTION = 10_000
_NAME = re.compile(r"gateway-bench-[0-9a-f]{8}")


class Names:
    """The scratch names.

    Args:
        name: of what a bench left behind; by default a new one.

    Raises:
        UsageError: no bench makes such a name.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or f"gateway-bench-{secrets.token_hex(4)}"
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} is not of a bench: their names are gateway-bench- and 8 hex digits"
            )

    @property
    def prefix(self) -> str:
        """Of the topics; a serial number follows."""
        return f"{self.name}/{self.name}/"

    @property
    def filter(self) -> str:
        """What to subscribe to: as the gateway does, or a session would hold two subscriptions and get all twice."""
        return Template(self.stream.topic).filter

    @property
    def stream(self) -> settings.StreamSettings:
        """The stream that takes the topics."""
        return settings.StreamSettings(name=self.name, topic=f"{self.name}/{{tenant}}/{{device}}")

    def client_id(self, of: str) -> str:
        """A client id of the bench's own."""
        return f"{self.name}-{of}"

    def check_streams(self, streams: Sequence[settings.StreamSettings]) -> None:
        """See that the gateway of the installation would not take the bench's messages too.

        Raises:
            UsageError: one of its streams would.
        """
        for stream in streams:
            if Template(stream.topic).match(self.prefix + shape.LAST) is not None:
                raise UsageError(
                    f"stream {stream.name} ({stream.topic}) takes every topic, so a running gateway would take the "
                    "bench's messages too; bench another installation, or --own-servers"
                )


class Scratch:
    """The entries under those names.

    Args:
        metadata: connection to the metadata database, as the owner of its tables.
        timeseries: likewise.
        alone: nothing else is in these databases, so tables may be emptied as a whole.
    """

    def __init__(self, names: Names, metadata: Any, timeseries: Any, *, alone: bool) -> None:
        self.names = names
        self._metadata, self._timeseries, self._alone = metadata, timeseries, alone
        self._devices = 0
        self._tenant: uuid.UUID | None = None

    @property
    def tenant(self) -> uuid.UUID:
        """Id of the scratch tenant, once it is entered."""
        assert self._tenant is not None
        return self._tenant

    async def enter(self) -> None:
        """Make the tenant, the device type, and the devices that every load needs."""
        name = self.names.name
        await provisioning.add_tenant(self._metadata, NewTenant(slug=name, name="made by gateway bench"))
        self._tenant = await provisioning.tenant_id(self._metadata, name)
        await provisioning.add_device_type(self._metadata, name, shape.device_type())
        await self._ensure([shape.LAST, shape.PROBE])

    async def have_devices(self, count: int) -> None:
        """Make those of the first ``count`` devices that are missing."""
        for start in range(self._devices, count, _PORTION):
            await self._ensure([shape.serial(n) for n in range(start, min(start + _PORTION, count))])
        self._devices = max(self._devices, count)

    async def ids(self, serial_numbers: Sequence[str]) -> dict[str, str]:
        """Id of each of these devices, as text."""
        query = "SELECT serial_number, id::text FROM devices WHERE tenant_id = $1 AND serial_number = ANY($2)"
        rows = await self._metadata.fetch(query, self.tenant, list(serial_numbers))
        return {row["serial_number"]: row["id"] for row in rows}

    async def empty(self) -> None:
        """Remove all readings and dead letters of the bench."""
        if self._alone:
            await self._timeseries.execute("TRUNCATE telemetry, dead_letters")
            await self._timeseries.execute("CHECKPOINT")
            return
        await self._timeseries.execute("DELETE FROM telemetry WHERE tenant_id = $1", self.tenant)
        await self._timeseries.execute("DELETE FROM dead_letters WHERE stream = $1", self.names.name)

    async def remove(self) -> None:
        """Remove everything; what was never made is no error."""
        name = self.names.name
        self._tenant = await self._metadata.fetchval("SELECT id FROM tenants WHERE slug = $1", name)
        await self._timeseries.execute("DELETE FROM redelivery_ledger WHERE client_id LIKE $1 || '-%'", name)
        if self._tenant is None:
            return
        await self.empty()
        await self._timeseries.execute("DELETE FROM processed_messages WHERE tenant_id = $1", self._tenant)
        for statement in _REMOVE:
            await self._metadata.execute(statement, self._tenant)

    async def _ensure(self, serial_numbers: Sequence[str]) -> None:
        await provisioning.ensure_devices(
            self._metadata,
            self.names.name,
            shape.TYPE_NAME,
            serial_numbers,
            per_hour=2**62,
        )


_REMOVE = (
    "DELETE FROM devices WHERE tenant_id = $1",
    "DELETE FROM device_types WHERE tenant_id = $1",
    "DELETE FROM tenants WHERE id = $1",
)
