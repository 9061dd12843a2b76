"""``gateway dead-letter``: list, count, show and replay messages that could not become readings."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import difflib
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway import errors, quantities
from gateway.cli import common, options, tables

if TYPE_CHECKING:
    from gateway.writer.dead_letters import Count, Selection

app = typer.Typer()

_SHOWN = ("received_at", "device", "reason", "id", "stream", "topic", "detail")
_COLUMNS = tables.Columns(
    ("received", *_SHOWN[1:]),
    always=("received", "device", "reason"),
    then=("id", "detail", "stream", "topic"),
    free="detail",
)
_COUNTS = tables.Columns(("reason", "letters", "first", "last"), always=("reason", "letters"))


def _reasons() -> list[str]:
    from gateway.outcomes import DEAD_LETTER_REASONS

    return [reason.value for reason in DEAD_LETTER_REASONS]


LimitOption = Annotated[int, typer.Option(min=1, help="At most so many, the newest.")]
ReplayedOption = Annotated[bool, typer.Option("--replayed", help="Also those a replay has stored.")]


@dataclasses.dataclass(frozen=True)
class Filters:
    """Which dead letters a command is about."""

    reason: Annotated[
        str | None,
        typer.Option(
            help="Only this reason; docs/dead-letters.md explains all.",
            show_default=False,
            autocompletion=_reasons,
        ),
    ] = None
    stream: Annotated[str | None, typer.Option(help="Only this stream.", show_default=False)] = None
    device: Annotated[str | None, typer.Option(help="Only this serial number.", show_default=False)] = None
    tenant: options.OnlyTenantOption = None
    since: Annotated[
        str | None,
        typer.Option(
            help="Only received since: an age (2h, 30min, 7d) or a time (2026-11-20T12:00:00Z).",
            show_default=False,
        ),
    ] = None
    until: Annotated[
        str | None,
        typer.Option(help="Only received before: an age or a time, likewise.", show_default=False),
    ] = None

    def selection(self, *, ids: list[uuid.UUID] | None = None, stored: bool = False) -> Selection:
        """What they select.

        Raises:
            UsageError: an option selects nothing ever.
        """
        from gateway.writer.dead_letters import Selection

        reason = _known(self.reason)
        since, until = _moment("--since", self.since), _moment("--until", self.until)
        if since is not None and until is not None and since >= until:
            raise errors.UsageError(
                f"--since {self.since} is not before --until {self.until}: nothing is between them"
            )
        return Selection(
            ids=ids or None, reason=reason, stream=self.stream, device=self.device,
            tenant=self.tenant, since=since, until=until, stored=stored,
        )  # fmt: skip


@app.command("list")
@options.spread
def list_(
    *,
    filters: Filters,
    limit: LimitOption = 50,
    replayed: ReplayedOption = False,
    call: options.Call,
) -> None:
    """List dead letters, the newest first.

    Example: gateway dead-letter list --reason unknown_device --since 2h
    """
    chosen = filters.selection(stored=replayed)
    found, total = call.on("timeseries", lambda c: _page(c, chosen, limit))
    rows = ([one[name] for name in _SHOWN] for one in found)
    call.table(_COLUMNS, rows, lambda: [_as_json(record) for record in found])
    if total > len(found) and not call.as_json:
        hint = "--limit, --reason, --device, --tenant, --since, --until"
        common.say(f"{len(found)} of {total} shown: {hint}", error=True)


@app.command()
@options.spread
def count(
    *,
    filters: Filters,
    replayed: ReplayedOption = False,
    call: options.Call,
) -> None:
    """Count dead letters by their reasons, the most frequent first.

    Example: gateway dead-letter count --since 24h
    """
    chosen = filters.selection(stored=replayed)
    found, not_kept = call.on("timeseries", lambda c: _counts(c, chosen))
    if not_kept:
        bounds = "dead_letters.max_bytes_per_device, dead_letters.max_bytes_unknown"
        common.say(f"{not_kept} more were only counted ({bounds})", error=True)
    rows = [(one.reason, one.letters, one.first, one.last) for one in found]
    call.table(_COUNTS, rows, lambda: [dict(zip(_COUNTS.names, row, strict=True)) for row in rows])


@app.command()
@options.spread
def show(
    letter: Annotated[
        uuid.UUID, typer.Argument(help="Id, from `gateway dead-letter list`.", show_default=False)
    ],
    *,
    call: options.Call,
) -> None:
    """Show one dead letter with its payload.

    Example: gateway dead-letter show 5b8f3a52-6c1e-4a52-9d53-0d6b8f6f0a11
    """
    from gateway.writer import dead_letters
    from gateway.writer.dead_letters import Selection

    chosen = Selection(ids=(letter,), stored=True)
    found = call.on("timeseries", lambda c: dead_letters.find(c, chosen, limit=1))
    if not found:
        raise errors.UsageError(f"no dead letter {letter}: see `gateway dead-letter list --replayed`")
    record = _as_json(found[0])
    call.attributes(((name, value) for name, value in record.items() if value is not None), lambda: record)


@app.command()
@options.spread
def replay(
    letters: Annotated[
        list[uuid.UUID] | None,
        typer.Argument(help="Ids; none: all that the options select.", show_default=False),
    ] = None,
    *,
    filters: Filters,
    limit: LimitOption = 1_000_000,
    call: options.Call,
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

    chosen = filters.selection(ids=letters)
    loaded = call.load()
    result = replaying.ReplayResult()
    with (
        call.telling(lambda: msgspec.structs.asdict(result), result.summary),
        common.progress("replayed") as shown,
    ):
        common.run(replaying.run(loaded, chosen, result, limit=limit, progress=shown))
    if result.failed_again:
        raise typer.Exit(1)


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
    """The newest dead letters, and how many there are."""
    from gateway.writer import dead_letters

    found = await dead_letters.find(connection, chosen, limit=limit)
    return found, await dead_letters.count(connection, chosen)


async def _counts(connection: Any, chosen: Selection) -> tuple[list[Count], int]:
    """Those of each reason, and how many more were not kept; these have no reason."""
    from gateway.writer import dead_letters

    by_reason = await dead_letters.by_reason(connection, chosen)
    return by_reason, 0 if chosen.reason else await dead_letters.not_kept(connection, chosen)


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
