"""``gateway bench``: how fast is it, here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import common, connecting
from gateway.errors import UsageError
from gateway.tools.bench.options import Options, Scenario

if TYPE_CHECKING:
    from gateway import settings
    from gateway.tools.bench.installation import Installation
    from gateway.tools.bench.report import Report

_DEFAULTS = Options()

SuperuserDsnOption = Annotated[
    str | None,
    typer.Option(
        help="With --own-servers: make the databases on this server, and drop them, instead of starting one.",
        show_default=False,
    ),
]
SuperuserPasswordFileOption = Annotated[
    Path | None, typer.Option(help="File holding the superuser's password (first line).", show_default=False)
]


def bench(
    *,
    config: common.ConfigOption = None,
    own_servers: Annotated[
        bool, typer.Option("--own-servers", help="Not the configured ones, but mosquitto and PostgreSQL of its own.")
    ] = False,
    superuser_dsn: SuperuserDsnOption = None,
    superuser_password_file: SuperuserPasswordFileOption = None,
    scenario: Annotated[
        list[Scenario] | None, typer.Option(help="Only this; can be repeated.", show_default=False)
    ] = None,
    messages: Annotated[int, typer.Option(min=1, help="In a backlog.")] = _DEFAULTS.messages,
    seconds: Annotated[float, typer.Option(min=0.1, help="That a paced load lasts.")] = _DEFAULTS.seconds,
    rounds: Annotated[int, typer.Option(min=1, help="Of what is compared, by turns.")] = _DEFAULTS.rounds,
    devices: Annotated[int, typer.Option(min=1000, max=900_000, help="Most of them.")] = _DEFAULTS.devices,
    seed: Annotated[int, typer.Option(help="Another seed makes other values.")] = _DEFAULTS.seed,
    folder: Annotated[Path, typer.Option(help="What is written goes below it.")] = _DEFAULTS.folder,
    quick: Annotated[bool, typer.Option("--quick", help="A little of everything, to see that it works.")] = False,
    remove: Annotated[
        str | None, typer.Option(help="Only remove what the bench of this name left behind.", show_default=False)
    ] = None,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
    as_json: common.JsonOption = False,
) -> None:  # fmt: skip
    """Measure an installation, or this machine.

    The configured one, or servers of its own (--own-servers). The gateway under test is an ordinary process of its
    own. It, the loads and what they leave use a scratch tenant, topics and client ids, named gateway-bench-…, which
    are removed at the end; nothing else is touched. Connect as the owner of the tables (--db-user). Every
    measurement ends by counting rows: exit code 1 unless there are as many as messages.

    Examples: gateway bench --own-servers --quick · gateway bench --scenario latency --db-user
    gateway_owner --db-password-file secrets/gateway_owner.password
    """
    from gateway.tools.bench import session

    options = Options(
        scenarios=tuple(dict.fromkeys(scenario or Scenario)), messages=messages, seconds=seconds, rounds=rounds,
        devices=devices, seed=seed, folder=folder,
    )  # fmt: skip
    if superuser_dsn is not None and not own_servers:
        raise UsageError("--superuser-dsn goes with --own-servers")
    superuser = _superuser(superuser_dsn, superuser_password_file)
    installation = None if own_servers else _installation(config, db_user, db_password_file)
    if remove is None:
        _print(_run(options.quick() if quick else options, installation, superuser), as_json=as_json)
    elif installation is not None:
        common.run(session.remove(installation, remove))


def _run(options: Options, installation: Installation | None, superuser: settings.Database | None) -> Report:
    """On the installation; without one, on servers of its own."""
    from gateway.tools.bench import session

    if installation is None:
        return common.run(session.run_here(options, superuser, _tell))
    return common.run(session.run_there(options, installation, _tell))


def _installation(config: Path | None, user: str | None, password_file: Path | None) -> Installation:
    from gateway.tools.bench.installation import configured

    options = common.load_settings(config)
    metadata = connecting.database("metadata", config, user, password_file)
    timeseries = connecting.database("timeseries", config, user, password_file)
    return configured(options, metadata, timeseries)


def _superuser(dsn: str | None, password_file: Path | None) -> settings.Database | None:
    if dsn is None:
        return None
    from gateway import settings

    return settings.Database.model_validate({"dsn": dsn, "password_file": password_file})


def _tell(text: str) -> None:
    common.say(text, error=True)


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        common.print_json(report.as_dict())
    else:
        common.say("\n".join(report.lines()))
