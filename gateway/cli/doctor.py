"""``gateway doctor``: look at everything at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gateway.cli import common, configuration, options

if TYPE_CHECKING:
    from gateway import settings
    from gateway.daemon.doctor import Finding


@options.spread
def doctor(config: options.ConfigOption = None, *, output: options.Output) -> None:
    """Say what an operator should know of this installation.

    The settings; what `gateway config check --connect` tries; protection on the network; clocks, locks that others
    hold, readers and partitions; the daemon, its session and those left behind; the spool. Nothing is changed anywhere.

    Exit code 1 when something does not work; with warnings alone it is 0.

    Example: gateway doctor --config /etc/gateway/gateway.toml
    """
    from gateway.daemon.check import check as check_settings

    loaded = configuration.load(config)
    check_settings(loaded)
    found = common.run(_looked(loaded, as_json=output.as_json))
    healthy = all(one.state != "problem" for one in found)
    if output.as_json:
        common.print_json({"healthy": healthy, "found": [one._asdict() for one in found]})
    if not healthy:
        raise typer.Exit(1)


async def _looked(loaded: settings.Settings, *, as_json: bool) -> list[Finding]:
    """Print each as it is found: a server that is away takes its time."""
    from gateway.daemon.doctor import findings

    found = []
    async for one in findings(loaded):
        found.append(one)
        if not as_json:
            common.say(f"{one.state:<7}  {one.what}: {one.text}")
    return found
