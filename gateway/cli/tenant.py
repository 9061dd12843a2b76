"""``gateway tenant``: enter and list tenants, and who may read them."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import options, tables, tenant_reader

app = typer.Typer()
app.add_typer(tenant_reader.app, name="reader", help="Log-ins that read one tenant.")


@app.command()
@options.spread
def add(
    slug: Annotated[str, typer.Argument(help="The tenant as topics name it.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    call: options.Call,
) -> None:
    """Enter a tenant.

    Example: gateway tenant add acme --name "Acme Ltd"
    """
    from gateway.devices import models, provisioning

    new = models.checked(models.NewTenant, slug=slug, name=name)
    call.on_registry(lambda c: provisioning.add_tenant(c, new))
    call.say(f"tenant {slug} is entered", new.model_dump())


@app.command("list")
@options.spread
def list_(call: options.Call) -> None:
    """List all tenants.

    Example: gateway tenant list --json
    """
    from gateway.devices import provisioning

    found = call.on_registry(provisioning.list_tenants)
    rows = ((one.slug, one.name, one.device_types, one.devices) for one in found)
    columns = tables.Columns(("tenant", "name", "device types", "devices"))
    call.table(columns, rows, lambda: [tenant.model_dump() for tenant in found])
