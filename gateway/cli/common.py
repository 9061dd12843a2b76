"""What all commands share: how work is run, how answers are printed, and how errors end."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

from gateway import errors, foreign
from gateway.cli import tables

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

T = TypeVar("T")

_COUNT_WIDTH = 40
"""Columns of a line of progress that its count and its clock may take."""

_before_work: Callable[[], None] = lambda: None  # noqa: E731
_raw = False
"""Whether foreign text is printed as it is."""


class InterruptError(errors.GatewayError):
    """Ctrl-C."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command to its end.

    Raises:
        InterruptError: Ctrl-C ended it early.
    """
    import asyncio

    _before_work()
    try:
        return asyncio.run(work)
    except KeyboardInterrupt as error:
        raise InterruptError("interrupted") from error


def before_work(prepare: Callable[[], None]) -> None:
    """Have this called before the work of a command, and not when there is only help or completion to print."""
    global _before_work  # noqa: PLW0603 - the process has one standard error
    _before_work = prepare


def print_raw(wanted: bool) -> None:
    """``--raw``: from now on foreign text is printed as it is."""
    global _raw  # noqa: PLW0603 - an option of the whole process, as standard output is
    _raw = wanted


def clean(text: str) -> str:
    """Foreign text as a terminal may have it, on one line."""
    return text if _raw else foreign.visible(text)


def clean_lines(text: str) -> str:
    """The same for a text of several lines."""
    return text if _raw else foreign.visible_lines(text)


def _print(text: str, *, error: bool = False) -> None:
    typer.echo(text, err=error, color=True if _raw else None)  # by default a pipe gets no escape sequences


def say(text: str, *, error: bool = False) -> None:
    """Print a text of one or more lines; foreign text in it does no harm."""
    _print(clean_lines(text), error=error)


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
            say(f"not finished: {said()}")
        raise UnfinishedError(str(error)) from error
    if as_json:
        print_json(done())
    else:
        say(said())


class Progress(Protocol):
    """Takes the number done, the number of all, and what is waited for; empty: nothing is."""

    def __call__(self, done: int, total: int | None = None, waits: str = "", /) -> None:
        """Show it."""


@contextlib.contextmanager
def progress(what: str, *, shown: bool = True) -> Iterator[Progress]:
    """A line on a terminal (elsewhere nothing) that tells how far the work of the block is, and what it waits for.

    Args:
        what: what is done, for people.
        shown: False: show nothing.

    Yields a function that shows the number done, the number of all where it is known, and what is waited for.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda _done, _total=None, _waits="": None
        return
    with _bar() as bar:
        room = max(0, bar.console.width - _COUNT_WIDTH)  # or the text would press the count out of the line
        task = bar.add_task(what, total=None, waits="", of="")

        def show(done: int, total: int | None = None, waits: str = "", /) -> None:
            of = "" if total is None else f"/{total}"
            said = clean(f"waiting: {waits}")[:room] if waits else ""
            bar.update(task, completed=done, total=total, of=of, waits=said)

        yield show


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.completed}{task.fields[of]} {task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[waits]}", markup=False),
        console=Console(stderr=True, highlight=False),
        transient=True,
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
    say_json(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def say_json(text: str) -> None:
    """Print a text that is JSON."""
    print(text if _raw else foreign.visible_json(text), flush=True)


def table(columns: tables.Columns, rows: Iterable[Sequence[object]]) -> None:
    """Print rows as a table, as they come; None is shown as nothing."""
    for line in tables.lines(columns, rows, clean, width=tables.terminal_width()):
        _print(line)


def attributes(of: Iterable[tuple[str, object]]) -> None:
    """Print what one thing has, a line each: the name, a tab or the room to align, the value uncut."""
    named = [(name.replace("_", " "), tables.text(value, clean)) for name, value in of]
    width = None if tables.terminal_width() is None else max((len(name) for name, _ in named), default=0)
    for name, value in named:
        _print(f"{name}\t{value}" if width is None else f"{name:<{width}}  {value}".rstrip())
