"""Which device is this? The registry against a real metadata database: learnt at once, forgotten in time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from gateway import settings
from gateway.devices import registry as registry_module
from gateway.devices.registry import Entry, Registry
from gateway.errors import StandingError, StoreError, TransientError
from gateway.messages import Device
from gateway.observability.health import Component, ComponentState
from gateway.outcomes import Reason
from gateway.storage.pools import Pool
from tests.support.batching import database
from tests.support.databases import Databases, Workshop
from tests.support.provisioned import provision
from tests.support.servers import Postgres
from tests.support.sql import query
from tests.support.waiting import eventually_async

SOON = 1.0
"""Seconds within which a change is seen."""


class Asking(Pool):
    """A pool that keeps the statements asked through it."""

    def __init__(self, dsn: str, password_file: Path | None) -> None:
        super().__init__("metadata", database(dsn, password_file=password_file), size=2)
        self.asked: list[str] = []

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection that tells what it is asked."""
        async with super().connection() as connection:
            with connection.query_logger(lambda record: self.asked.append(record.query)):
                yield connection


class Scene:
    """A registry on a metadata database, with a tenant of its own; it follows changes once told to."""

    def __init__(self, databases: Databases, *, password_file: Path | None = None, **options: Any) -> None:
        self.databases, self.tenant = databases, f"t-{uuid.uuid4().hex[:12]}"
        self.prepared: list[Device] = []
        self.pool, self.component = Asking(databases.metadata_dsn, password_file), Component("metadata")
        self.registry = Registry(
            self.pool, settings.RegistrySettings(**options), self.component, self.prepared.append
        )
        self._following: asyncio.Task[None] | None = None

    def provision(self, *serials: str, kind: str = "sensor") -> dict[str, uuid.UUID]:
        """Enter these devices of our tenant."""
        return provision(self.databases, serials, tenant=self.tenant, kind=kind)

    def change(self, statement: str, *arguments: Any) -> None:
        """Change the metadata database."""
        self.databases.metadata(statement, *arguments)

    def entry(self, serial: str, provision_type: str | None = None) -> Entry:
        """The entry of this device of our tenant."""
        return self.registry.entry(self.tenant, serial, provision_type)

    async def known(self, serial: str) -> Device:
        """The device, looked up."""
        entry = self.entry(serial)
        await self.registry.resolve([entry])
        assert entry.device is not None, entry.refusal
        return entry.device

    async def refused(self, serial: str, provision_type: str | None = None) -> Reason | None:
        """Why this device is refused, looked up; None: it is known."""
        entry = self.entry(serial, provision_type)
        await self.registry.resolve([entry])
        return entry.refused()

    async def follow(self) -> None:
        """Follow changes from now on."""
        self._following = asyncio.create_task(self.registry.follow())
        await eventually_async(lambda: self.component.state is ComponentState.READY)

    async def close(self) -> None:
        """End it."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.pool.close()


@pytest.fixture(scope="module")
def metadata(postgres: Postgres, workshops: Callable[[Postgres], Workshop]) -> Iterator[Databases]:
    """Databases that the tests of this module share; each has a tenant of its own."""
    workshop = workshops(postgres)
    made = workshop.migrated()
    yield made
    workshop.drop(made)


@pytest.fixture
async def scene(metadata: Databases) -> AsyncIterator[Scene]:
    """A registry with the default options."""
    made = Scene(metadata)
    yield made
    await made.close()


@pytest.fixture
async def small(metadata: Databases) -> AsyncIterator[Scene]:
    """A registry that holds a hundred entries."""
    made = Scene(metadata, max_entries=100)
    yield made
    await made.close()


# ---------------------------------------------------------------- looking up


async def test_a_device_is_known_with_its_type(scene: Scene) -> None:
    """Its ids, and what its type says of fields, violations and unknown fields; prepared once."""
    ids = scene.provision("A")
    scene.change(
        "INSERT INTO field_mappings (device_type_id, field_name, data_type, unit, min_value, max_value, is_required) "
        "SELECT device_type_id, 'temperature', 'float', 'celsius', -40, 85, true FROM devices WHERE id = $1",
        ids["A"],
    )
    scene.change(
        "UPDATE device_types SET violations = 'reject', unknown_fields = 'drop' "
        "WHERE id = (SELECT device_type_id FROM devices WHERE id = $1)",
        ids["A"],
    )
    device = await scene.known("A")
    assert (device.id, device.serial_number, device.tenant) == (ids["A"], "A", scene.tenant)
    assert (device.type.name, device.type.violations, device.type.unknown_fields) == (
        "sensor",
        "reject",
        "drop",
    )
    (field,) = device.type.fields.values()
    found = (field.name, field.data_type, field.unit, field.minimum, field.maximum, field.required)
    assert found == ("temperature", "float", "celsius", -40.0, 85.0, True)
    assert scene.prepared == [device]


async def test_a_hit_asks_nobody(scene: Scene) -> None:
    """Known or refused, an entry is looked up once, and is the same object for all who hold it."""
    scene.provision("A")
    await scene.known("A")
    await scene.refused("nobody")
    asked = len(scene.pool.asked)
    assert await scene.known("A") is scene.entry("A").device
    assert await scene.refused("nobody") is Reason.UNKNOWN_DEVICE
    assert len(scene.pool.asked) == asked


async def test_thousands_of_misses_are_one_query(scene: Scene) -> None:
    """All that wait are looked up together; their type, which they share, with two more."""
    ids = scene.provision(*(f"S-{n}" for n in range(3000)))
    entries = [scene.entry(f"S-{n}") for n in range(6000)]
    await scene.registry.resolve(entries)
    assert len([asked for asked in scene.pool.asked if "unnest" in asked]) == 1
    assert len(scene.pool.asked) < 10  # the driver asks for types that it does not know
    assert {entry.serial_number: entry.device.id for entry in entries if entry.device} == ids
    assert {entry.refusal for entry in entries[3000:]} == {Reason.UNKNOWN_DEVICE}
    assert len({id(entry.device.type) for entry in entries if entry.device}) == 1


async def test_who_is_refused_and_why(scene: Scene) -> None:
    """Unknown tenant, unknown device, disabled device; names are compared as they are."""
    scene.provision("A", "off", "pump 1°")
    scene.change("UPDATE devices SET status = 'disabled' WHERE serial_number = 'off'")
    nobody = scene.registry.entry("no-such-tenant", "A")
    await scene.registry.resolve([nobody])
    assert nobody.refused() is Reason.UNKNOWN_TENANT
    assert await scene.refused("B") is Reason.UNKNOWN_DEVICE
    assert await scene.refused("a") is Reason.UNKNOWN_DEVICE
    assert await scene.refused("off") is Reason.DEVICE_DISABLED
    assert await scene.refused("pump 1°") is None


async def test_a_name_that_nobody_can_have_holds_up_nobody(scene: Scene) -> None:
    """NUL, which lenient brokers let through in topics, cannot even be asked for: unknown, beside the known."""
    scene.provision("A")
    entries = [
        scene.entry("A"),
        scene.entry("A\0"),
        scene.registry.entry("t\0", "A"),
        scene.entry("A\0", "sensor"),
    ]
    await scene.registry.resolve(entries)
    assert [entry.refusal for entry in entries] == [
        None, Reason.UNKNOWN_DEVICE, Reason.UNKNOWN_TENANT, Reason.UNKNOWN_DEVICE,
    ]  # fmt: skip


async def test_a_refusal_is_forgotten_in_time(scene: Scene) -> None:
    """After ``negative_ttl`` the device is looked up again, whatever else is known of it."""
    await scene.refused("A")
    scene.provision("A")
    assert scene.entry("A").refused() is Reason.UNKNOWN_TENANT
    scene.entry("A").refused_until = 0.0
    assert await scene.refused("A") is None


# ---------------------------------------------------------------- provisioning


async def test_unknown_devices_are_entered_where_the_stream_says_so(scene: Scene) -> None:
    """All at once, of the type named; devices without that policy, and tenants, stay unknown."""
    scene.provision("A")
    entries = [scene.entry(serial, "sensor") for serial in ("A", "B", "C")]
    nobody = scene.registry.entry("no-such-tenant", "B", "sensor")
    await scene.registry.resolve([*entries, scene.entry("D"), nobody])
    assert [entry.device is not None for entry in entries] == [True, True, True]
    assert {entry.device.type.name for entry in entries if entry.device} == {"sensor"}
    assert scene.entry("D").refused() is Reason.UNKNOWN_DEVICE
    assert nobody.refused() is Reason.UNKNOWN_TENANT
    found = scene.databases.metadata(
        "SELECT count(*) FROM devices d JOIN tenants t ON t.id = tenant_id WHERE slug = $1", scene.tenant
    )
    assert found[0][0] == 3


async def test_a_type_that_is_not_there_refuses_its_devices_only(scene: Scene) -> None:
    """A stream's ``provision_type`` that was never entered: unknown devices stay unknown, the others go on."""
    scene.provision("A")
    entries = [scene.entry("A", "no-such-type"), scene.entry("B", "no-such-type"), scene.entry("C", "sensor")]
    await scene.registry.resolve(entries)
    assert [entry.refusal for entry in entries] == [None, Reason.UNKNOWN_DEVICE, None]


