"""``gateway session``: the sessions that gateways have at the broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway import clock, errors
from gateway.cli import common, configuration, options, tables

if TYPE_CHECKING:
    from gateway.writer.session_store import Kept

app = typer.Typer()
_COLUMNS = tables.Columns(
    ("client id", "gateway", "in use", "last used", "filters"), always=("client id", "in use"), free="filters"
)


@app.command("list")
@options.spread
def list_sessions(config: options.ConfigOption = None, *, output: options.Output) -> None:
    """List the sessions of all gateways on this database.

    What they subscribe to, and whether they are in use.

    Example: gateway session list
    """
    from gateway.daemon import former_sessions

    found = common.run(former_sessions.find(configuration.load(config)))
    rows = [_shown(kept, in_use=former_sessions.is_in_use(kept)) for kept in found]
    output.table(_COLUMNS, ([_plain(value) for value in row.values()] for row in rows), lambda: rows)


@app.command()
@options.spread
def end(
    client_id: Annotated[str, typer.Argument(help="As `gateway session list` shows it.")],
    config: options.ConfigOption = None,
    *,
    output: options.Output,
) -> None:
    """Read a session empty that is not used any more.

    Its subscriptions end, what it holds is stored. A running gateway does so by itself with what it left under
    other client ids, after a change of --workers. This is for what another gateway left, under a client id that was
    given up.

    Example: gateway session end gateway-berlin
    """
    from gateway.daemon import former_sessions

    loaded = configuration.load(config)
    _refuse_unless_left(client_id, common.run(former_sessions.find(loaded)))
    result = former_sessions.FormerSessionResult()
    with output.telling(lambda: {"messages": result.messages}, lambda: f"{result.messages} messages read"):
        common.run(former_sessions.end(loaded, client_id, result))


def _refuse_unless_left(client_id: str, found: Iterable[Kept]) -> None:
    from gateway.daemon import former_sessions

    kept = {one.client_id: one for one in found}
    if client_id not in kept:
        raise errors.UsageError(
            f"no gateway on this database had a session under {client_id}; see `gateway session list`"
        )
    if former_sessions.is_in_use(kept[client_id]):
        raise errors.UsageError(f"a gateway uses the session of {client_id}: stop it first")


def _shown(kept: Kept, *, in_use: bool) -> dict[str, Any]:
    return {
        "client_id": kept.client_id,
        "gateway": kept.gateway,
        "in_use": in_use,
        "last_used_at": clock.to_datetime(kept.state.at_us),
        "filters": list(kept.state.filters),
    }


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else value
