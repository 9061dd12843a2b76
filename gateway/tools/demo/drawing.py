"""The view as text: one screen for a terminal of any size, or one line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from gateway.foreign import visible
from gateway.outcomes import Outcome
from gateway.tools.demo.sparkline import sparkline
from gateway.tools.demo.view import View
from gateway.tools.demo.watch import Snapshot

TERMS = (*(outcome.value for outcome in Outcome), "in_flight")
"""The right side of the equation."""
_OTHER_LINES = 12
"""Lines that the screen takes besides curves and commands."""
_EQUATION_WIDTH = 78


def plain_line(view: View) -> str:
    """The view in one line."""
    if view.snapshot is None or not view.answering:
        return f"{view.elapsed:4.0f} s  published {view.published}  the gateway does not answer"
    return (
        f"{view.elapsed:4.0f} s  {view.rate:.0f} messages/s  published {view.published}  "
        f"{equation(view.snapshot.books)}  rows {view.snapshot.rows}  commit {_commit(view.snapshot)}"
    )


def equation(books: Mapping[str, int]) -> str:
    """The conservation law with its numbers."""
    return f"received {books['received']} = " + " + ".join(f"{term} {books[term]}" for term in TERMS)


def draw(view: View, commands: Sequence[str], width: int, height: int) -> RenderableType:
    """The whole screen."""
    # A command that does not fit is left out: cropped or wrapped it would not work when pasted.
    whole = [command for command in commands if len(command) <= width]
    room = max(height - _OTHER_LINES - len(whole), 1)
    return Group(
        _head(view),
        _title("every message is accounted for"),
        *_books(view, width),
        _gateway(view, width),
        _title("last readings, from the database"),
        _curves(view, width, room),
        _title("to look around, paste into another terminal"),
        *(Text(command, style="cyan") for command in whole),
    )


def _title(text: str) -> Rule:
    return Rule(text, align="left", style="dim")


def _head(view: View) -> RenderableType:
    minutes, seconds = divmod(int(view.elapsed), 60)
    grid = Table.grid(expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    told = Text(f"{minutes}:{seconds:02}   Ctrl-C ends it and checks the books")
    grid.add_row(Text("gateway demo", style="bold"), told)
    return grid


def _books(view: View, width: int) -> list[RenderableType]:
    if view.snapshot is None:
        return [Text("waiting for the gateway", style="dim")]
    books = view.snapshot.books
    holds = ("✓ it holds", "green") if view.snapshot.balanced else ("✗ IT DOES NOT HOLD", "bold red")
    share = 100 * view.wrong / view.published if view.published else 0.0
    told = f"   published {number(view.published)}, {share:.1f} % of them wrong on purpose"
    law = _equation_table(books) if width >= _EQUATION_WIDTH else Text(equation(books))
    return [law, Text.assemble(holds, told)]


def _equation_table(books: Mapping[str, int]) -> Table:
    grid = Table.grid(padding=(0, 1))
    names: list[Text] = []
    numbers: list[Text] = []
    for sign, term in zip(("", "=", *("+" for _ in TERMS[1:])), ("received", *TERMS), strict=True):
        grid.add_column()
        grid.add_column(justify="right")
        names += [Text(), Text(term, style="dim")]
        numbers += [Text(sign), Text(number(books[term]), style="bold" if books[term] else "dim")]
    grid.add_row(*names)
    grid.add_row(*numbers)
    return grid


def _gateway(view: View, width: int) -> RenderableType:
    if view.snapshot is None:
        return Text()
    grid = Table.grid(padding=(0, 3), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(_title("the gateway"), _title("dead letters by reason"))
    grid.add_row(_figures(view, view.snapshot, width // 2 - 20), _dead_letters(view.snapshot))
    return grid


def _figures(view: View, seen: Snapshot, curve_width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    ceiling = 1.3 * max(view.rates, default=0)
    curve = sparkline(list(view.rates), max(curve_width, 0), low=0, high=ceiling)
    grid.add_row("messages/s", Text.assemble((f"{view.rate:.0f}", "bold"), "  ", (curve, "cyan")))
    grid.add_row("rows", Text(number(seen.rows), style="bold"))
    grid.add_row("commit", _commit(seen))
    grid.add_row("components", _components(seen) if view.answering else Text("no answer", style="bold red"))
    return grid


def _components(seen: Snapshot) -> Text:
    troubled = [(name, state) for name, state in seen.components.items() if state != "ready"]
    if not troubled:
        return Text(f"all {len(seen.components)} ready", style="green")
    return Text(visible(", ".join(f"{name} {state}" for name, state in troubled)), style="yellow")


def _dead_letters(seen: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="yellow")
    counts = sorted(seen.dead_letters.items(), key=lambda item: -item[1])
    for reason, count in counts[:4]:
        grid.add_row(number(count), Text(visible(reason)))
    return grid if counts else Text("none yet", style="dim")


def _curves(view: View, width: int, room: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "left", "right"):
        grid.add_column(no_wrap=True, justify=justify)
    for curve, values in list(view.curves.items())[:room]:
        if values:
            named = (curve.member.serial, Text(curve.member.name, style="dim"), curve.field)
            style = "bold red" if curve.beyond(values[-1]) else "bold"
            line = curve.line(values, max(width - 54, 8))
            grid.add_row(*named, Text(curve.text(values[-1]), style=style), Text(line, style="cyan"))
    return grid


def number(count: int) -> str:
    """A count for people: thousands stand apart."""
    return f"{count:,}".replace(",", " ")


def _commit(seen: Snapshot) -> str:
    if seen.p50 is None or seen.p99 is None:
        return "none yet"
    return f"p50 {1000 * seen.p50:.1f} ms  p99 {1000 * seen.p99:.1f} ms"
