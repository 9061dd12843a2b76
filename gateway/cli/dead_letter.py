"""``gateway dead-letter``: list, count, show and replay messages that could not become readings."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import difflib
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway import errors, quantities
from gateway.cli import common, connecting, tables

if TYPE_CHECKING:
    from gateway.writer.dead_letters import Selection

app = typer.Typer()

_SHOWN = ("received_at", "device", "reason", "id", "stream", "topic", "detail")
_COLUMNS = tables.Columns(
    ("received", *_SHOWN[1:]),
    always=("received", "device", "reason"),
    then=("id", "detail", "stream", "topic"),
    free="detail",
)


def _reasons() -> list[str]:
    from gateway.outcomes import DEAD_LETTER_REASONS

    return [reason.value for reason in DEAD_LETTER_REASONS]


ReasonOption = Annotated[
    str | None,
    typer.Option(
        help="Only this reason; docs/dead-letters.md explains all.",
        show_default=False,
        autocompletion=_reasons,
    ),
]
StreamOption = Annotated[str | None, typer.Option(help="Only this stream.", show_default=False)]
DeviceOption = Annotated[str | None, typer.Option(help="Only this serial number.", show_default=False)]
SinceOption = Annotated[
    str | None,
    typer.Option(
        help="Only received since: an age (2h, 30min, 7d) or a time (2026-11-20T12:00:00Z).",
        show_default=False,
    ),
]
UntilOption = Annotated[
    str | None, typer.Option(help="Only received before: an age or a time, likewise.", show_default=False)
]
TenantOption = Annotated[str | None, typer.Option(help="Only of this tenant.", show_default=False)]
LimitOption = Annotated[int, typer.Option(min=1, help="At most so many, the newest.")]


@app.command("list")
def list_(
    *,
    reason: ReasonOption = None,
    stream: StreamOption = None,
    device: DeviceOption = None,
    tenant: TenantOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    replayed: Annotated[bool, typer.Option("--replayed", help="Also those a replay has stored.")] = False,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """List dead letters, the newest first.

    Example: gateway dead-letter list --reason unknown_device --since 2h
    """
    chosen = _selection(reason, stream, device, tenant, since=since, until=until, stored=replayed)
    found, total = connecting.on(
        "timeseries", (config, db_user, db_password_file), lambda c: _page(c, chosen, limit)
    )
    if as_json:
        common.print_json([_as_json(record) for record in found])
        return
    common.table(_COLUMNS, ([one[name] for name in _SHOWN] for one in found))
    if total > len(found):
        hint = "--limit, --reason, --device, --tenant, --since, --until"
        common.say(f"{len(found)} of {total} shown: {hint}", error=True)


@app.command()
def count(
    *,
    reason: ReasonOption = None,
    stream: StreamOption = None,
    device: DeviceOption = None,
    tenant: TenantOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    replayed: Annotated[bool, typer.Option("--replayed", help="Also those a replay has stored.")] = False,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Count dead letters by their reasons, the most frequent first.

    Example: gateway dead-letter count --since 24h
    """
    from gateway.writer import dead_letters

    chosen = _selection(reason, stream, device, tenant, since=since, until=until, stored=replayed)

    async def look(connection: Any) -> tuple[list[dead_letters.Count], int]:
        by_reason = await dead_letters.by_reason(connection, chosen)
        return by_reason, 0 if reason else await dead_letters.not_kept(connection, chosen)

    found, not_kept = connecting.on("timeseries", (config, db_user, db_password_file), look)
    if not_kept:
        common.say(f"{not_kept} more were only counted (dead_letters.max_bytes_per_device)", error=True)
    if as_json:
        common.print_json(
            [
                {"reason": one.reason, "letters": one.letters, "first": one.first, "last": one.last}
                for one in found
            ]
        )
        return
    columns = tables.Columns(("reason", "letters", "first", "last"), always=("reason", "letters"))
    common.table(columns, [(one.reason, one.letters, one.first, one.last) for one in found])