async def test_a_database_that_takes_no_devices_still_tells_those_it_has(scene: Scene) -> None:
    """Read-only, on a standby for instance: who is to be entered waits, who is there does not."""
    scene.provision("A")
    known, new = scene.entry("A"), scene.entry("B", "sensor")
    async with scene.pool.connection() as one, scene.pool.connection() as other:
        for connection in (one, other):
            await connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(StandingError):
        await scene.registry.resolve([known, new])
    assert known.device is not None
    assert (new.device, new.refused()) == (None, None)


async def test_an_improper_serial_number_is_not_entered(scene: Scene) -> None:
    """Nobody could provision it by hand either; those beside it are entered."""
    scene.provision("A")
    entries = [scene.entry(serial, "sensor") for serial in ("x" * 256, "line\nbreak", " ", "good")]
    await scene.registry.resolve(entries)
    unknown = Reason.UNKNOWN_DEVICE
    assert [entry.refusal for entry in entries] == [unknown, unknown, unknown, None]


async def test_two_gateways_enter_the_same_devices(metadata: Databases) -> None:
    """Both find the same devices, whoever was first."""
    one, other = Scene(metadata), Scene(metadata)
    other.tenant = one.tenant
    one.provision("A")
    serials = [f"S-{n}" for n in range(500)]
    try:
        await asyncio.gather(
            one.registry.resolve([one.entry(serial, "sensor") for serial in serials]),
            other.registry.resolve([other.entry(serial, "sensor") for serial in reversed(serials)]),
        )
        found = [[scene.entry(serial, "sensor").device for serial in serials] for scene in (one, other)]
        assert [device and device.id for device in found[0]] == [device and device.id for device in found[1]]
        assert None not in found[0]
    finally:
        await one.close()
        await other.close()


