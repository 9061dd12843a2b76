"""``gateway spool``: look into the disk spool, also while the daemon uses it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gateway import clock, errors
from gateway.cli import common, configuration, options

if TYPE_CHECKING:
    from gateway import settings
    from gateway.spool import inspection
    from gateway.spool.records import Record

app = typer.Typer()


@app.command()
@options.spread
def status(config: options.ConfigOption = None, *, output: options.Output) -> None:
    """Show what waits on disk: records, bytes, age, room left.

    Example: gateway spool status --config /etc/gateway/gateway.toml
    """
    from gateway.spool import inspection

    spool = configuration.load(config).spool
    found = [_shown(inspection.status(folder, spool.max_bytes)) for folder in _folders(spool)]
    rows = ((name, _plain(value)) for one in found for name, value in one.items())
    output.attributes(rows, lambda: found)


@app.command()
@options.spread
def verify(config: options.ConfigOption = None, *, output: options.Output) -> None:
    """Read everything and check every checksum.

    Exit code 1 when something is damaged.

    Damage costs the records it is in: the daemon quarantines their bytes in *.corrupt and goes on with the others.

    Example: gateway spool verify
    """
    import msgspec

    from gateway.spool import inspection

    found = [inspection.verify(folder) for folder in _folders(configuration.load(config).spool)]
    if output.as_json:
        common.print_json(msgspec.to_builtins(found, enc_hook=str))
    else:
        common.say("\n".join(line for verdict in found for line in _said(verdict)))
    if any(verdict.damage for verdict in found):
        raise typer.Exit(1)


@app.command()
@options.spread
def export(config: options.ConfigOption = None) -> None:
    """Print all records as JSON lines.

    A payload that is no text stands as payload_base64.

    Example: gateway spool export > spooled.jsonl
    """
    import msgspec

    from gateway.spool import inspection

    for folder in _folders(configuration.load(config).spool):
        for record in inspection.read(folder):
            common.say_json(msgspec.json.encode(_as_json(record)).decode())


@app.command()
@options.spread
def drain(call: options.Call) -> None:
    """Send what is spooled into the databases.

    Without a daemon; also what workers left that run no more. A running daemon drains its own spool; it must not
    have the folder. Servers that are away are waited for a minute; what must be mended ends it at once. Exit code 1
    when it could not be done: what is left stays in the spool.

    Example: gateway spool drain --config /etc/gateway/gateway.toml
    """
    from gateway.daemon import spool_drain

    loaded = call.load()
    folders = _folders(loaded.spool)
    result = spool_drain.DrainResult()
    with call.telling(result.as_dict, result.summary), common.progress("drained") as show:
        common.run(spool_drain.run(loaded, folders, result, progress=show))


def _folders(spool: settings.SpoolSettings) -> list[Path]:
    if spool.folder is None:
        raise errors.UsageError(
            "no spool is configured: set spool.folder (`gateway config sample` explains it)"
        )
    from gateway.spool import inspection

    return inspection.folders(spool.folder)


def _shown(found: inspection.SpoolStatus) -> dict[str, Any]:
    import msgspec

    shown = msgspec.structs.asdict(found) | {"room_bytes": found.room_bytes}
    for name in ("oldest", "newest"):
        moment = shown.pop(f"{name}_us")
        shown[f"{name}_at"] = None if moment is None else clock.to_datetime(moment)
    return shown


def _said(verdict: inspection.Verification) -> Iterator[str]:
    for place in verdict.damage:
        yield f"{verdict.folder / place.file}: {place.length} bytes damaged at offset {place.offset}"
    yield (
        f"{verdict.folder}: {verdict.records} records in {verdict.segments} segments ({verdict.size_bytes} bytes), "
        f"{len(verdict.damage)} damaged places, {verdict.unfinished_bytes} bytes unfinished at the end"
    )


def _plain(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, tuple) else value


def _as_json(record: Record) -> dict[str, Any]:
    """The record with its payload as text, or as base64 when it is none."""
    import msgspec

    shown: dict[str, Any] = msgspec.structs.asdict(record)
    shown["received_at"] = clock.to_datetime(shown.pop("received_us"))
    shown["identity"] = record.identity.hex()
    payload = shown.pop("payload")
    try:
        shown["payload"] = payload.decode("utf-8")
    except UnicodeDecodeError:
        shown["payload_base64"] = base64.b64encode(payload).decode()
    return shown
