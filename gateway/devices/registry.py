"""Which device is this? A cache over the metadata database that knows also which are unknown.

Each device, known or not, has one :class:`Entry` that never changes identity: what holds it (the path
holds one per topic) sees at once what the registry learns. A hit costs no call at all. Misses are resolved
together, one query for many. Changes are counted and kept by the database, and asked for twice a second; where more
were counted than are kept, or the connection broke, everything is looked up again. Until then the known stay known.
Nothing is listened to: any role of the database may NOTIFY, and fill the queue of notifications for all.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gateway import errors, settings
from gateway.devices import provisioning
from gateway.messages import Device, DeviceType, Field
from gateway.observability import events, health, metrics
from gateway.outcomes import Reason
from gateway.storage import pools

_POLL_SECONDS = 0.5
"""It bounds how long a disabled device is still taken."""
_POLL_TIMEOUT = 10.0
_RETRY_SECONDS = 1.0
_STALE_TRIES = 3
_UNKNOWN_BYTES, _ENTRY_BYTES = 8 * 2**20, 512
"""Of devices that are not known; and what one of them costs beside its names."""
_Key = tuple[str, str, str | None]
_Name = tuple[str, str]
"""Of a device: tenant and serial number."""


class Entry:
    """What is known of one device, now.

    Attributes:
        device: the device; None while it is unresolved or refused.
        refusal: why its messages are not taken; None while it is unresolved or known.
        topics: that are remembered as this device's.
    """

    __slots__ = (
        "__weakref__",
        "_last",
        "device",
        "provision_type",
        "refusal",
        "refused_until",
        "serial_number",
        "tenant",
        "topics",
    )

    def __init__(self, tenant: str, serial_number: str, provision_type: str | None) -> None:
        self.tenant, self.serial_number = tenant, serial_number
        self.provision_type = provision_type
        self.device: Device | None = None
        self._last: Device | None = None
        self.refusal: Reason | None = None
        self.refused_until = 0.0
        self.topics = 0

    def forget(self) -> None:
        """Unresolved again, also where the device itself is remembered."""
        if self.device is not None:
            self.device.fast_row = None
            self._last = self.device
        self.device = self.refusal = None

    def learn(self, device: Device) -> None:
        """Known. Receive times go on where they were, so that they stay strictly increasing."""
        self.forget()  # two look-ups at once: the first device must not be used any more
        if self._last is not None:
            device.last_receive_us = self._last.last_receive_us
        self.device, self.refusal = device, None

    @property
    def known(self) -> bool:
        """Whether the registry has it, as far as a look-up told: now, before something changed, or disabled."""
        return (self.device or self._last) is not None or self.refusal is Reason.DEVICE_DISABLED

    def refused(self) -> Reason | None:
        """The refusal for as long as it is believed; None: the device must be looked up."""
        return self.refusal if time.monotonic() < self.refused_until else None


class Registry:
    """The cache; asks the metadata database.

    Args:
        prepare: called once for each device learnt, to give it what its readings will need.

    Attributes:
        tenants: names of those that a look-up found.
    """

    def __init__(
        self,
        pool: pools.Pool,
        options: settings.RegistrySettings,
        component: health.Component,
        prepare: Callable[[Device], None],
    ) -> None:
        self._pool, self._options, self._component, self._prepare = pool, options, component, prepare
        self._entries: dict[_Key, Entry] = {}
        # Of devices that are not known, or not known yet: every client that may publish can name as many as it likes.
        self._unknown: dict[_Key, Entry] = {}
        self._unknown_bytes = 0
        # Those that made room and are still referenced, so that changes must reach them all the same.
        self._outside: weakref.WeakSet[Entry] = weakref.WeakSet()
        self._types: dict[uuid.UUID, DeviceType] = {}
        # Each row comes with an object of its own for its tenant's id; one is enough for all devices of a tenant.
        self._tenant_ids: dict[uuid.UUID, uuid.UUID] = {}
        self.tenants: set[str] = set()
        self._version = 0

    def __len__(self) -> int:
        return len(self._entries) + len(self._unknown)

    def entry(self, tenant: str, serial_number: str, provision_type: str | None = None) -> Entry:
        """The entry of this device, perhaps unresolved. Makes room by forgetting the oldest."""
        key = (tenant, serial_number, provision_type)
        found = self._entries.get(key) or self._unknown.get(key)
        if found is None:
            if self._unknown_bytes > _UNKNOWN_BYTES or len(self._unknown) >= self._options.max_entries:
                for old in list(itertools.islice(self._unknown, len(self._unknown) // 8 + 1)):
                    self._outside.add(self._pop_unknown(old))
            found = self._unknown[key] = Entry(tenant, serial_number, provision_type)
            self._unknown_bytes += _size(key)
        return found

    def _pop_unknown(self, key: _Key) -> Entry:
        self._unknown_bytes -= _size(key)
        return self._unknown.pop(key)

    def _admit(self, entry: Entry) -> None:
        """Among the known devices."""
        key = (entry.tenant, entry.serial_number, entry.provision_type)
        if self._unknown.get(key) is entry:
            self._pop_unknown(key)
        elif key in self._entries or key in self._unknown:
            return  # another was made for it while this one was looked up
        if len(self._entries) >= self._options.max_entries:
            for old in list(itertools.islice(self._entries, self._options.max_entries // 8)):
                self._outside.add(self._entries.pop(old))
        self._entries[key] = entry
        self._outside.discard(entry)

    async def resolve(self, entries: Iterable[Entry]) -> None:
        """Learn about all of these, with one query for all; or about none, while the registry keeps changing.

        Raises:
            StoreError: the metadata database cannot answer, or does not let devices be entered; those that it has are
                known nevertheless.
        """
        wanted = [entry for entry in entries if entry.device is None and entry.refused() is None]
        if not wanted:
            return
        metrics.registry_misses.inc(len(wanted))
        async with self._pool.connection() as connection:
            for _ in range(_STALE_TRIES):
                version = self._version
                rows = await self._look_up(connection, wanted)
                try:
                    beyond = await self._provision(connection, wanted, rows)
                    if beyond is not None:
                        rows = await self._look_up(connection, wanted)
                except Exception:  # devices that exist need not wait until others can be entered
                    if version == self._version:
                        self._learn_all((e, row) for e, row in zip(wanted, rows, strict=True) if row["id"])
                    raise
                if version == self._version:
                    break
            else:  # what was read may be stale: what waits asks again
                return
        self._learn_all(zip(wanted, rows, strict=True), beyond or ())

    def _learn_all(self, found: Iterable[tuple[Entry, Any]], beyond: Collection[_Name] = ()) -> None:
        for entry, row in found:
            self._learn(entry, row)
            if entry.refusal is Reason.UNKNOWN_DEVICE and (entry.tenant, entry.serial_number) in beyond:
                entry.refusal = Reason.PROVISIONING_LIMIT

    async def _look_up(self, connection: Any, wanted: Sequence[Entry]) -> list[Any]:
        rows = await connection.fetch(
            _LOOK_UP,
            [_askable(entry.tenant) for entry in wanted],
            [_askable(entry.serial_number) for entry in wanted],
        )
        missing = {row["device_type_id"] for row in rows} - self._types.keys() - {None}
        if missing:
            await self._look_up_types(connection, missing)
        return list(rows)

    async def _look_up_types(self, connection: Any, ids: set[uuid.UUID]) -> None:
        fields: dict[uuid.UUID, dict[str, Field]] = {}
        for row in await connection.fetch(_FIELDS, list(ids)):
            fields.setdefault(row["device_type_id"], {})[row["field_name"]] = Field(
                row["field_name"],
                row["data_type"],
                row["unit"],
                row["min_value"],
                row["max_value"],
                row["is_required"],
            )
        for row in await connection.fetch(_TYPES, list(ids)):
            self._types[row["id"]] = DeviceType(
                row["id"], row["name"], fields.get(row["id"], {}), row["violations"], row["unknown_fields"]
            )

    async def _provision(
        self, connection: Any, wanted: Sequence[Entry], rows: Sequence[Any]
    ) -> set[_Name] | None:
        """Enter the unknown devices whose streams say so: those that the hour's limit keeps out; None: there are none.

        Where there were any, look again.
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for entry, row in zip(wanted, rows, strict=True):
            if row["tenant_id"] is not None and row["id"] is None and entry.provision_type is not None:
                groups.setdefault((entry.tenant, entry.provision_type), []).append(entry.serial_number)
        beyond: set[_Name] = set()
        for (tenant, kind), serials in groups.items():
            try:
                found = await provisioning.ensure_devices(
                    connection, tenant, kind, serials, per_hour=self._options.provisioned_per_hour
                )
            except errors.UsageError as error:
                events.provisioning_failed(tenant=tenant, count=len(serials), error=str(error))
                continue
            self._tell_provisioned(tenant, kind, found)
            beyond.update((tenant, serial) for serial in found.beyond)
        return beyond if groups else None

    def _tell_provisioned(self, tenant: str, kind: str, found: provisioning.Ensured) -> None:
        if found.entered:
            events.devices_provisioned(tenant=tenant, count=found.entered, device_type=kind)
        if found.beyond:
            limit = self._options.provisioned_per_hour
            events.provisioning_limited(tenant=tenant, count=len(found.beyond), limit=limit)

    def _learn(self, entry: Entry, row: Any) -> None:
        if row["tenant_id"] is not None:
            self.tenants.add(entry.tenant)
        if row["id"] is not None and row["status"] == "active" and row["device_type_id"] in self._types:
            kind = self._types[row["device_type_id"]]
            tenant_id = self._tenant_ids.setdefault(row["tenant_id"], row["tenant_id"])
            device = Device(row["id"], tenant_id, entry.serial_number, entry.tenant, kind)
            self._prepare(device)
            entry.learn(device)
            self._admit(entry)
            return
        entry.refused_until = time.monotonic() + self._options.negative_ttl
        if row["tenant_id"] is None:
            entry.refusal = Reason.UNKNOWN_TENANT
        elif row["id"] is None:
            entry.refusal = Reason.UNKNOWN_DEVICE
        else:
            entry.refusal = Reason.DEVICE_DISABLED

    async def follow(self) -> None:
        """Follow changes until cancelled; connects again for ever."""
        while True:
            try:
                await self._poll()
            except (errors.StandingError, errors.ConfigurationError) as error:
                self._component.failed(str(error))
            except errors.StoreError as error:
                self._component.waiting(str(error))
            await asyncio.sleep(_RETRY_SECONDS)

    async def _poll(self) -> None:
        """Ask again and again what changed, on a connection of its own; it also finds that the database is away."""
        async with self._pool.connection() as connection:
            try:
                known = {row["part"]: row["version"] for row in await connection.fetch(_VERSIONS)}
                if len(self):
                    self.purge("changes were not followed until now")
                self._component.ready()
                while True:
                    await asyncio.sleep(_POLL_SECONDS)
                    await self._see_changes(connection, known)
            finally:
                connection.terminate()

    async def _see_changes(self, connection: Any, known: dict[int, int]) -> None:
        """Forget what changed since the versions ``known``, and enter those that are known now.

        Raises:
            TransientError: the server is another than the session began with: changes are elsewhere now.
        """
        if await connection.has_changed():
            raise errors.TransientError(
                "metadata: the server was demoted or promoted: asking for the primary again"
            )
        parts, versions = list(known), list(known.values())
        changes: list[Mapping[str, Any]] = []
        for row in await connection.fetch(_CHANGES, parts, versions, timeout=_POLL_TIMEOUT):
            count, kept = row["version"] - known.get(row["part"], 0), row["recent"]
            known[row["part"]] = row["version"]
            if 0 < count <= len(kept):
                changes += map(json.loads, kept[-count:])
            else:
                self.purge(f"{count} changes at once")
        if changes:
            self.changed(*changes)

    def _all(self) -> Iterator[Entry]:
        return itertools.chain(self._entries.values(), self._unknown.values(), self._outside)

    def purge(self, reason: str) -> None:
        """Look up everything again."""
        self._version += 1
        self._types.clear()
        for entry in self._all():
            entry.forget()
        events.registry_purged(reason=reason)

    def changed(self, *changes: Mapping[str, Any]) -> None:
        """Tables of the registry changed: ``{"table": …, "op": …, "ids": [uuid, …] | null}`` each.

        One walk over the cache for all of them: it takes 25 ms with 100 000 devices.
        """
        gone: set[uuid.UUID] = set()
        for change in changes:
            ids = change.get("ids")
            if change.get("table") != "devices" or (ids is None and change["op"] != "INSERT"):
                self.purge(f"{change.get('table')} changed")
                return
            gone.update(map(uuid.UUID, ids or ()))
        self._version += 1
        for entry in self._all():
            if entry.device is None or entry.device.id in gone:
                entry.forget()


def _size(key: _Key) -> int:
    return len(key[0]) + len(key[1]) + _ENTRY_BYTES


def _askable(name: str) -> str | None:
    """The name; None, which equals nothing, for one with NUL: PostgreSQL would refuse the whole query."""
    return None if "\0" in name else name


_LOOK_UP = """
SELECT t.id AS tenant_id, d.id, d.device_type_id, d.status
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k(slug, serial, n)
LEFT JOIN tenants t ON t.slug = k.slug
LEFT JOIN devices d ON d.tenant_id = t.id AND d.serial_number = k.serial
ORDER BY k.n
"""
_VERSIONS = "SELECT part, version FROM registry_versions"
_CHANGES = """
SELECT r.part, r.version, r.recent
FROM registry_versions r LEFT JOIN unnest($1::smallint[], $2::bigint[]) AS k(part, version) USING (part)
WHERE r.version IS DISTINCT FROM k.version
"""
_TYPES = "SELECT id, name, violations, unknown_fields FROM device_types WHERE id = ANY($1)"
_FIELDS = """
SELECT device_type_id, field_name, data_type, unit, min_value, max_value, is_required
FROM field_mappings WHERE device_type_id = ANY($1) ORDER BY position, field_name
"""
