"""The ``gateway`` command: one file a noun, no logic.

Exit codes: 0 done, 1 not done (the text says why), 2 usage, 3 cannot start, 4 bad configuration, 5 stopped with
messages unsettled, 130 interrupted. With ``--json`` standard output is JSON in every case, ``{"error": …}`` at least.
"""

from __future__ import annotations

import importlib
import sys

import typer

from gateway import __version__, errors, settings
from gateway.cli import common
from gateway.observability import logs

app = typer.Typer(
    name="gateway",
    help="MQTT to TimescaleDB ingestion gateway: nothing lost, nothing twice, devices known.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_GROUPS = {
    "config": "Check and show the configuration.",
    "db": "Create, upgrade and inspect the databases.",
    "tenant": "Tenants.",
    "device_type": "Device types and their fields.",
    "device": "Devices.",
    "dead_letter": "Messages that could not become readings.",
    "spool": "Messages that wait on disk for a database.",
}
_COMMANDS = ("run", "status", "demo", "bench")

_EXIT_CODES: tuple[tuple[type[errors.GatewayError], int], ...] = (
    (common.InterruptError, 130),
    (errors.UsageError, 2),
    (errors.StartError, 3),
    (errors.ConfigurationError, 4),
    (errors.GatewayError, 1),
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


def _assemble() -> None:
    nouns = {name.replace("_", "-") for name in (*_COMMANDS, *_GROUPS)}
    said = next((word for word in sys.argv[1:] if not word.startswith("-")), None)

    def wanted(name: str) -> bool:
        """Only what is called is imported: a daemon needs no bench."""
        return said not in nouns or said == name.replace("_", "-")

    for name in filter(wanted, _COMMANDS):
        app.command(name)(getattr(importlib.import_module(f"gateway.cli.{name}"), name))
    for name, text in ((name, _GROUPS[name]) for name in filter(wanted, _GROUPS)):
        module = importlib.import_module(f"gateway.cli.{name}")
        app.add_typer(module.app, name=name.replace("_", "-"), help=text, no_args_is_help=True)


def main() -> None:
    """Run the command; the gateway's own errors end in one clear text and an exit code."""
    _assemble()
    # Standard output belongs to answers; `gateway run` configures logs anew, as the settings say.
    logs.configure(settings.Observability(log_level="warning"))
    try:
        app()
    except errors.GatewayError as error:
        if "--json" in sys.argv and not isinstance(error, common.UnfinishedError):
            common.print_json({"error": str(error)})
        typer.secho(f"gateway: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        sys.exit(exit_code(error))


def exit_code(error: errors.GatewayError) -> int:
    """What a command that ends with this error tells the shell."""
    cause = error.__cause__ if isinstance(error, common.UnfinishedError) else error
    return next(code for kind, code in _EXIT_CODES if isinstance(cause, kind))
