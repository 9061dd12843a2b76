"""``gateway status``: ask the running daemon, and print the equation first."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from gateway import errors
from gateway.cli import common, configuration, options, tables

_EVERY = 1.0


@options.spread
def status(
    config: options.ConfigOption = None,
    url: str | None = typer.Option(None, help="Of the daemon; by default as configured, on this host."),
    *,
    output: options.Output,
    watch: bool = typer.Option(False, "--watch", help="Ask again every second, until Ctrl-C."),
) -> None:
    """Show books, components and figures of the running daemon.

    Exit code: 0 ready and in balance, 1 not so, 2 not reachable.

    Example: gateway status --url http://127.0.0.1:9108
    """
    from gateway.observability import ask

    target = url or ask.address(configuration.load(config).observability)
    width = tables.terminal_width()
    if watch:
        with contextlib.suppress(KeyboardInterrupt, common.InterruptError):
            _watch(target, width, as_json=output.as_json)
    said = common.run(ask.ask(target))
    if output.as_json:
        common.print_json(said)
    else:
        common.say(_one_line(said) if watch and width is None else "\n".join(report(said, width)))
    raise typer.Exit(0 if said["ready"] and said["balanced"] else 1)


def report(said: Mapping[str, Any], width: int | None = None) -> Iterator[str]:
    """The lines for people: equation, pace and dead letters, components, figures.

    Args:
        width: columns of the terminal; None: as many as it takes.
    """
    from gateway.observability import equation

    yield from equation.lines(said["streams"], said["total"], width)
    yield f"last message {_last(said)}; a second, over the last 10 s: {_rates(said)}"
    for stream, reasons in said["dead_letters"].items():
        counts = sorted(reasons.items(), key=lambda reason: -reason[1])
        yield f"dead letters, {stream}: " + ", ".join(f"{count:,} {reason}" for reason, count in counts)
    yield ""
    yield from _components(said)
    yield ""
    yield from _figures(said)


def _last(said: Mapping[str, Any]) -> str:
    moment = said["last_message_at"]
    return "none yet" if moment is None else f"{_ago(moment)} ago"


def _rates(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{rate:,.1f} {name.replace('_', ' ')}" for name, rate in said["rates"].items())


def _one_line(said: Mapping[str, Any]) -> str:
    """Of a watch in a pipe: time, state, the equation of all streams, pace, and what is not ready."""
    from gateway.observability import equation

    state = "stopping" if said["stopping"] else "ready" if said["ready"] else "NOT READY"
    waits = [
        f"{name}: {component['detail'] or component['state']}"
        for name, component in said["components"].items()
        if component["state"] != "ready"
    ]
    now = tables.text(dt.datetime.now(dt.UTC), str)
    parts = (f"{now} {state}", equation.sentence(said["total"]), f"a second: {_rates(said)}", *waits)
    return "; ".join(parts)


def _watch(url: str, width: int | None, *, as_json: bool) -> None:
    if as_json or width is None:
        while True:
            _print_now(url, as_json=as_json)
            time.sleep(_EVERY)
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), auto_refresh=False, transient=True) as screen:
        while True:
            screen.update(Text(common.clean_lines(_now(url, width))), refresh=True)
            time.sleep(_EVERY)


def _print_now(url: str, *, as_json: bool) -> None:
    """One line: what reads a pipe reads lines."""
    from gateway.observability import ask

    try:
        said = common.run(ask.ask(url))
    except errors.UsageError as error:
        said, text = {"error": str(error)}, str(error)
    else:
        text = _one_line(said)
    if as_json:
        common.say_json(json.dumps(said, ensure_ascii=False))
    else:
        common.say(text)


def _now(url: str, width: int) -> str:
    from gateway.observability import ask

    try:
        return "\n".join(report(common.run(ask.ask(url)), width))
    except errors.UsageError as error:
        return str(error)


def _components(said: Mapping[str, Any]) -> Iterator[str]:
    yield "stopping" if said["stopping"] else "ready" if said["ready"] else "NOT READY"
    width = max((len(name) for name in said["components"]), default=0)
    for name, component in said["components"].items():
        yield f"  {name:<{width}}  {component['state']:<8}  {component['detail']}".rstrip()
        error = component["last_error"]
        if error and error != component["detail"]:
            yield f"  {'':<{width}}  last error {_ago(component['last_error_at'])} ago: {error}"


def _figures(said: Mapping[str, Any]) -> Iterator[str]:
    yield f"version {said['version']}, up {_span(said['uptime_seconds'])}"
    drained = {stream: ends for stream, ends in said["drained"].items() if any(ends.values())}
    for stream, ends in drained.items():
        told = ", ".join(f"{count:,} {outcome}" for outcome, count in ends.items() if count)
        yield f"  drained from the spool, {stream}: {told}"
    for name, value in said["figures"].items():
        yield f"  {name.replace('_', ' '):<20}  {_figure(value)}"


def _figure(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"{value:,.0f}"
    if not value["count"]:
        return "none yet"
    bounds = [f"{name} ≤ {value[name]:g}" for name in ("p50", "p99") if value[name] is not None]
    return ", ".join([f"{value['count']:,.0f}", f"mean {value['mean']:.3g}", *bounds])


def _ago(moment: float) -> str:
    return _span(max(0.0, time.time() - moment))


def _span(seconds: float) -> str:
    """The two largest units, rounded down: ``3 h 12 min``."""
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])
