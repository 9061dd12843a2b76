"""Options that many commands share, as classes: what was typed, and what a command does with it.

A command takes such a class as one parameter, under :func:`spread`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from gateway import errors
from gateway.cli import common, configuration, tables

if TYPE_CHECKING:
    from gateway import settings
    from gateway.storage.revisions import Name

T = TypeVar("T")

_MAY_NOT = "42501"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="GATEWAY_CONFIG",
        help="Configuration file; else config/gateway.toml, /etc/gateway/gateway.toml, environment only.",
        show_default=False,
    ),
]
TenantOption = Annotated[str, typer.Option(help="Slug of the tenant.", show_default=False)]
OnlyTenantOption = Annotated[str | None, typer.Option(help="Only of this tenant.", show_default=False)]
PasswordDirOption = Annotated[Path, typer.Option(help="Folder of the password files, ROLE.password each.")]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are dataclasses are typed as their fields, in the place of the parameter.

    Typer reads the options of a function from its signature and knows no groups of them.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}

    @functools.wraps(command)
    def called(**typed: Any) -> None:
        for name, group in groups.items():
            typed[name] = group(**{field.name: typed.pop(field.name) for field in dataclasses.fields(group)})
        command(**typed)

    own = inspect.signature(command).parameters.values()
    shown = [field for parameter in own for field in _fields(parameter, hints[parameter.name])]
    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return called


def _fields(parameter: inspect.Parameter, hint: Any) -> Iterator[inspect.Parameter]:
    """A parameter as Typer is to see it: those of its fields, if it is a group."""
    if not dataclasses.is_dataclass(hint):
        yield parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
        return
    types = get_type_hints(hint, include_extras=True)
    for field in dataclasses.fields(hint):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name]
        )


@dataclasses.dataclass(frozen=True)
class Output:
    """How a command answers: for people, or as JSON for scripts."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False

    def say(self, text: str, value: object) -> None:
        """Print a sentence, or the value as JSON."""
        if self.as_json:
            common.print_json(value)
        else:
            common.say(text)

    def table(
        self, columns: tables.Columns, rows: Iterable[Sequence[object]], value: Callable[[], object]
    ) -> None:
        """Print rows as a table, or what ``value`` gives as JSON."""
        if self.as_json:
            common.print_json(value())
        else:
            common.table(columns, rows)

    def attributes(self, of: Iterable[tuple[str, object]], value: Callable[[], object]) -> None:
        """Print what one thing has, a line each, or what ``value`` gives as JSON."""
        if self.as_json:
            common.print_json(value())
        else:
            common.attributes(of)

    def telling(
        self, done: Callable[[], Mapping[str, object]], said: Callable[[], str]
    ) -> contextlib.AbstractContextManager[None]:
        """Tell what was done in the block, as :func:`gateway.cli.common.telling` does."""
        return common.telling(done, said, as_json=self.as_json)


@dataclasses.dataclass(frozen=True)
class _Configured:
    config: ConfigOption = None


@dataclasses.dataclass(frozen=True)
class Login(_Configured):
    """Which databases a command talks to, and as whom."""

    db_user: Annotated[
        str | None,
        typer.Option(
            "--db-user",
            envvar="GATEWAY_DB_USER",
            help="Connect as this role instead of the configuration's, for instance gateway_owner.",
            show_default=False,
        ),
    ] = None
    db_password_file: Annotated[
        Path | None,
        typer.Option(
            "--db-password-file",
            envvar="GATEWAY_DB_PASSWORD_FILE",
            help="File holding the password of --db-user (first line).",
            show_default=False,
        ),
    ] = None

    def load(self) -> settings.Settings:
        """The settings, with both databases as ``--db-user`` where it is given.

        Raises:
            ConfigurationError: there are none, or they are wrong.
        """
        from gateway.storage import revisions

        loaded = configuration.load(self.config)
        both: dict[str, settings.DatabaseSettings] = {
            name: self._as_user(getattr(loaded.databases, name)) for name in revisions.NAMES
        }
        return loaded.model_copy(update={"databases": loaded.databases.model_copy(update=both)})

    def database(self, name: Name) -> settings.DatabaseSettings:
        """One of the databases, as ``--db-user`` where it is given.

        Raises:
            ConfigurationError: there are no settings, or they are wrong.
        """
        configured: settings.DatabaseSettings = getattr(configuration.load(self.config).databases, name)
        return self._as_user(configured)

    def _as_user(self, configured: settings.DatabaseSettings) -> settings.DatabaseSettings:
        from gateway.storage import dsn

        if self.db_user is None:
            return configured
        return dsn.with_user(configured, self.db_user, self.db_password_file)

    def on(self, name: Name, work: Callable[[Any], Awaitable[T]]) -> T:
        """What ``work`` gives on a connection to one of the databases."""
        return common.run(_connected(name, self.database(name).for_a_job(), work))

    def on_registry(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """What ``work``, which may change the registry, gives on a connection to the metadata database.

        Raises:
            UsageError: this log-in may not do it.
        """
        try:
            return self.on("metadata", work)
        except errors.StandingError as error:
            if error.sqlstate != _MAY_NOT:
                raise
            raise errors.UsageError(
                f"{error.args[0].partition(' (SQLSTATE')[0]}: connect as the owner of the tables, "
                "--db-user gateway_owner --db-password-file …"
            ) from error


@dataclasses.dataclass(frozen=True)
class Call(Login, Output, _Configured):
    """What almost every command takes: configuration, output and log-in, in the order in which help shows them."""


async def _connected(
    name: Name, database: settings.DatabaseSettings, work: Callable[[Any], Awaitable[T]]
) -> T:
    from gateway.storage import pools

    connection = await pools.connect(database, application_name="gateway-cli", name=name)
    try:
        with pools.translate(name):
            return await work(connection)
    finally:
        await connection.close(timeout=5)


def superuser(dsn: str, password_file: Path | None) -> settings.DatabaseSettings:
    """The log-in that makes databases and roles."""
    from gateway import settings

    return settings.DatabaseSettings.model_validate({"dsn": dsn, "password_file": password_file})
