"""Which database a command talks to, and as whom; and what a command says that changed something there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway import errors
from gateway.cli import common

if TYPE_CHECKING:
    from pydantic import BaseModel

    from gateway import settings
    from gateway.storage.revisions import Name

T = TypeVar("T")

_MAY_NOT = "42501"

DbUserOption = Annotated[
    str | None,
    typer.Option(
        "--db-user",
        envvar="GATEWAY_DB_USER",
        help="Connect as this role instead of the configuration's, for instance gateway_owner.",
        show_default=False,
    ),
]
DbPasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        "--db-password-file",
        envvar="GATEWAY_DB_PASSWORD_FILE",
        help="File holding the password of --db-user (first line).",
        show_default=False,
    ),
]


def database(
    name: Name, config: Path | None, user: str | None, password_file: Path | None
) -> settings.Database:
    """The configured database, as ``user`` where one is given."""
    from gateway.storage import dsn

    configured: settings.Database = getattr(common.load_settings(config).databases, name)
    return configured if user is None else dsn.with_user(configured, user, password_file)


def settings_as(config: Path | None, user: str | None, password_file: Path | None) -> settings.Settings:
    """The settings, with both databases as ``user`` where one is given."""
    from gateway.storage import dsn

    loaded = common.load_settings(config)
    if user is None:
        return loaded
    both = {
        name: dsn.with_user(getattr(loaded.databases, name), user, password_file)
        for name in ("metadata", "timeseries")
    }
    return loaded.model_copy(update={"databases": loaded.databases.model_copy(update=both)})


def on(
    name: Name,
    login: tuple[Path | None, str | None, Path | None],
    work: Callable[[Any], Awaitable[T]],
) -> T:
    """What ``work`` gives on a connection to one of the databases.

    Args:
        login: configuration file, user and password file, as the options of the command have them.
    """
    from gateway.storage import pools

    chosen = database(name, *login).for_a_job()

    async def session() -> T:
        connection = await pools.connect(chosen, application_name="gateway-cli", name=name)
        try:
            with pools.translate(name):
                return await work(connection)
        finally:
            await connection.close(timeout=5)

    return common.run(session())


def on_metadata(
    config: Path | None, user: str | None, password_file: Path | None, work: Callable[[Any], Awaitable[T]]
) -> T:
    """What ``work``, which may change the registry, gives on a connection to the metadata database."""
    try:
        return on("metadata", (config, user, password_file), work)
    except errors.StandingError as error:
        if error.sqlstate != _MAY_NOT:
            raise
        raise errors.UsageError(
            f"{error.args[0].partition(' (SQLSTATE')[0]}: connect as the owner of the tables, "
            "--db-user gateway_owner --db-password-file …"
        ) from error


def report(text: str, value: BaseModel, *, as_json: bool) -> None:
    """Say what was done: a sentence, or the value as JSON."""
    if as_json:
        common.print_json(value.model_dump())
    else:
        common.say(text)
