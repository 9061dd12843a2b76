"""``gateway bench``: how fast is it, here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import common, configuration, options
from gateway.errors import UsageError
from gateway.tools.bench.options import BenchOptions, Scenario

if TYPE_CHECKING:
    from gateway import settings
    from gateway.tools.bench.installation import BenchInstallation
    from gateway.tools.bench.report import BenchReport

_DEFAULTS = BenchOptions()


@dataclasses.dataclass(frozen=True)
class OwnServers:
    """Whether the bench starts servers, and where it makes its databases."""

    own_servers: Annotated[
        bool,
        typer.Option(
            "--own-servers", help="Not the configured ones, but mosquitto and PostgreSQL of its own."
        ),
    ] = False
    superuser_dsn: Annotated[
        str | None,
        typer.Option(
            help="With --own-servers: make the databases on this server, and drop them, instead of starting one.",
            show_default=False,
        ),
    ] = None
    superuser_password_file: Annotated[
        Path | None,
        typer.Option(help="File holding the superuser's password (first line).", show_default=False),
    ] = None

    def superuser(self) -> settings.DatabaseSettings | None:
        """The server on which it makes its databases; None: one that it starts.

        Raises:
            UsageError: one is given, and the configured servers are to be measured.
        """
        if self.superuser_dsn is None:
            return None
        if not self.own_servers:
            raise UsageError("--superuser-dsn goes with --own-servers")
        return options.superuser(self.superuser_dsn, self.superuser_password_file)


@dataclasses.dataclass(frozen=True)
class Amount:
    """What is measured, and how much of it."""

    scenario: Annotated[
        list[Scenario] | None, typer.Option(help="Only this; can be repeated.", show_default=False)
    ] = None
    messages: Annotated[int, typer.Option(min=1, help="In a backlog.")] = _DEFAULTS.messages
    seconds: Annotated[float, typer.Option(min=0.1, help="That a paced load lasts.")] = _DEFAULTS.seconds
    rounds: Annotated[int, typer.Option(min=1, help="Of what is compared, by turns.")] = _DEFAULTS.rounds
    devices: Annotated[int, typer.Option(min=1000, max=900_000, help="Most of them.")] = _DEFAULTS.devices
    seed: Annotated[int, typer.Option(help="Another seed makes other values.")] = _DEFAULTS.seed
    folder: Annotated[Path, typer.Option(help="What is written goes below it.")] = _DEFAULTS.folder
    quick: Annotated[bool, typer.Option("--quick", help="A little of everything, to see that it works.")] = (
        False
    )

    def options(self) -> BenchOptions:
        """The same, as the bench takes it."""
        chosen = BenchOptions(
            scenarios=tuple(dict.fromkeys(self.scenario or Scenario)), messages=self.messages,
            seconds=self.seconds, rounds=self.rounds, devices=self.devices, seed=self.seed, folder=self.folder,
        )  # fmt: skip
        return chosen.quick() if self.quick else chosen


@options.spread
def bench(
    *,
    own: OwnServers,
    amount: Amount,
    remove: Annotated[
        str | None,
        typer.Option(help="Only remove what the bench of this name left behind.", show_default=False),
    ] = None,
    call: options.Call,
) -> None:
    """Measure an installation, or this machine.

    The configured one, or servers of its own (--own-servers). The gateway under test is an ordinary process of its
    own. It, the loads and what they leave use a scratch tenant, topics and client ids, named gateway-bench-…, which
    are removed at the end; nothing else is touched. Connect as the owner of the tables (--db-user). Every
    measurement ends by counting rows: exit code 1 unless there are as many as messages.

    Examples: gateway bench --own-servers --quick · gateway bench --scenario latency --db-user
    gateway_owner --db-password-file secrets/gateway_owner.password
    """
    superuser = own.superuser()
    installation = None if own.own_servers else _installation(call)
    if remove is None:
        report = _run(amount.options(), installation, superuser)
        call.say("\n".join(report.lines()), report.as_dict())
    elif installation is not None:
        from gateway.tools.bench import session

        common.run(session.remove(installation, remove))


def _run(
    chosen: BenchOptions, installation: BenchInstallation | None, superuser: settings.DatabaseSettings | None
) -> BenchReport:
    """On the installation; without one, on servers of its own."""
    from gateway.tools.bench import session

    if installation is None:
        return common.run(session.run_here(chosen, superuser, tell))
    return common.run(session.run_there(chosen, installation, tell))


def _installation(call: options.Call) -> BenchInstallation:
    from gateway.tools.bench.installation import configured

    loaded = configuration.load(call.config)
    return configured(loaded, call.database("metadata"), call.database("timeseries"))


def tell(text: str) -> None:
    """A line about what is going on."""
    common.say(text, error=True)
