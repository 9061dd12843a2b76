"""``gateway device-type``: enter, list and show device types."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from gateway.cli import common, connecting, tables

app = typer.Typer()

TenantOption = Annotated[str, typer.Option(help="Slug of the tenant.", show_default=False)]


class Violations(enum.StrEnum):
    """What becomes of values that break a field's rules."""

    FLAG = "flag"
    REJECT = "reject"


class UnknownFields(enum.StrEnum):
    """What becomes of fields that the type does not have."""

    KEEP = "keep"
    DROP = "drop"
    REJECT = "reject"


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the type.", show_default=False)],
    *,
    tenant: TenantOption,
    field: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:TYPE[:UNIT[:MINIMUM[:MAXIMUM]]][:required]; TYPE is float, int, bool, text or json; "
            "UNIT and the inclusive bounds may be left empty. Once for each field.",
            show_default=False,
        ),
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    violations: Annotated[
        Violations, typer.Option(help="flag: store and mark; reject: dead letter.")
    ] = Violations.FLAG,
    unknown_fields: Annotated[
        UnknownFields, typer.Option(help="Fields that the type does not have; reject: dead letter.")
    ] = UnknownFields.KEEP,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Enter a device type with its fields.

    Example: gateway device-type add vibration_sensor --tenant acme --field vibration:float:mm/s:0:100:required
    --field temperature:float:celsius --field door:bool --field level:int::0:100
    """
    from gateway.devices import models, provisioning

    new = models.checked(
        models.NewDeviceType,
        name=name,
        description=description,
        violations=violations.value,
        unknown_fields=unknown_fields.value,
        fields=tuple(models.NewField.parse(text) for text in field or ()),
    )
    connecting.on_metadata(
        config, db_user, db_password_file, lambda c: provisioning.add_device_type(c, tenant, new)
    )
    connecting.report(f"device type {name} of tenant {tenant} is entered", new, as_json=as_json)


@app.command("list")
def list_(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.", show_default=False)] = None,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """List device types.

    Example: gateway device-type list --tenant acme
    """
    from gateway.devices import provisioning

    found = connecting.on_metadata(
        config, db_user, db_password_file, lambda c: provisioning.list_device_types(c, tenant)
    )
    if as_json:
        common.print_json([one.model_dump() for one in found])
    else:
        rows = [
            (one.tenant, one.name, one.devices, one.violations, ", ".join(f.name for f in one.fields))
            for one in found
        ]
        common.table(
            tables.Columns(
                ("tenant", "type", "devices", "violations", "fields"), always=("type",), free="fields"
            ),
            rows,
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the type.", show_default=False)],
    *,
    tenant: TenantOption,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Show a device type and its fields.

    Example: gateway device-type show vibration_sensor --tenant acme --json
    """
    from gateway.devices import provisioning

    found = connecting.on_metadata(
        config, db_user, db_password_file, lambda c: provisioning.show_device_type(c, tenant, name)
    )
    if as_json:
        common.print_json(found.model_dump())
        return
    common.say(
        f"{found.name} of {found.tenant}, version {found.version}, {found.devices} device(s); "
        f"violations: {found.violations}; unknown fields: {found.unknown_fields}"
    )
    rows = [(f.name, f.data_type, f.unit, f.minimum, f.maximum, f.required or None) for f in found.fields]
    common.table(tables.Columns(("field", "type", "unit", "minimum", "maximum", "required")), rows)
