"""What all commands share: options, output, and how errors end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from gateway import errors, settings

T = TypeVar("T")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="GATEWAY_CONFIG",
        help="Configuration file; else config/gateway.toml, /etc/gateway/gateway.toml, environment only.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

_COUNT_WIDTH = 40
"""Columns of a line of progress that its count and its clock may take."""
_PIPED_WIDTH = 10_000
"""Columns of a table that goes into a pipe: nothing is wrapped there."""

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
errors_console = Console(stderr=True, highlight=False)

_PLACES = (Path("config/gateway.toml"), Path("/etc/gateway/gateway.toml"))


def settings_file(path: Path | None) -> Path | None:
    """The file of ``--config``, or the first of the usual places that has one; None: environment only."""
    return path or next((place for place in _PLACES if place.is_file()), None)


def load_settings(path: Path | None) -> settings.Settings:
    """The settings, from ``--config`` or the usual places.

    Raises:
        ConfigurationError: naming the file and the mistake.
    """
    return settings.load(settings_file(path))


class InterruptError(errors.GatewayError):
    """Ctrl-C."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command to its end.

    Raises:
        InterruptError: Ctrl-C ended it early.
    """
    try:
        return asyncio.run(work)
    except KeyboardInterrupt as error:
        raise InterruptError("interrupted") from error


class UnfinishedError(errors.GatewayError):
    """The work of a command ended early; its cause says why, and what was done until then has been told."""


@contextlib.contextmanager
def telling(
    done: Callable[[], Mapping[str, object]], said: Callable[[], str], *, as_json: bool
) -> Iterator[None]:
    """Tell what was done in the block, also when it ends early: by an error, or by Ctrl-C.

    Args:
        done: what was done, for ``--json``; ``error`` is added to it when the block ends early.
        said: the same for people.

    Raises:
        UnfinishedError: it ended early.
    """
    try:
        yield
    except errors.GatewayError as error:
        if as_json:
            print_json({**done(), "error": str(error)})
        else:
            typer.echo(f"not finished: {said()}")
        raise UnfinishedError(str(error)) from error
    if as_json:
        print_json(done())
    else:
        typer.echo(said())


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A line on a terminal that tells how far the work of the block is, and what it waits for.

    Yields a function that takes the number done, the number of all, and what is waited for; empty: nothing is.
    """
    # Here: the daemon, too, imports this module at its start.
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed}/{task.total} {task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[waits]}", markup=False),
    )
    with Progress(*columns, console=errors_console, transient=True) as bar:
        task = bar.add_task(what, total=0, waits="")
        room = max(
            0, errors_console.width - _COUNT_WIDTH
        )  # or the text would press the count out of the line
        yield lambda done, total, waits: bar.update(
            task, completed=done, total=total, waits=(waits and f"waiting: {waits}")[:room]
        )


def _plain(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, uuid.UUID | Path):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    raise TypeError(f"cannot print {type(value).__name__} as JSON")


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows as a table; None is shown as nothing."""
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        # An id is there to be copied, a reason to be searched for: they are never cut.
        drawn.add_column(name, no_wrap=name in ("id", "reason"), overflow="fold")
    for row in rows:
        drawn.add_row(*("" if cell is None else _cell(cell) for cell in row))
    console.print(drawn)


def wide(columns: int) -> bool:
    """Whether a table of so many columns of text fits; into a pipe everything does."""
    return not console.is_terminal or console.width >= columns


def _cell(value: object) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)
