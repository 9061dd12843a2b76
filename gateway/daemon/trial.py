"""What a configuration names is tried: the broker, both databases, and what streams expect to find there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from gateway import mqtt, settings
from gateway.errors import GatewayError
from gateway.storage import pools, privileges, schema_status
from gateway.storage.revisions import NAMES, Name

_OWNER = "run `gateway db upgrade` as the owner of the tables (--db-user)"


class TrialResult(NamedTuple):
    """What was found of one thing; ``ok``: the daemon can work with it."""

    what: str
    ok: bool
    text: str


async def findings(options: settings.Settings) -> AsyncIterator[TrialResult]:
    """One after another, as they are found. Nothing is changed anywhere."""
    yield await _broker(options)
    for name in NAMES:
        async for finding in _database(name, options):
            yield finding


async def _broker(options: settings.Settings) -> TrialResult:
    try:
        protocol, problems = await mqtt.try_broker(options.mqtt, options.streams)
    except GatewayError as error:
        return TrialResult("broker", False, str(error))
    place = mqtt.broker_name(options.mqtt)
    if not problems:
        return TrialResult("broker", True, f"{place} accepts us and our subscriptions (MQTT {protocol})")
    return TrialResult("broker", False, f"{place} accepts us (MQTT {protocol}), but {'; '.join(problems)}")


async def _database(name: Name, options: settings.Settings) -> AsyncIterator[TrialResult]:
    database: settings.DatabaseSettings = getattr(options.databases, name)
    try:
        status = await schema_status.status(name, database)
        if status.error is not None:
            yield TrialResult(name, False, status.error)
            return
        connection = await pools.connect(database, application_name="gateway-cli", name=name)
        try:
            with pools.translate(name):
                found = await _found(connection, name, status, options)
        finally:
            await connection.close(timeout=5)
    except GatewayError as error:
        found = [TrialResult(name, False, str(error))]
    for finding in found:
        yield finding


async def _found(
    connection: Any, name: Name, status: schema_status.SchemaStatus, options: settings.Settings
) -> list[TrialResult]:
    role = await privileges.user(connection)
    at = f"{status.engine}, revision {status.current or 'none'}, as {role}"
    if status.pending:
        return [
            TrialResult(name, False, f"{at}; pending: {', '.join(status.pending)}: run `gateway db upgrade`")
        ]
    lacking = await privileges.missing(connection, name)
    if lacking:
        return [TrialResult(name, False, f"{at}; it may not {', '.join(lacking)}: {_OWNER}")]
    if name == "timeseries":
        return [TrialResult(name, True, at)]
    if not await privileges.sees_all_tenants(connection):
        told = f"{at}; row-level security hides tenants from it: ALTER ROLE … BYPASSRLS, as a superuser"
        return [TrialResult(name, False, told)]
    types = [await _provision_type(connection, stream) for stream in options.streams if stream.provision_type]
    return [TrialResult(name, True, at), *types]


async def _provision_type(connection: Any, stream: settings.StreamSettings) -> TrialResult:
    """Devices of tenants without the type cannot be provisioned: their messages become dead letters."""
    kind, what = stream.provision_type or "", f"stream {stream.name}"
    tenants = await privileges.tenants_without(connection, kind, stream.tenant)
    lacking = [tenant for tenant, lacks in tenants if lacks]
    add = f"`gateway device-type add {kind} --tenant …`"
    if not tenants:
        missing = f"no tenant {stream.tenant!r}" if stream.tenant else "no tenant"
        return TrialResult(
            what, False, f"provision_type = {kind!r}, and there is {missing}: `gateway tenant add`"
        )
    if len(lacking) == len(tenants):
        return TrialResult(what, False, f"there is no device type {kind!r} (provision_type): {add}")
    some = (
        f"; not tenants {', '.join(lacking)}, whose unknown devices become dead letters: {add}"
        if lacking
        else ""
    )
    return TrialResult(what, True, f"provision_type {kind!r} exists{some}")
