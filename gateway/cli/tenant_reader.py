"""``gateway tenant reader``: log-ins to the databases that read one tenant."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import common, connecting, tables

if TYPE_CHECKING:
    from gateway.storage.revisions import Name

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

RoleArgument = Annotated[
    str, typer.Argument(metavar="ROLE", help="As `gateway tenant reader list` shows it.")
]


@app.command()
def add(
    tenant: Annotated[str, typer.Argument(help="The tenant as topics name it.", show_default=False)],
    *,
    name: Annotated[
        str | None,
        typer.Option(help="The role, an existing one too; else gateway_reader_TENANT.", show_default=False),
    ] = None,
    password_dir: Annotated[
        Path, typer.Option(help="Folder of the password files, ROLE.password each.")
    ] = Path("secrets"),
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Have a log-in to the databases read one tenant.

    The role is made where there is none; can be repeated. It sees the views tenant_… of both databases, and in them
    its tenant, whatever it sets. --db-user is a login that may create roles, as for `gateway db init`; the owner is
    enough where the role exists. A new role has the password in ROLE.password of --password-dir, or a generated one,
    written there with mode 0600.

    Example: gateway tenant reader add acme --db-user postgres --password-dir /etc/gateway/secrets
    """
    from gateway.devices import provisioning
    from gateway.storage import passwords, readers, revisions

    login = (config, db_user, db_password_file)

    async def chosen(connection: Any) -> tuple[uuid.UUID, str]:
        found = await provisioning.tenant_id(connection, tenant)
        role = readers.checked(name) if name else await readers.default_role(connection, tenant)
        return found, role

    tenant_id, role = connecting.on_metadata(*login, chosen)

    def bind(where: Name) -> bool:
        return connecting.on(where, login, lambda c: readers.bind(c, where, role, tenant_id, password_dir))

    made = [bind(where) for where in revisions.NAMES]
    file = str(passwords.path(password_dir, role)) if any(made) else None
    if as_json:
        common.print_json({"tenant": tenant, "role": role, "password_file": file})
    else:
        common.say(f"{role} reads tenant {tenant}" + (f"; its password is in {file}" if file else ""))


@app.command("list")
def list_(
    *,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """List the log-ins that read one tenant.

    And whether they are bound to it in both databases.

    Example: gateway tenant reader list
    """
    from gateway.devices import provisioning
    from gateway.storage import readers

    login = (config, db_user, db_password_file)
    slugs = {one.id: one.slug for one in connecting.on("metadata", login, provisioning.list_tenants)}
    registry = connecting.on("metadata", login, lambda c: readers.bound(c, "metadata"))
    readings = connecting.on("timeseries", login, lambda c: readers.bound(c, "timeseries"))
    found = [
        {
            "role": role,
            "tenant": slugs.get(tenant, str(tenant)),
            "registry": registry.get(role) == tenant,
            "readings": readings.get(role) == tenant,
        }
        for role, tenant in sorted({**readings, **registry}.items())
    ]
    if as_json:
        common.print_json(found)
    else:
        rows = [[_shown(value) for value in row.values()] for row in found]
        common.table(tables.Columns(("role", "tenant", "registry", "readings")), rows)


@app.command()
def remove(
    role: RoleArgument,
    *,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Show a log-in nothing any more, at once.

    The role itself stays: DROP ROLE removes it.

    Example: gateway tenant reader remove gateway_reader_acme --db-user gateway_owner
    """
    from gateway import errors
    from gateway.storage import readers, revisions

    login, checked = (config, db_user, db_password_file), readers.checked(role)

    def unbind(where: Name) -> bool:
        return connecting.on(where, login, lambda c: readers.unbind(c, where, checked))

    unbound = [unbind(where) for where in revisions.NAMES]
    if not any(unbound):
        raise errors.UsageError(f"{role} reads no tenant; see `gateway tenant reader list`")
    if as_json:
        common.print_json({"role": role})
    else:
        common.say(f"{role} reads nothing any more")


def _shown(value: object) -> object:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
