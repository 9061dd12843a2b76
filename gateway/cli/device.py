"""``gateway device``: enter, import, list, show, disable and enable devices."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway import errors, outcomes
from gateway.cli import common, options, tables

if TYPE_CHECKING:
    from gateway.devices import imports, models

app = typer.Typer()

SerialArgument = Annotated[str, typer.Argument(help="Serial number.", show_default=False)]
_COLUMNS = tables.Columns(
    ("tenant", "serial number", "type", "name", "location", "status", "last seen"),
    always=("serial number", "status", "last seen"),
)


class DeviceStatus(enum.StrEnum):
    """Whether messages of a device are taken."""

    ACTIVE = "active"
    DISABLED = "disabled"


@app.command()
@options.spread
def add(
    serial_number: SerialArgument,
    *,
    tenant: options.TenantOption,
    device_type: Annotated[str, typer.Option("--type", help="Name of its device type.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="For people.", show_default=False)] = None,
    location: Annotated[str | None, typer.Option(help="Where it is.", show_default=False)] = None,
    call: options.Call,
) -> None:
    """Enter a device.

    Example: gateway device add VIB-SN-001 --tenant acme --type vibration_sensor --name "Pump 1" --location "Hall A"
    """
    from gateway.devices import models, provisioning

    new = models.checked(
        models.NewDevice, serial_number=serial_number, type=device_type, name=name, location=location
    )
    call.on_registry(lambda c: provisioning.add_device(c, tenant, new))
    call.say(f"device {serial_number} of tenant {tenant} is entered", new.model_dump())


@app.command("import")
@options.spread
def import_(
    path: Annotated[
        Path,
        typer.Argument(help="CSV or JSON lines; - for standard input.", show_default=False, allow_dash=True),
    ],
    *,
    tenant: options.TenantOption,
    update: Annotated[bool, typer.Option("--update", help="Change devices that exist already.")] = False,
    call: options.Call,
) -> None:
    """Enter many devices from a file, all or none.

    Every mistake is named by its line. CSV: a header with serial_number and type, and name, location, metadata (a
    JSON object) as wanted. JSON lines: the same keys. With --update, what is empty stays as it is.

    Example: gateway device import devices.csv --tenant acme

    Example: gzip -dc fleet.jsonl.gz | gateway device import - --tenant acme --update
    """
    from gateway.devices import imports

    async def work(connection: Any) -> imports.Imported:
        with _lines(path) as lines, common.progress("devices", shown=not call.as_json) as progress:
            return await imports.import_devices(connection, tenant, lines, update=update, progress=progress)

    try:
        done = call.on_registry(work)
    except common.InterruptError as error:
        raise common.InterruptError("interrupted: no device was entered or changed") from error
    told = f"{done.lines} device(s) read: {done.added} added, {done.updated} updated"
    call.say(told, {"lines": done.lines, "added": done.added, "updated": done.updated})


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """Lines of a file; bytes that are not UTF-8 as surrogates, so that the import can name their line."""
    source: Any = 0 if str(path) == "-" else path
    try:
        with open(
            source, encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=source != 0
        ) as file:
            yield file
    except OSError as error:
        raise errors.UsageError(f"cannot read {path}: {error.strerror}") from error


@app.command("list")
@options.spread
def list_(
    *,
    tenant: options.OnlyTenantOption = None,
    device_type: Annotated[
        str | None, typer.Option("--type", help="Only of this type.", show_default=False)
    ] = None,
    status: Annotated[
        DeviceStatus | None, typer.Option(help="Only in this state.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    call: options.Call,
) -> None:
    """List devices by tenant and serial number.

    Example: gateway device list --tenant acme --type vibration_sensor --status disabled
    """
    from gateway.devices import provisioning

    found = call.on_registry(
        lambda c: provisioning.list_devices(
            c, tenant=tenant, device_type=device_type, status=status.value if status else None, limit=limit
        )
    )
    rows = (
        (one.tenant, one.serial_number, one.type, one.name, one.location, one.status, one.last_seen_at)
        for one in found
    )
    call.table(_COLUMNS, rows, lambda: [device.model_dump() for device in found])
    if len(found) == limit and not call.as_json:
        common.say(f"these are the first {limit}; --limit shows more", error=True)


@app.command()
@options.spread
def show(serial_number: SerialArgument, *, tenant: options.TenantOption, call: options.Call) -> None:
    """Show a device.

    Example: gateway device show VIB-SN-001 --tenant acme
    """
    from gateway.devices import provisioning

    found = call.on_registry(lambda c: provisioning.show_device(c, tenant, serial_number))
    call.attributes(found, found.model_dump)


@app.command()
@options.spread
def disable(serial_number: SerialArgument, *, tenant: options.TenantOption, call: options.Call) -> None:
    """Take no more messages of a device.

    They become dead letters until it is enabled again.

    Example: gateway device disable VIB-SN-001 --tenant acme
    """
    _set_status(serial_number, tenant, "disabled", call)


@app.command()
@options.spread
def enable(serial_number: SerialArgument, *, tenant: options.TenantOption, call: options.Call) -> None:
    """Take messages of a device again.

    Dead letters of the meantime can be replayed.

    Example: gateway device enable VIB-SN-001 --tenant acme
    """
    _set_status(serial_number, tenant, "active", call)


def _set_status(serial_number: str, tenant: str, status: outcomes.DeviceState, call: options.Call) -> None:
    from gateway.devices import provisioning

    async def work(connection: Any) -> models.DeviceRecord:
        await provisioning.set_device_status(connection, tenant, serial_number, status)
        return await provisioning.show_device(connection, tenant, serial_number)

    device = call.on_registry(work)
    call.say(f"device {serial_number} of tenant {tenant} is {status}", device.model_dump())