def counted(scene: Scene) -> list[Any]:
    """Devices of our tenant, and how many of them count as provisioned."""
    return [
        scene.databases.metadata(
            f"SELECT {what} FROM {table} x JOIN tenants t ON t.id = x.tenant_id WHERE slug = $1", scene.tenant
        )[0][0]
        for table, what in (("devices", "count(*)"), ("provisioned_devices", "sum(x.devices)"))
    ]


async def test_an_hour_brings_so_many_devices_of_a_tenant_and_no_more(metadata: Databases) -> None:
    """Those beyond are refused with a reason of their own; who is there already counts for nothing."""
    scene, other = Scene(metadata, provisioned_per_hour=3), Scene(metadata, provisioned_per_hour=3)
    scene.provision("A"), other.provision("A")
    entries = [scene.entry(serial, "sensor") for serial in ("A", "B", "C", "D", "E", "F", " ")]
    with structlog.testing.capture_logs() as first:
        await scene.registry.resolve(entries)
    assert {
        "event": "provisioning limited",
        "log_level": "warning",
        "tenant": scene.tenant,
        "count": 2,
        "limit": 3,
    } in (first)
    with structlog.testing.capture_logs() as told:
        await scene.registry.resolve([scene.entry("G", "sensor")])
    limit, unknown = Reason.PROVISIONING_LIMIT, Reason.UNKNOWN_DEVICE
    assert [entry.refusal for entry in entries] == [None, None, None, None, limit, limit, unknown]
    assert (counted(scene), told) == ([4, 3], [])  # it was told once
    innocent = other.entry("B", "sensor")
    await other.registry.resolve([innocent])
    assert innocent.device is not None
    scene.provision("E")  # by hand
    scene.change("UPDATE provisioned_devices SET hour = hour - interval '1 hour'")
    for entry in entries:
        entry.refused_until = 0
    await scene.registry.resolve(entries)
    assert [entry.refusal for entry in entries] == [None] * 6 + [unknown]
    assert counted(scene) == [6, 1]
    await scene.close()
    await other.close()


