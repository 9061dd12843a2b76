"""``gateway demo``: see it work, without installing anything."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.common import run
from gateway.tools.demo.folder import DEFAULT


def demo(
    *,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="With --serve: run this beside the servers, then stop them; options after '--'."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Stop after this time; else at Ctrl-C.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1, max=2000, help="Messages a second.")] = 400,
    seed: Annotated[int, typer.Option(help="Another seed makes another fleet.")] = 1,
    folder: Annotated[Path, typer.Option(help="Everything lives here.")] = DEFAULT,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what an earlier demo left in the folder.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Only the servers, to look around in what is there.")
    ] = False,
) -> None:
    """Watch readings of a simulated fleet on their way to tables.

    Through a broker and the gateway into PostgreSQL. Broker and database are of its own, and everything lives in
    one folder. About one message in a hundred is wrong on purpose. At the end the counts of fleet, gateway and
    database are compared: exit code 0 if they agree.

    Example: gateway demo --seconds 20

    Example: gateway demo --serve -- psql -c 'TABLE telemetry LIMIT 5'
    """
    from rich.console import Console

    from gateway.tools.demo import serving, session  # they need much that no other command needs

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal knows curves
    console = Console(highlight=False, markup=False, emoji=False)
    if serve:
        raise typer.Exit(run(serving.serve(folder, command or (), console)))
    if command:
        raise typer.BadParameter("a command is run by --serve only", param_hint="COMMAND")
    options = session.DemoOptions(folder=folder, seconds=seconds, rate=rate, seed=seed, fresh=fresh)
    raise typer.Exit(0 if run(session.run(options, console)) else 1)
