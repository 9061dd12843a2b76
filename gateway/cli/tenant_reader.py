"""``gateway tenant reader``: log-ins to the databases that read one tenant."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import options, tables

if TYPE_CHECKING:
    from gateway.storage.revisions import Name

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

_COLUMNS = tables.Columns(("role", "tenant", "registry", "readings"))

RoleArgument = Annotated[
    str, typer.Argument(metavar="ROLE", help="As `gateway tenant reader list` shows it.")
]


@app.command()
@options.spread
def add(
    tenant: Annotated[str, typer.Argument(help="The tenant as topics name it.", show_default=False)],
    *,
    name: Annotated[
        str | None,
        typer.Option(help="The role, an existing one too; else gateway_reader_TENANT.", show_default=False),
    ] = None,
    password_dir: options.PasswordDirOption = Path("secrets"),
    call: options.Call,
) -> None:
    """Have a log-in to the databases read one tenant.

    The role is made where there is none; can be repeated. It sees the views tenant_… of both databases, and in them
    its tenant, whatever it sets. --db-user is a login that may create roles, as for `gateway db init`; the owner is
    enough where the role exists. A new role has the password in ROLE.password of --password-dir, or a generated one,
    written there with mode 0600.

    Example: gateway tenant reader add acme --db-user postgres --password-dir /etc/gateway/secrets
    """
    from gateway.storage import passwords, readers, revisions

    tenant_id, role = call.on_registry(lambda c: _chosen(c, tenant, name))

    def bind(where: Name) -> bool:
        return call.on(where, lambda c: readers.bind(c, where, role, tenant_id, password_dir))

    made = [bind(where) for where in revisions.NAMES]
    file = str(passwords.path(password_dir, role)) if any(made) else None
    told = f"{role} reads tenant {tenant}" + (f"; its password is in {file}" if file else "")
    call.say(told, {"tenant": tenant, "role": role, "password_file": file})


async def _chosen(connection: Any, tenant: str, role: str | None) -> tuple[uuid.UUID, str]:
    """The id of the tenant, and the role that is to read it."""
    from gateway.devices import provisioning
    from gateway.storage import readers

    found = await provisioning.tenant_id(connection, tenant)
    return found, readers.checked(role) if role else await readers.default_role(connection, tenant)


@app.command("list")
@options.spread
def list_(call: options.Call) -> None:
    """List the log-ins that read one tenant.

    And whether they are bound to it in both databases.

    Example: gateway tenant reader list
    """
    from gateway.devices import provisioning
    from gateway.storage import readers

    slugs = {one.id: one.slug for one in call.on("metadata", provisioning.list_tenants)}
    registry = call.on("metadata", lambda c: readers.bound(c, "metadata"))
    readings = call.on("timeseries", lambda c: readers.bound(c, "timeseries"))
    found = [
        (role, slugs.get(tenant, str(tenant)), registry.get(role) == tenant, readings.get(role) == tenant)
        for role, tenant in sorted({**readings, **registry}.items())
    ]
    rows = ([_shown(value) for value in row] for row in found)
    call.table(_COLUMNS, rows, lambda: [dict(zip(_COLUMNS.names, row, strict=True)) for row in found])


@app.command()
@options.spread
def remove(
    role: RoleArgument,
    *,
    call: options.Call,
) -> None:
    """Show a log-in nothing any more, at once.

    The role itself stays: DROP ROLE removes it.

    Example: gateway tenant reader remove gateway_reader_acme --db-user gateway_owner
    """
    from gateway import errors
    from gateway.storage import readers, revisions

    checked = readers.checked(role)

    def unbind(where: Name) -> bool:
        return call.on(where, lambda c: readers.unbind(c, where, checked))

    unbound = [unbind(where) for where in revisions.NAMES]
    if not any(unbound):
        raise errors.UsageError(f"{role} reads no tenant; see `gateway tenant reader list`")
    call.say(f"{role} reads nothing any more", {"role": role})


def _shown(value: object) -> object:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