@app.command()
def show(
    letter: Annotated[
        uuid.UUID, typer.Argument(help="Id, from `gateway dead-letter list`.", show_default=False)
    ],
    *,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Show one dead letter with its payload.

    Example: gateway dead-letter show 5b8f3a52-6c1e-4a52-9d53-0d6b8f6f0a11
    """
    from gateway.writer import dead_letters
    from gateway.writer.dead_letters import Selection

    chosen = Selection(ids=(letter,), stored=True)
    found = connecting.on(
        "timeseries", (config, db_user, db_password_file), lambda c: dead_letters.find(c, chosen, limit=1)
    )
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
    tenant: TenantOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 1_000_000,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
    db_user: connecting.DbUserOption = None,
    db_password_file: connecting.DbPasswordFileOption = None,
) -> None:
    """Send dead letters through the path again, after the cause is gone.

    What becomes readings is stored with its original receive time, once however often it is replayed; what fails again
    stays a dead letter with the new reason. The daemon may run meanwhile. Servers that are away are waited for a
    minute; what must be mended, a missing privilege for instance, ends it at once. Exit code 1 when something failed
    again or was not done; letters that were not done can be replayed again.

    Example: gateway dead-letter replay --reason unknown_device --device VIB-SN-001
    """
    import msgspec

    from gateway.daemon import replay as replaying

    chosen = _selection(reason, stream, device, tenant, since=since, until=until, ids=letters)
    options = connecting.settings_as(config, db_user, db_password_file)
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
    tenant: str | None,
    *,
    since: str | None,
    until: str | None,
    ids: list[uuid.UUID] | None = None,
    stored: bool = False,
) -> Selection:
    from gateway.writer.dead_letters import Selection

    chosen = Selection(
        ids=ids or None,
        reason=_known(reason),
        stream=stream,
        device=device,
        tenant=tenant,
        since=_moment("--since", since),
        until=_moment("--until", until),
        stored=stored,
    )
    if chosen.since is not None and chosen.until is not None and chosen.since >= chosen.until:
        raise errors.UsageError(f"--since {since} is not before --until {until}: nothing is between them")
    return chosen


def _known(reason: str | None) -> str | None:
    known = _reasons()
    if reason is None or reason in known:
        return reason
    near = difflib.get_close_matches(reason.lower().replace("-", "_").replace(" ", "_"), known, n=1)
    meant = f"perhaps {near[0]} is meant; " if near else ""
    raise errors.UsageError(
        f"--reason {reason}: there is no such reason; {meant}there are {', '.join(known)}"
    )


def _moment(option: str, text: str | None) -> dt.datetime | None:
    """An age or a time; a time without a zone is local, as the user's clock shows it."""
    if text is None:
        return None
    try:
        with contextlib.suppress(ValueError):
            return dt.datetime.fromisoformat(text).astimezone(dt.UTC)
        age = quantities.parse_duration(text)
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=float(str(age)))
    except (ValueError, OverflowError):
        raise errors.UsageError(
            f"{option} {text}: write an age (2h, 30min, 7d) or a time (2026-11-20T12:00Z)"
        ) from None


async def _page(connection: Any, chosen: Selection, limit: int) -> tuple[list[Mapping[str, Any]], int]:
    from gateway.writer import dead_letters

    return await dead_letters.find(connection, chosen, limit=limit), await dead_letters.count(
        connection, chosen
    )


def _as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its payload as text, or as base64 when it is none."""
    shown = dict(record)
    payload, digest = shown.pop("payload"), shown.pop("payload_digest")
    shown["payload_sha256"] = None if digest is None else digest.hex()
    try:
        shown["payload"] = payload.decode("utf-8")
    except UnicodeDecodeError:
        shown["payload_base64"] = base64.b64encode(payload).decode()
    return shown
