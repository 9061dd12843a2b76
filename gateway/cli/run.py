"""``gateway run``: the daemon."""

from __future__ import annotations

import typer

from gateway import app
from gateway.cli.common import ConfigOption, load_settings


def run(config: ConfigOption = None) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    It waits for servers that are away, says so on /ready and in the log, and goes on when they are back. A second
    signal stops it at once. Exit codes: 0 clean, 3 cannot start, 4 bad configuration, 5 stopped with messages
    unsettled (the broker delivers those again).

    [bold]Example:[/bold] gateway run --config config/gateway.toml
    """
    raise typer.Exit(app.run(load_settings(config)))
