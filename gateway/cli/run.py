"""``gateway run``: the daemon."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from gateway.cli import configuration, options


class Divide(enum.StrEnum):
    """How several workers share the work."""

    MESSAGES = "messages"
    STREAMS = "streams"


def run(
    config: options.ConfigOption = None,
    count: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes to run.")] = 1,
    divide: Annotated[
        Divide,
        typer.Option(
            help="What the workers divide: messages, by shared subscriptions; or streams, where the broker has none."
        ),
    ] = Divide.MESSAGES,
) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    It waits for servers that are away, says so on /ready and in the log, and goes on when they are back. A second
    signal stops it at once. Exit codes: 0 clean, 3 cannot start, 4 bad configuration, 5 stopped with messages
    unsettled (the broker delivers those again).

    With --workers N, N processes with client ids of their own share the work under one supervisor.

    Example: gateway run --config config/gateway.toml
    """
    from gateway.daemon import app, workers
    from gateway.daemon.check import check

    loaded = configuration.load(config)
    check(loaded)
    if count == 1:
        raise typer.Exit(app.run(loaded))
    raise typer.Exit(workers.run(loaded, configuration.file_of(config), count, divide.value))
