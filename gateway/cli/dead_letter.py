"""``gateway dead-letter``: list, show and replay messages that could not become readings."""

from __future__ import annotations

import base64
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway import errors, quantities
from gateway.cli import common, tables

if TYPE_CHECKING:
    from gateway.dead_letters import Selection

app = typer.Typer()
T = TypeVar("T")

_SHOWN = ("received_at", "device", "reason", "id", "stream", "topic", "detail")
_COLUMNS = tables.Columns(
    ("received", *_SHOWN[1:]),
    always=("received", "device", "reason"),
    then=("id", "detail", "stream", "topic"),
    free="detail",
)

ReasonOption = Annotated[str | None, typer.Option(help="Only this reason.", show_default=False)]
StreamOption = Annotated[str | None, typer.Option(help="Only this stream.", show_default=False)]
DeviceOption = Annotated[str | None, typer.Option(help="Only this serial number.", show_default=False)]
SinceOption = Annotated[
    str | None,
    typer.Option(
        help="Only received since: an age (2h, 30min, 7d) or a time (2026-11-20T12:00:00Z).",
        show_default=False,
    ),
]
LimitOption = Annotated[int, typer.Option(min=1, help="At most so many, the newest.")]


@app.command("list")
def list_(
    *,
    reason: ReasonOption = None,
    stream: StreamOption = None,
    device: DeviceOption = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    replayed: Annotated[bool, typer.Option("--replayed", help="Also those a replay has stored.")] = False,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """List dead letters, the newest first.

    Example: gateway dead-letter list --reason unknown_device --since 2h
    """
    chosen = _selection(reason, stream, device, since, stored=replayed)
    found, total = _ask(config, lambda c: _page(c, chosen, limit))
    if as_json:
        common.print_json([_as_json(record) for record in found])
        return
    common.table(_COLUMNS, ([one[name] for name in _SHOWN] for one in found))
    if total > len(found):
        common.say(f"{len(found)} of {total} shown: --limit, --reason, --device, --since", error=True)


@app.command()
def show(
    letter: Annotated[
        uuid.UUID, typer.Argument(help="Id, from `gateway dead-letter list`.", show_default=False)
    ],
    *,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Show one dead letter with its payload.

    Example: gateway dead-letter show 5b8f3a52-6c1e-4a52-9d53-0d6b8f6f0a11
    """
    from gateway import dead_letters
    from gateway.dead_letters import Selection

    chosen = Selection(ids=(letter,), stored=True)
    found = _ask(config, lambda c: dead_letters.find(c, chosen, limit=1))
    if not found:
        raise errors.UsageError(f"no dead letter {letter}: see `gateway dead-letter list --replayed`")
    record = _as_json(found[0])
    if as_json:
        common.print_json(record)
        return
    common.attributes((name, value) for name, value in record.items() if value is not None)


@app.command()
def replay(
    letters: Annotated[
        list[uuid.UUID] | None,
        typer.Argument(help="Ids; none: all that the options select.", show_default=False),
    ] = None,
    *,
    reason: ReasonOption = None,
    stream: StreamOption = None,
    device: DeviceOption = None,
    since: SinceOption = None,
    limit: LimitOption = 1_000_000,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Send dead letters through the path again, after the cause is gone.

    What becomes readings is stored with its original receive time, once however often it is replayed; what fails again
    stays a dead letter with the new reason. The daemon may run meanwhile. Servers that are away are waited for a
    minute; what must be mended, a missing privilege for instance, ends it at once. Exit code 1 when something failed
    again or was not done; letters that were not done can be replayed again.

    Example: gateway dead-letter replay --reason unknown_device --device VIB-SN-001
    """
    import msgspec

    from gateway import replay as replaying

    chosen = _selection(reason, stream, device, since, ids=letters)
    options = common.load_settings(config)
    result = replaying.Result()
    with (
        common.telling(lambda: msgspec.structs.asdict(result), result.said, as_json=as_json),
        common.progress("replayed") as show,
    ):
        common.run(replaying.run(options, chosen, result, limit=limit, progress=show))
    if result.failed_again:
        raise typer.Exit(1)


def _selection(
    reason: str | None,
    stream: str | None,
    device: str | None,
    since: str | None,
    *,
    ids: list[uuid.UUID] | None = None,
    stored: bool = False,
) -> Selection:
    from gateway.dead_letters import Selection

    return Selection(ids or None, reason, stream, device, None if since is None else _moment(since), stored)


def _moment(text: str) -> dt.datetime:
    """An age or a time; a time without a zone is local, as the user's clock shows it."""
    try:
        return dt.datetime.fromisoformat(text).astimezone()
    except ValueError:
        pass
    try:
        age = quantities.parse_duration(text)
    except ValueError:
        raise errors.UsageError(
            f"--since {text}: write an age (2h, 30min, 7d) or a time (2026-11-20T12:00Z)"
        ) from None
    return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=float(str(age)))


async def _page(connection: Any, chosen: Selection, limit: int) -> tuple[list[Mapping[str, Any]], int]:
    from gateway import dead_letters

    return await dead_letters.find(connection, chosen, limit=limit), await dead_letters.count(
        connection, chosen
    )


def _ask(config: Path | None, work: Callable[[Any], Awaitable[T]]) -> T:
    """What ``work`` gives on a connection to the time-series database."""
    from gateway.storage import pools

    options = common.load_settings(config).databases.timeseries.for_a_job()

    async def session() -> T:
        pool = pools.Pool("timeseries", options, size=1)
        try:
            async with pool.connection() as connection:
                return await work(connection)
        finally:
            await pool.close()

    return common.run(session())


def _as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its payload as text, or as base64 when it is none."""
    shown = dict(record)
    payload = shown.pop("payload")
    try:
        shown["payload"] = payload.decode("utf-8")
    except UnicodeDecodeError:
        shown["payload_base64"] = base64.b64encode(payload).decode()
    return shown