async def test_gateways_share_the_limit_of_the_hour(metadata: Databases) -> None:
    """Four at once, each with devices of its own: exactly as many are entered as may be."""
    scenes = [Scene(metadata, provisioned_per_hour=50) for _ in range(4)]
    scenes[0].provision("A")
    for scene in scenes:
        scene.tenant = scenes[0].tenant
    entries = [
        [scene.entry(f"{part}-{number}-{n}", "sensor") for n in range(7)]
        for part in range(5)
        for number, scene in enumerate(scenes)
    ]
    await asyncio.gather(
        *(scenes[n % 4].registry.resolve(some) for n, some in enumerate(entries)),
    )
    known = [entry.device is not None for some in entries for entry in some]
    assert (len(known), sum(known), counted(scenes[0])) == (140, 50, [51, 50])
    assert {e.refusal for some in entries for e in some} == {None, Reason.PROVISIONING_LIMIT}
    for scene in scenes:
        await scene.close()


# ---------------------------------------------------------------- changes

DISABLE = "UPDATE devices SET status = 'disabled' WHERE id = $1"
RENAME = "UPDATE devices SET serial_number = $2 WHERE id = $1"
ENABLE = "UPDATE devices SET status = 'active' WHERE id = $1"


async def test_a_disabled_device_is_refused_within_a_second(scene: Scene) -> None:
    """And known again once it is enabled; other devices are not disturbed."""
    ids = scene.provision("A", "B")
    await scene.follow()
    held, other = scene.entry("A"), await scene.known("B")
    await scene.known("A")
    scene.change(DISABLE, ids["A"])
    await eventually_async(lambda: held.device is None, timeout=SOON)
    assert await scene.refused("A") is Reason.DEVICE_DISABLED
    scene.change(ENABLE, ids["A"])
    await eventually_async(lambda: held.refusal is None, timeout=SOON)
    assert (await scene.known("A")).id == ids["A"]
    assert scene.entry("B").device is other


async def test_a_device_that_is_entered_is_known_within_a_second(scene: Scene) -> None:
    """Whoever refused it, for whichever cause, looks it up again."""
    await scene.follow()
    held = scene.entry("A")
    assert await scene.refused("A") is Reason.UNKNOWN_TENANT
    scene.provision("Z")
    await eventually_async(lambda: held.refusal is None, timeout=SOON)
    assert await scene.refused("A") is Reason.UNKNOWN_DEVICE
    scene.provision("A")
    await eventually_async(lambda: held.refusal is None, timeout=SOON)
    assert await scene.refused("A") is None


async def test_what_was_entered_while_changes_were_not_followed_is_known(scene: Scene) -> None:
    """A device that was refused meanwhile is looked up again as soon as they are, though no known one is cached."""
    assert await scene.refused("A") is Reason.UNKNOWN_TENANT
    scene.provision("A")
    assert await scene.refused("A") is Reason.UNKNOWN_TENANT
    await scene.follow()
    assert await scene.refused("A") is None


