"""The ``gateway`` command: one file a noun, no logic.

Exit codes: 0 done, 1 not done (the text says why), 2 usage, 3 cannot start, 4 bad configuration, 5 stopped with
messages unsettled, 130 interrupted. With ``--json`` standard output is JSON in every case, ``{"error": …}`` at least.

A command is imported when it is called, and imports what it needs when it works: version, help and completion are
there at once.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
import types
from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup

from gateway import __version__, errors
from gateway.cli import common
from gateway.redaction import redact

_NOUNS = {
    "config": "Check and show the configuration.",
    "db": "Create, upgrade and inspect the databases.",
    "tenant": "Tenants.",
    "device-type": "Device types and their fields.",
    "device": "Devices.",
    "dead-letter": "Messages that could not become readings.",
    "spool": "Messages that wait on disk for a database.",
    "session": "Sessions of gateways at the broker.",
}
_COMMANDS = {
    "run": "Run the daemon in the foreground, until SIGTERM or Ctrl-C.",
    "doctor": "Say what an operator should know of this installation.",
    "status": "Show books, components and figures of the running daemon.",
    "demo": "Watch readings of a simulated fleet on their way to tables.",
    "bench": "Measure an installation, or this machine.",
}
_TEXTS = {**_COMMANDS, **_NOUNS}

_TOOLS = {"demo": "gateway.tools.demo.command", "bench": "gateway.tools.bench.command"}
"""Where commands are that are not in this room: tools stand on top of it."""

_EXIT_CODES: tuple[tuple[type[errors.GatewayError], int], ...] = (
    (common.InterruptError, 130),
    (errors.UsageError, 2),
    (errors.StartError, 3),
    (errors.ConfigurationError, 4),
    (errors.GatewayError, 1),
)


class Commands(TyperGroup):
    """All commands by name; only the one that is called is imported."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """In the order in which help shows them."""
        return list(_TEXTS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """What lists of commands show of it."""
        text = _TEXTS.get(cmd_name)
        return None if text is None else TyperCommand(cmd_name, help=text)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[str | None, object, list[str]]:  # type: ignore[override]
        """The command that is called, imported."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest


def load(name: str) -> TyperCommand | TyperGroup:
    """A command as it is called, by its name; each of its leaves takes ``--raw``."""
    module = importlib.import_module(_TOOLS.get(name, f"gateway.cli.{name.replace('-', '_')}"))
    is_noun = name in _NOUNS
    holder = typer.Typer(
        rich_markup_mode=None, add_completion=False, help=_NOUNS.get(name), no_args_is_help=is_noun
    )
    if is_noun:
        holder.add_typer(module.app)
    else:
        holder.command(name)(getattr(module, name))
    command = typer.main.get_command(holder)
    command.name = name
    assert isinstance(command, TyperCommand | TyperGroup)
    for leaf in _leaves(command):
        leaf.params += typer.main.get_command(_options).params
    return command


def _leaves(command: object) -> Iterator[TyperCommand]:
    """What can be called: a noun may have nouns of its own."""
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            yield from _leaves(inner)
    elif isinstance(command, TyperCommand):
        yield command


_options = typer.Typer(add_completion=False)


@_options.command()
def _every_command_has(
    raw: bool = typer.Option(
        False,
        "--raw",
        callback=common.print_raw,
        expose_value=False,
        help="Print names, payloads and errors as they are, control characters too.",
    ),
) -> None:
    """A command that lends its options."""


app = typer.Typer(
    cls=Commands,
    name="gateway",
    help="MQTT to TimescaleDB ingestion gateway: nothing lost, nothing twice, devices known.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gateway {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Options of the command itself."""


def _configure_logs() -> None:
    from gateway import settings
    from gateway.observability import logs

    # Standard output belongs to answers; `gateway run` configures logs anew, as the settings say.
    logs.configure(settings.ObservabilitySettings(log_level="warning"))


def main(commands: typer.Typer = app) -> None:
    """Run the command; the gateway's own errors end in one clear text and an exit code."""
    common.before_work(_configure_logs)
    sys.excepthook = _tell_defect
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal knows every letter
    # Typer would take the shell from the parent process: `--show-completion zsh` has to give that of zsh.
    os.environ.setdefault("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    try:
        commands(prog_name="gateway")
    except errors.GatewayError as error:
        _tell_error(error)
        sys.exit(exit_code(error))


def _tell_error(error: errors.GatewayError) -> None:
    told = redact(str(error))
    if "--json" in sys.argv and not isinstance(error, common.UnfinishedError):
        common.print_json({"error": told})
    text = common.clean_lines(f"gateway: {told}")
    typer.secho(text, err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)


def _tell_defect(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """A traceback, which may hold what a driver says of a DSN, without passwords."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def exit_code(error: errors.GatewayError) -> int:
    """What a command that ends with this error tells the shell."""
    cause = error.__cause__ if isinstance(error, common.UnfinishedError) else error
    return next(code for kind, code in _EXIT_CODES if isinstance(cause, kind))
