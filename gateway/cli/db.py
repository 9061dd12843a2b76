"""``gateway db``: create, upgrade and inspect the databases."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway import errors
from gateway.cli import common, options, tables

if TYPE_CHECKING:
    from gateway.storage import roles, schema_status
    from gateway.storage.revisions import Name, Revision

app = typer.Typer()


class Which(enum.StrEnum):
    """The databases a command is about."""

    METADATA = "metadata"
    TIMESERIES = "timeseries"
    ALL = "all"

    @property
    def names(self) -> list[Name]:
        """The logical databases, in the order in which they are worked on."""
        from gateway.storage import revisions

        return [name for name in revisions.NAMES if self in ("all", name)]


class EngineChoice(enum.StrEnum):
    """What the first migration builds on."""

    AUTO = "auto"
    TIMESCALEDB = "timescaledb"
    POSTGRESQL = "postgresql"


WhichArgument = Annotated[Which, typer.Argument(help="Which database.")]


@app.command()
@options.spread
def init(
    which: WhichArgument = Which.ALL,
    *,
    superuser_dsn: Annotated[
        str,
        typer.Option(
            envvar="GATEWAY_SUPERUSER_DSN",
            help="A login that may create roles and databases, for instance postgresql://postgres@db/postgres.",
        ),
    ],
    superuser_password_file: Annotated[
        Path | None, typer.Option(help="File holding the superuser's password (first line).")
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="The roles are PREFIX_owner, PREFIX_writer, PREFIX_reader.")
    ] = "gateway",
    password_dir: options.PasswordDirOption = Path("secrets"),
    engine: Annotated[
        EngineChoice, typer.Option(help="postgresql: leave TimescaleDB out though the server offers it.")
    ] = EngineChoice.AUTO,
    config: options.ConfigOption = None,
) -> None:
    """Create databases and roles of least privilege.

    Also the extension; privileges are mended; can be repeated. The databases are those that the configured DSNs
    name. The owner migrates and provisions, the writer is the daemon's, the reader is for `gateway tenant reader`. A
    role's password is the first line of ROLE.password in --password-dir; where there is no such file, a new role gets
    a generated password, written there with mode 0600, and an old role keeps the one it has.

    Example: gateway db init --superuser-dsn postgresql://postgres@db/postgres --password-dir /etc/gateway/secrets
    """
    from gateway.storage import dsn
    from gateway.storage.initialise import initialise

    wanted = _roles(prefix)
    server = options.superuser(superuser_dsn, superuser_password_file)
    login = options.Login(config)
    databases = {name: dsn.database_name(login.database(name)) for name in which.names}
    extension = engine is not EngineChoice.POSTGRESQL
    for line in common.run(initialise(server, databases, wanted, password_dir, extension=extension)):
        common.say(line)
    common.say(_what_next(wanted, password_dir))


def _what_next(made: roles.Roles, password_dir: Path) -> str:
    return (
        f"ready; now run: gateway db upgrade --db-user {made.owner} "
        f"--db-password-file {password_dir / made.owner}.password\n"
        f"and let the daemon's DSNs name the user {made.writer}, with "
        f'password_file = "{password_dir / made.writer}.password"'
    )


def _roles(prefix: str) -> roles.Roles:
    from gateway.storage import roles

    if not roles.PREFIX.fullmatch(prefix):
        raise errors.UsageError(
            f"--prefix {prefix!r}: at most 50 lower-case letters, digits and _, a letter first"
        )
    return roles.Roles(prefix)


@app.command()
@options.spread
def upgrade(
    which: WhichArgument = Which.ALL,
    *,
    to: Annotated[str, typer.Option(help="Revision to stop at.")] = "head",
    engine: Annotated[
        EngineChoice,
        typer.Option(
            help="Of an empty database: auto takes TimescaleDB where the server offers it. For good."
        ),
    ] = EngineChoice.AUTO,
    login: options.Login,
) -> None:
    """Apply what is pending. Each revision is one transaction; two runs wait for each other.

    Example: gateway db upgrade --db-user gateway_owner --db-password-file secrets/gateway_owner.password
    """
    from gateway.storage import migrate

    for name in which.names:
        applied = common.run(migrate.upgrade(name, login.database(name), to, engine=engine.value))
        _report(name, "applied", applied)


@app.command()
@options.spread
def downgrade(
    which: Annotated[Which, typer.Argument(help="Which database.", show_default=False)],
    *,
    to: Annotated[str, typer.Option(help="Revision to go back to, or base.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    login: options.Login,
) -> None:
    """Undo revisions. Their tables are dropped, with all rows in them.

    Example: gateway db downgrade timeseries --to 0003
    """
    if not yes:
        typer.confirm(f"Undo down to {to}, and lose what is in the tables of {which}?", abort=True)
    from gateway.storage import migrate

    for name in which.names:
        _report(name, "undone", common.run(migrate.downgrade(name, login.database(name), to)))


def _report(name: Name, verb: str, steps: list[Revision]) -> None:
    for step in steps:
        common.say(f"{name}: {verb} {step.id} {step.title}")
    if not steps:
        common.say(f"{name}: nothing to do")


@app.command()
@options.spread
def current(
    which: WhichArgument = Which.ALL,
    *,
    call: options.Call,
) -> None:
    """Show the revision that each database is at.

    Example: gateway db current timeseries
    """
    from gateway.storage import migrate

    found = {name: common.run(migrate.current(name, call.database(name))) for name in which.names}
    rows = ((name, at or "none") for name, at in found.items())
    call.table(tables.Columns(("database", "revision")), rows, lambda: found)


@app.command()
@options.spread
def history(which: WhichArgument = Which.ALL, *, output: options.Output) -> None:
    """Show all revisions, oldest first. Asks no database.

    Example: gateway db history metadata --json
    """
    from gateway.storage import revisions

    known = {name: revisions.history(name) for name in which.names}
    rows = ((name, step.id, step.title) for name, steps in known.items() for step in steps)
    output.table(
        tables.Columns(("database", "revision", "what it does")),
        rows,
        lambda: {name: [dataclasses.asdict(step) for step in steps] for name, steps in known.items()},
    )


@app.command()
@options.spread
def status(
    which: WhichArgument = Which.ALL,
    *,
    call: options.Call,
) -> None:
    """Show server, engine and pending revisions.

    Exit code 1 unless all are up to date.

    Example: gateway db status --json
    """
    from gateway.storage import schema_status

    found = [common.run(schema_status.status(name, call.database(name))) for name in which.names]
    rows = ((one.name, one.engine, one.current or "none", one.head, _verdict(one)) for one in found)
    call.table(
        tables.Columns(("database", "engine", "revision", "head", "state"), always=("database", "state")),
        rows,
        lambda: [{**dataclasses.asdict(one), "up_to_date": one.up_to_date} for one in found],
    )
    if not all(one.up_to_date for one in found):
        raise typer.Exit(1)


def _verdict(one: schema_status.SchemaStatus) -> str:
    if one.error is not None:
        return one.error if one.reachable else f"not reachable: {one.error}"
    if one.pending:
        return f"pending: {', '.join(one.pending)}; run gateway db upgrade"
    return "up to date"
