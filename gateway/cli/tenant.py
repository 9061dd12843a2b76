"""``gateway tenant``: enter and list tenants, and who may read them."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import common, connecting, tables, tenant_reader

app = typer.Typer()
app.add_typer(tenant_reader.app, name="reader", help="Log-ins that read one tenant.")


@app.command()
def add(
    slug: Annotated[str, typer.Argument(help="The tenant as topics name it.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Enter a tenant.

    Example: gateway tenant add acme --name "Acme Ltd"
    """
    from gateway.devices import models, provisioning

    new = models.checked(models.NewTenant, slug=slug, name=name)
    connecting.on_metadata(config, db_user, db_password_file, lambda c: provisioning.add_tenant(c, new))
    connecting.report(f"tenant {slug} is entered", new, as_json=as_json)


@app.command("list")
def list_(
    *,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """List all tenants.

    Example: gateway tenant list --json
    """
    from gateway.devices import provisioning

    found = connecting.on_metadata(config, db_user, db_password_file, provisioning.list_tenants)
    if as_json:
        common.print_json([tenant.model_dump() for tenant in found])
    else:
        rows = [(one.slug, one.name, one.device_types, one.devices) for one in found]
        common.table(tables.Columns(("tenant", "name", "device types", "devices")), rows)
