"""``make bench``: ``gateway bench --own-servers`` on the best database that this machine has for tests, with rivals.

TimescaleDB where GATEWAY_TEST_TIMESERIES_DSN names a server, or GATEWAY_TEST_TIMESCALEDB_ROOT a folder with one; else
the embedded PostgreSQL, which the bench starts itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import typer
from pydantic import SecretStr

from gateway import cli, settings
from gateway.cli import common, options
from gateway.tools.bench import command, servers, session
from tests.benchmarks.rivals.bridge import Bridge
from tests.benchmarks.rivals.node_red import NodeRed
from tests.benchmarks.rivals.telegraf import Telegraf
from tests.support.servers import TIMESCALEDB_ROOT, TIMESERIES_DSN, Timescale

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@contextlib.contextmanager
def server() -> Iterator[settings.DatabaseSettings | None]:
    """A superuser's log-in; None: the bench starts a server itself."""
    if dsn := os.environ.get(TIMESERIES_DSN):
        yield settings.DatabaseSettings(dsn=SecretStr(dsn))
    elif os.environ.get(TIMESCALEDB_ROOT):
        with Timescale(durable=True, settings=servers.tuning()) as started:
            yield settings.DatabaseSettings(dsn=SecretStr(started.start().dsn()))
    else:
        yield None


@app.command()
@options.spread
def bench(amount: command.Amount, output: options.Output) -> None:
    """Measure this machine."""
    rivals = (Bridge(), Telegraf(), NodeRed())
    with server() as superuser:
        report = common.run(session.run_here(amount.options(), superuser, command.tell, rivals))
    output.say("\n".join(report.lines()), report.as_dict())


if __name__ == "__main__":
    cli.main(app)
