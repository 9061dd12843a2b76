"""``gateway device``: enter, import, list, show, disable and enable devices."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway import errors
from gateway.cli import common, connecting, tables

if TYPE_CHECKING:
    from gateway.devices import imports, models

app = typer.Typer()

SerialArgument = Annotated[str, typer.Argument(help="Serial number.", show_default=False)]
TenantOption = Annotated[str, typer.Option(help="Slug of the tenant.", show_default=False)]


class Status(enum.StrEnum):
    """Whether messages of a device are taken."""

    ACTIVE = "active"
    DISABLED = "disabled"


@app.command()
def add(
    serial_number: SerialArgument,
    *,
    tenant: TenantOption,
    device_type: Annotated[str, typer.Option("--type", help="Name of its device type.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="For people.", show_default=False)] = None,
    location: Annotated[str | None, typer.Option(help="Where it is.", show_default=False)] = None,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Enter a device.

    Example: gateway device add VIB-SN-001 --tenant acme --type vibration_sensor --name "Pump 1" --location "Hall A"
    """
    from gateway.devices import models, provisioning

    new = models.checked(
        models.NewDevice, serial_number=serial_number, type=device_type, name=name, location=location
    )
    connecting.on_metadata(
        config, db_user, db_password_file, lambda c: provisioning.add_device(c, tenant, new)
    )
    connecting.report(f"device {serial_number} of tenant {tenant} is entered", new, as_json=as_json)


@app.command("import")
def import_(
    path: Annotated[
        Path,
        typer.Argument(help="CSV or JSON lines; - for standard input.", show_default=False, allow_dash=True),
    ],
    *,
    tenant: TenantOption,
    update: Annotated[bool, typer.Option("--update", help="Change devices that exist already.")] = False,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Enter many devices from a file, all or none.

    Every mistake is named by its line. CSV: a header with serial_number and type, and name, location, metadata (a
    JSON object) as wanted. JSON lines: the same keys. With --update, what is empty stays as it is.

    Example: gateway device import devices.csv --tenant acme

    Example: gzip -dc fleet.jsonl.gz | gateway device import - --tenant acme --update
    """
    from gateway.devices import imports

    async def work(connection: Any) -> imports.Imported:
        with _lines(path) as lines, common.progress("devices", shown=not as_json) as progress:
            return await imports.import_devices(connection, tenant, lines, update=update, progress=progress)

    try:
        done = connecting.on_metadata(config, db_user, db_password_file, work)
    except common.InterruptError as error:
        raise common.InterruptError("interrupted: no device was entered or changed") from error
    if as_json:
        common.print_json({"lines": done.lines, "added": done.added, "updated": done.updated})
    else:
        common.say(f"{done.lines} device(s) read: {done.added} added, {done.updated} updated")


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
def list_(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.", show_default=False)] = None,
    device_type: Annotated[
        str | None, typer.Option("--type", help="Only of this type.", show_default=False)
    ] = None,
    status: Annotated[Status | None, typer.Option(help="Only in this state.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """List devices by tenant and serial number.

    Example: gateway device list --tenant acme --type vibration_sensor --status disabled
    """
    from gateway.devices import provisioning

    async def work(connection: Any) -> list[models.Device]:
        return await provisioning.list_devices(
            connection,
            tenant=tenant,
            device_type=device_type,
            status=status.value if status else None,
            limit=limit,
        )

    found = connecting.on_metadata(config, db_user, db_password_file, work)
    if as_json:
        common.print_json([device.model_dump() for device in found])
        return
    rows = [
        (one.tenant, one.serial_number, one.type, one.name, one.location, one.status, one.last_seen_at)
        for one in found
    ]
    columns = tables.Columns(
        ("tenant", "serial number", "type", "name", "location", "status", "last seen"),
        always=("serial number", "status", "last seen"),
    )
    common.table(columns, rows)
    if len(found) == limit:
        common.say(f"these are the first {limit}; --limit shows more", error=True)


@app.command()
def show(
    serial_number: SerialArgument,
    *,
    tenant: TenantOption,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Show a device.

    Example: gateway device show VIB-SN-001 --tenant acme
    """
    from gateway.devices import provisioning

    found = connecting.on_metadata(
        config, db_user, db_password_file, lambda c: provisioning.show_device(c, tenant, serial_number)
    )
    if as_json:
        common.print_json(found.model_dump())
    else:
        common.attributes(found)


@app.command()
def disable(
    serial_number: SerialArgument,
    *,
    tenant: TenantOption,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Take no more messages of a device.

    They become dead letters until it is enabled again.

    Example: gateway device disable VIB-SN-001 --tenant acme
    """
    _set_status(serial_number, tenant, "disabled", (config, db_user, db_password_file), as_json=as_json)


@app.command()
def enable(
    serial_number: SerialArgument,
    *,
    tenant: TenantOption,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Take messages of a device again.

    Dead letters of the meantime can be replayed.

    Example: gateway device enable VIB-SN-001 --tenant acme
    """
    _set_status(serial_number, tenant, "active", (config, db_user, db_password_file), as_json=as_json)


def _set_status(
    serial_number: str,
    tenant: str,
    status: models.Status,
    login: tuple[Path | None, str | None, Path | None],
    *,
    as_json: bool,
) -> None:
    from gateway.devices import provisioning

    async def work(connection: Any) -> models.Device:
        await provisioning.set_device_status(connection, tenant, serial_number, status)
        return await provisioning.show_device(connection, tenant, serial_number)

    device = connecting.on_metadata(*login, work)
    connecting.report(f"device {serial_number} of tenant {tenant} is {status}", device, as_json=as_json)