CHANGES = {
    "violations": "UPDATE device_types SET violations = 'reject' WHERE id = $1",
    "a field": "INSERT INTO field_mappings (device_type_id, field_name, data_type) VALUES ($1, 'x', 'int')",
    "another type": "UPDATE devices SET device_type_id = (SELECT k.id FROM device_types k WHERE k.name = 'other'"
    " AND k.tenant_id = devices.tenant_id) WHERE device_type_id = $1",
    "deleted": "DELETE FROM devices WHERE device_type_id = $1",
    "tenant renamed": "UPDATE tenants SET slug = slug || '-old'"
    " WHERE id = (SELECT tenant_id FROM device_types WHERE id = $1)",
    "many devices": "UPDATE devices SET status = 'disabled' WHERE device_type_id = $1",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_is_seen_within_a_second(scene: Scene, change: str) -> None:
    """Of the type, its fields, the device, its tenant: what was cached is looked up again."""
    scene.provision("other", kind="other")
    scene.provision("A", *(f"S-{n}" for n in range(60)))
    await scene.follow()
    before = await scene.known("A")
    scene.change(CHANGES[change], before.type.id)
    await eventually_async(lambda: scene.entry("A").device is None, timeout=SOON)
    await scene.registry.resolve([scene.entry("A")])
    after = scene.entry("A")
    if after.device is None:
        assert (change, after.refusal) in {
            ("deleted", Reason.UNKNOWN_DEVICE),
            ("tenant renamed", Reason.UNKNOWN_TENANT),
            ("many devices", Reason.DEVICE_DISABLED),
        }
    else:
        now, was = after.device.type, before.type
        assert (now.name, now.violations, now.fields) != (was.name, was.violations, was.fields)


async def test_presence_disturbs_nobody(scene: Scene) -> None:
    """What is not cached may change all day."""
    ids = scene.provision("A", "B")
    await scene.follow()
    device = await scene.known("A")
    await scene.known("B")
    scene.change(
        "UPDATE devices SET last_seen_at = now(), name = 'x', metadata = '{}' WHERE id = $1", ids["A"]
    )
    scene.change(DISABLE, ids["B"])
    await eventually_async(lambda: scene.entry("B").device is None, timeout=SOON)
    assert scene.entry("A").device is device


async def test_receive_times_go_on_after_a_change(scene: Scene) -> None:
    """They stay strictly increasing per device, however often it is looked up again."""
    scene.provision("A")
    device = await scene.known("A")
    device.last_receive_us = 77
    scene.registry.purge("a test")
    scene.registry.purge("a test")
    again = await scene.known("A")
    assert again is not device
    assert again.last_receive_us == 77


async def test_nothing_that_others_notify_is_heard(scene: Scene) -> None:
    """Any role of the database may NOTIFY: a thousand times, garbage or what looks right, costs the gateway nothing."""
    ids = scene.provision("A", "B")
    await scene.follow()
    other = await scene.known("B")
    await scene.known("A")
    payloads = ["{", "x" * 7000, '{"table": "devices", "op": "UPDATE", "ids": ["x"]}', '{"table": "tenants"}']
    flood = "SELECT pg_notify('gateway_registry', p || n) FROM unnest($1::text[]) AS p, generate_series(1, 1000) AS n"
    scene.change(flood, payloads)
    scene.change(DISABLE, ids["A"])
    await eventually_async(lambda: scene.entry("A").device is None, timeout=SOON)
    assert scene.entry("B").device is other
    assert not [asked for asked in scene.pool.asked if "LISTEN" in asked]


async def test_more_changes_than_are_kept_are_not_missed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is looked up again, once; fewer disturb only those they name."""
    ids = scene.provision("A", *(f"S-{n}" for n in range(12)))
    await scene.follow()
    purges: list[str] = []
    purge = scene.registry.purge

    def purged(reason: str) -> None:
        purges.append(reason)
        purge(reason)

    monkeypatch.setattr(scene.registry, "purge", purged)
    connection = await asyncpg.connect(scene.databases.metadata_dsn)
    try:
        changed = scene.entry("S-0")
        for few, kept in ((range(4), True), (range(12), False)):
            known = await scene.known("A")
            await scene.registry.resolve([changed])
            async with connection.transaction():
                for n in few:
                    for serial in (f"S-{n}+", f"S-{n}"):
                        await connection.execute(RENAME, ids[f"S-{n}"], serial)
            await eventually_async(lambda: changed.device is None, timeout=SOON)
            assert (len(purges), scene.entry("A").device is known) == (not kept, kept)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "change",
    [{"table": "device_types", "op": "UPDATE", "ids": None}, {"table": "devices", "op": "UPDATE", "ids": []}],
)
async def test_a_registry_that_changes_while_it_is_read_is_not_misread(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """An import that changes it all the time: nobody known is refused for it, what was read is read again."""
    scene.provision("A")
    look_up, storm = scene.registry._look_up, itertools.chain([True] * 7, itertools.repeat(False))

    async def disturbed(connection: Any, wanted: Any) -> Any:
        found = await look_up(connection, wanted)
        if next(storm):
            scene.registry.changed(change)
        return found

    monkeypatch.setattr(scene.registry, "_look_up", disturbed)
    entry = scene.entry("A")
    for _ in range(5):
        await scene.registry.resolve([entry])
        assert entry.refusal is None
    assert entry.device is not None


# ---------------------------------------------------------------- the database away


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(registry_module, "_RETRY_SECONDS", 0.1)


async def test_what_was_learnt_before_changes_were_followed_is_looked_up(scene: Scene) -> None:
    """At the start, messages may come before the connection for changes stands."""
    ids = scene.provision("A")
    await scene.known("A")
    scene.change(DISABLE, ids["A"])
    await scene.follow()
    assert await scene.refused("A") is Reason.DEVICE_DISABLED


@pytest.mark.usefixtures("_impatient")
async def test_what_is_missed_while_nobody_looks_is_looked_up(scene: Scene) -> None:
    """The connection for changes breaks, a device is disabled meanwhile: everything is looked up again."""
    ids = scene.provision("A")
    await scene.follow()
    await scene.known("A")
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway-metadata' "
        "AND datname = current_database()"
    )
    scene.change(
        f"WITH killed AS ({kill}), off AS (UPDATE devices SET status = 'disabled' WHERE id = $1) SELECT * FROM killed",
        ids["A"],
    )
    await eventually_async(lambda: scene.entry("A").device is None, timeout=5)
    assert await scene.refused("A") is Reason.DEVICE_DISABLED


@pytest.mark.usefixtures("_impatient")
async def test_a_database_that_is_away_makes_nobody_unknown(start_server: Callable[..., Postgres]) -> None:
    """Stopped: the known stay known, the others wait; back: everything is looked up again."""
    server = start_server("postgres")
    scene = Scene(Workshop(server).migrated())
    try:
        ids = scene.provision("A", "B")
        await scene.follow()
        known, waits = scene.entry("A"), scene.entry("B")
        device = await scene.known("A")
        server.stop_immediate()
        with pytest.raises(TransientError):
            await scene.registry.resolve([waits])
        await eventually_async(lambda: scene.component.state is ComponentState.WAITING)
        assert known.device is device
        assert (waits.device, waits.refusal) == (None, None)
        server.start()
        query(scene.databases.metadata_dsn, DISABLE, ids["A"])
        await eventually_async(lambda: known.device is None)
        assert await scene.refused("A") is Reason.DEVICE_DISABLED
        assert (await scene.known("B")).id == ids["B"]
        await eventually_async(lambda: scene.component.state is ComponentState.READY)
    finally:
        await scene.close()


@pytest.mark.usefixtures("_impatient")
async def test_a_secret_that_cannot_be_read_is_waited_for(metadata: Databases, tmp_path: Path) -> None:
    """A password file that is being replaced ends nothing: changes are followed once it is there."""
    scene = Scene(metadata, password_file=tmp_path / "password")
    following = asyncio.create_task(scene.registry.follow())
    try:
        await eventually_async(lambda: scene.component.state is ComponentState.FAILED)
        assert "password" in scene.component.detail
        (tmp_path / "password").write_text("secret\n")
        await eventually_async(lambda: scene.component.state is ComponentState.READY)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await scene.close()


async def test_a_missing_table_is_a_standing_error(blank_databases: Databases) -> None:
    """The text says what to run; nobody is refused for it."""
    scene = Scene(blank_databases)
    try:
        with pytest.raises(StoreError, match="gateway db upgrade"):
            await scene.registry.resolve([scene.entry("A")])
        assert scene.entry("A").refusal is None
    finally:
        await scene.close()


# ---------------------------------------------------------------- bounds


async def test_the_oldest_entries_make_room(small: Scene) -> None:
    """The cache is bounded; who comes again is looked up again."""
    entries = [small.entry(f"S-{n}") for n in range(250)]
    assert len(small.registry) <= 100
    assert small.entry("S-249") is entries[249]
    assert small.entry("S-0") is not entries[0]


async def test_strangers_take_no_room_of_devices(small: Scene) -> None:
    """Whoever may publish can name as many as he likes."""
    small.provision("A")
    await small.known("A")
    held = small.entry("A")
    for n in range(250):
        small.entry(f"S-{n}")
    assert small.entry("A") is held


async def test_an_entry_that_made_room_still_hears_of_changes(small: Scene) -> None:
    """Whoever holds one, as the path does for a topic, must see that its device was disabled."""
    others = [f"S-{n}" for n in range(250)]
    ids = small.provision("A", *others)
    await small.follow()
    await small.known("A")
    held = small.entry("A")
    for start in range(0, 250, 50):
        await small.registry.resolve([small.entry(name) for name in others[start : start + 50]])
    assert small.entry("A") is not held
    small.change(DISABLE, ids["A"])
    await eventually_async(lambda: held.device is None, timeout=SOON)
    await small.registry.resolve([held])
    assert held.refused() is Reason.DEVICE_DISABLED
    small.change(ENABLE, ids["A"])
    await eventually_async(lambda: held.refusal is None, timeout=SOON)


async def test_an_entry_that_nobody_holds_is_gone(small: Scene) -> None:
    """What made room takes none."""
    before = entries_in_memory()
    for n in range(2000):
        small.entry(f"S-{n}")
    assert entries_in_memory() - before <= 200


def entries_in_memory() -> int:
    """Of all registries: those of other tests may still be there."""
    gc.collect()
    return len([found for found in gc.get_objects() if isinstance(found, Entry)])
