"""``gateway device-type``: enter, list and show device types."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from gateway.cli import common, options, tables

app = typer.Typer()

NameArgument = Annotated[str, typer.Argument(help="Name of the type.", show_default=False)]
_COLUMNS = tables.Columns(
    ("tenant", "type", "devices", "violations", "fields"), always=("type",), free="fields"
)
_FIELDS = tables.Columns(("field", "type", "unit", "minimum", "maximum", "required"))


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
@options.spread
def add(
    name: NameArgument,
    *,
    tenant: options.TenantOption,
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
    call: options.Call,
) -> None:
    """Enter a device type with its fields.

    Example: gateway device-type add vibration_sensor --tenant acme --field vibration:float:mm/s:0:100:required
    --field temperature:float:celsius --field door:bool --field level:int::0:100
    """
    from gateway.devices import models, provisioning

    new = models.checked(
        models.NewDeviceType, name=name, description=description, violations=violations.value,
        unknown_fields=unknown_fields.value, fields=tuple(models.NewField.parse(text) for text in field or ()),
    )  # fmt: skip
    call.on_registry(lambda c: provisioning.add_device_type(c, tenant, new))
    call.say(f"device type {name} of tenant {tenant} is entered", new.model_dump())


@app.command("list")
@options.spread
def list_(
    *,
    tenant: options.OnlyTenantOption = None,
    call: options.Call,
) -> None:
    """List device types.

    Example: gateway device-type list --tenant acme
    """
    from gateway.devices import provisioning

    found = call.on_registry(lambda c: provisioning.list_device_types(c, tenant))
    rows = (
        (one.tenant, one.name, one.devices, one.violations, ", ".join(f.name for f in one.fields))
        for one in found
    )
    call.table(_COLUMNS, rows, lambda: [one.model_dump() for one in found])


@app.command()
@options.spread
def show(
    name: NameArgument,
    *,
    tenant: options.TenantOption,
    call: options.Call,
) -> None:
    """Show a device type and its fields.

    Example: gateway device-type show vibration_sensor --tenant acme --json
    """
    from gateway.devices import provisioning

    found = call.on_registry(lambda c: provisioning.show_device_type(c, tenant, name))
    if not call.as_json:
        common.say(
            f"{found.name} of {found.tenant}, version {found.version}, {found.devices} device(s); "
            f"violations: {found.violations}; unknown fields: {found.unknown_fields}"
        )
    rows = ((f.name, f.data_type, f.unit, f.minimum, f.maximum, f.required or None) for f in found.fields)
    call.table(_FIELDS, rows, found.model_dump)
