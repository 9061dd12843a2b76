"""``gateway config``: check, show, and a sample to start from."""

from __future__ import annotations

import json

import typer

from gateway.cli import common

app = typer.Typer()


@app.command()
def check(config: common.ConfigOption = None) -> None:
    """Say whether the configuration is right; nothing is connected to.

    Example: gateway config check --config config/gateway.toml
    """
    from gateway import exposure
    from gateway.check import check as check_settings

    file = common.settings_file(config)
    settings = common.load_settings(config)
    check_settings(settings)
    for warning in exposure.warnings(settings):
        common.say(f"warning: {warning}")
    common.say(f"{file or 'environment'}: valid")


@app.command()
def show(config: common.ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """Show every option in force and where it comes from; secrets are hidden.

    Example: GATEWAY__BATCH__LINGER=10ms gateway config show
    """
    import msgspec

    from gateway import effective

    common.load_settings(config)  # says best where there is none
    options = effective.effective(common.settings_file(config))
    if as_json:
        common.print_json(msgspec.to_builtins(options))
    else:
        for option in options:
            common.say(f"{option.origin:<11}  {option.name} = {_written(option.value)}")


@app.command()
def sample() -> None:
    """Print an annotated configuration: every option, defaults commented out.

    Example: gateway config sample > config/gateway.toml
    """
    from gateway.sample import sample as annotated_sample

    typer.echo(annotated_sample(), nl=False)


def _written(value: object) -> str:
    return "(unset)" if value is None else json.dumps(value, ensure_ascii=False)
