"""``gateway config``: check, show, and a sample to start from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import common, configuration, options

if TYPE_CHECKING:
    from gateway import settings
    from gateway.daemon import trial

app = typer.Typer()


@app.command()
@options.spread
def check(
    config: options.ConfigOption = None,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Try the broker and both databases too; nothing is changed there."),
    ] = False,
    *,
    output: options.Output,
) -> None:
    """Say whether the configuration is right.

    Nothing is connected to without --connect. With it: versions, log-ins, privileges, migrations, subscriptions,
    and device types that streams provision. The broker sees a client of another id, with a session that ends at
    once. Exit code 1 when something would not work.

    Example: gateway config check --config config/gateway.toml --connect
    """
    from gateway.daemon import exposure
    from gateway.daemon.check import check as check_settings

    loaded = configuration.load(config)
    check_settings(loaded)
    warnings = list(exposure.warnings(loaded))
    if not output.as_json:
        said = [f"warning: {warning}" for warning in warnings]
        common.say("\n".join([*said, f"{configuration.file_of(config) or 'environment'}: valid"]))
    found = common.run(_tried(loaded, as_json=output.as_json)) if connect else []
    if output.as_json:
        common.print_json({"valid": True, "warnings": warnings, "found": [one._asdict() for one in found]})
    if not all(one.ok for one in found):
        raise typer.Exit(1)


async def _tried(loaded: settings.Settings, *, as_json: bool) -> list[trial.TrialResult]:
    """Print each as it is found: a server that is away takes its time."""
    from gateway.daemon import trial

    found = []
    async for one in trial.findings(loaded):
        found.append(one)
        if not as_json:
            common.say(f"{one.what}: {'ok' if one.ok else 'FAILS'}: {one.text}")
    return found


@app.command()
@options.spread
def show(config: options.ConfigOption = None, *, output: options.Output) -> None:
    """Show every option in force and where it comes from.

    Secrets are hidden.

    Example: GATEWAY__BATCH__LINGER=10ms gateway config show
    """
    import msgspec

    from gateway.settings import effective

    configuration.load(config)  # says best where there is none
    found = effective.effective(configuration.file_of(config))
    if output.as_json:
        common.print_json(msgspec.to_builtins(found))
    else:
        for option in found:
            common.say(f"{option.origin:<11}  {option.name} = {_written(option.value)}")


@app.command()
def sample() -> None:
    """Print an annotated configuration with every option.

    Example: gateway config sample > config/gateway.toml
    """
    from gateway.settings.sample import sample as annotated_sample

    typer.echo(annotated_sample(), nl=False)


def _written(value: object) -> str:
    return "(unset)" if value is None else json.dumps(value, ensure_ascii=False)
