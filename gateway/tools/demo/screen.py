"""Where the demo shows itself: a terminal that is redrawn, or a plain line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live

from gateway.tools.demo import drawing
from gateway.tools.demo.view import View

_PLAIN_EVERY = 3.0


class Screen(Protocol):
    """A context manager, because a terminal must be given back."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, view: View) -> None:
        """Show the state of things."""


def screen(console: Console, commands: Sequence[str]) -> Screen:
    """What suits the console; ``commands`` are there to be pasted into another terminal."""
    return LiveScreen(console, commands) if console.is_terminal else PlainScreen(console)


class PlainScreen:
    """A line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = time.monotonic() + _PLAIN_EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to give back."""

    def show(self, view: View) -> None:
        """Print a line when it is time for one."""
        if time.monotonic() >= self._next:
            self._next += _PLAIN_EVERY
            self._console.print(drawing.plain_line(view), soft_wrap=True)


class LiveScreen:
    """The whole terminal, redrawn at each :meth:`show`."""

    def __init__(self, console: Console, commands: Sequence[str]) -> None:
        self._console, self._commands = console, commands
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, view: View) -> None:
        """Redraw."""
        width, height = self._console.size
        self._live.update(drawing.draw(view, self._commands, width, height), refresh=True)
