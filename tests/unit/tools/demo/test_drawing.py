"""The view as text."""

from __future__ import annotations

import pytest
from rich.console import Console

from gateway.tools.demo import drawing, roster, signals
from gateway.tools.demo.view import View
from gateway.tools.demo.watch import Snapshot

BOOKS = {
    "received": 1_234_567,
    "stored": 1_234_500,
    "duplicate": 0,
    "spooled": 0,
    "dead_lettered": 60,
    "ignored": 0,
    "in_flight": 7,
    "balance": 0,
}
COMMANDS = ["gateway demo --serve psql", "gateway status --config " + "x" * 60, *["gateway db"] * 3]


def snapshot(**changes: object) -> Snapshot:
    """Figures of a busy gateway, with changes by name of a term or a component."""
    books = {**BOOKS, **{name: value for name, value in changes.items() if name in BOOKS}}
    dead_letters = {"unknown_device": 20, "malformed": 19, "out_of_range": 11, "timestamp_in_future": 10}
    components = {"mqtt": "ready", "timeseries": str(changes.get("timeseries", "ready"))}
    return Snapshot(books, True, components, dead_letters, 1_234_500, 0.0021, 0.0084)  # type: ignore[arg-type]


def seen(*, moments: int = 60, **changes: object) -> View:
    """A view after that many looks."""
    view = View()
    fleet = {member.serial: signals.signal(member, 1) for member in roster.DEVICES}
    for moment in range(moments):
        view.see(snapshot(**changes), {serial: signal(moment / 2) for serial, signal in fleet.items()})
    return view


def drawn(view: View, width: int, height: int) -> list[str]:
    """The lines on a terminal of this size."""
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(drawing.draw(view, COMMANDS, width, height))
    return captured.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (132, 43), (200, 60)])
def test_fits_the_terminal(width: int, height: int) -> None:
    """On an ordinary terminal nothing is wrapped, cropped or pushed out."""
    lines = drawn(seen(), width, height)
    assert len(lines) <= height
    assert "gateway db" in lines[-1]
    assert max(map(len, lines)) <= width
    assert any("1 234 567 = 1 234 500" in line for line in lines)


@pytest.mark.parametrize(("width", "height"), [(40, 10), (60, 20)])
def test_a_small_terminal_still_shows_the_equation(width: int, height: int) -> None:
    """The law comes first; what finds no room is below it."""
    top = " ".join(line.strip() for line in drawn(seen(), width, height)[:height])
    assert "received 1234567 = stored 1234500 + duplicate 0" in top


def test_a_command_that_does_not_fit_is_left_out() -> None:
    """Cropped or wrapped it would not work when pasted."""
    narrow, wide = (drawn(seen(), width, 24) for width in (80, 100))
    assert COMMANDS[0] in narrow
    assert not any(line.startswith("gateway status") for line in narrow)
    assert COMMANDS[1] in wide


def test_says_when_the_law_is_broken() -> None:
    """Nobody can overlook it."""
    assert any("IT DOES NOT HOLD" in line for line in drawn(seen(balance=3), 80, 24))


def test_says_what_is_not_ready() -> None:
    """A component in trouble is named with its state."""
    assert any("timeseries waiting" in line for line in drawn(seen(timeseries="waiting"), 80, 24))


def test_says_when_the_gateway_is_silent() -> None:
    """Old figures are not shown as if they were new."""
    view = seen()
    view.see(None, {})
    assert any("no answer" in line for line in drawn(view, 80, 24))
    assert "does not answer" in drawing.plain_line(view)


def test_draws_before_there_is_anything() -> None:
    """The first look may come before the first message."""
    assert drawn(View(), 80, 24)
    assert "0 s" in drawing.plain_line(View())


def test_the_plain_line_holds_the_equation() -> None:
    """A log of the demo can be checked by whoever reads it."""
    line = drawing.plain_line(seen())
    assert "received 1234567 = stored 1234500 + duplicate 0 + spooled 0 + dead_lettered 60" in line
    assert "commit p50 2.1 ms  p99 8.4 ms" in line
