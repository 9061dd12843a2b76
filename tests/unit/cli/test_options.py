"""Options that many commands share: one class of them, spread over the command line."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from gateway import cli
from gateway.cli import options
from tests.unit.cli.test_help import helps, text

ROOM = Path(cli.__file__).parent
COMMANDS = sorted([*ROOM.glob("*.py"), *(ROOM.parent / "tools").glob("*/command.py")])
LONGEST = 15


@dataclasses.dataclass(frozen=True)
class Size:
    """Two options, one of them required."""

    width: Annotated[int, typer.Option(min=1)]
    height: Annotated[int, typer.Option()] = 7


def invoked(*typed: str) -> tuple[int, list[object]]:
    """The exit code of a command that takes a group between two options, and what it was given."""
    app, given = typer.Typer(), []

    @app.command()
    @options.spread
    def command(first: str = "a", *, size: Size, last: Annotated[str, typer.Option()] = "z") -> None:
        given.extend([first, size, last])

    return CliRunner().invoke(app, list(typed)).exit_code, given


def test_a_group_is_given_whole() -> None:
    """From what was typed, and from the defaults of its fields."""
    assert invoked("--width", "3", "--last", "y") == (0, ["a", Size(3, 7), "y"])
    assert invoked("--width", "3", "--height", "4", "--first", "b") == (0, ["b", Size(3, 4), "z"])


@pytest.mark.parametrize("typed", [(), ("--width", "0"), ("--width", "3", "--size", "4")])
def test_a_group_is_checked_as_its_fields_are(typed: tuple[str, ...]) -> None:
    """One that is required, one out of range; the group itself has no option."""
    assert invoked(*typed) == (2, [])


def test_a_database_comes_with_its_log_in() -> None:
    """A command that takes one option of a log-in takes all, in one order, and where JSON is given, before them."""
    login = ["--config", "--db-user", "--db-password-file"]
    call = ["--config", "--json", "--db-user", "--db-password-file"]
    for name, known in helps().items():
        if "--db-user" in known:
            assert [one for one in known if one in call] == (call if "--json" in known else login), name


def test_log_ins_have_one_place() -> None:
    """No other module of commands declares what the classes have."""
    shared = re.compile(r'"--(json|config|db-user|db-password-file)",')
    assert [one.name for one in COMMANDS if shared.search(one.read_text())] == ["options.py"]


def test_examples_can_be_typed() -> None:
    """The options in them are those of the command."""
    known = helps()
    shown = [(call, *one) for call in known for one in examples(call)]
    assert len(shown) > 30
    for call, line, example in shown:
        assert max((other for other in known if example.startswith(f"gateway {other}")), key=len) == call, (
            line
        )
        typed = {word.partition("=")[0] for word in shlex.split(example) if word.startswith("--")}
        assert typed <= set(known[call]), line


def examples(call: str) -> list[tuple[str, str]]:
    """What help shows after ``Example``; with that without what else a shell is given."""
    found = re.findall(r"Examples?: (.*?)(?:\n\s*\n|\Z)", text(call), re.DOTALL)
    lines = [" ".join(one.split()) for shown in found for one in shown.split(" · ")]
    return [(line, re.sub(r"^.*?(?=gateway )| -- .*$| [>|] .*$", "", line)) for line in lines]


def test_functions_are_short() -> None:
    """What a command does stands in a few lines: what is more is another function's, or another room's."""
    assert [f"{name}: {length} lines" for name, length in lengths() if length > LONGEST] == []


def lengths() -> list[tuple[str, int]]:
    """Lines of every function in them, without signature and docstring."""
    return [
        (f"{path.name}: {function.name}", (function.end_lineno or 0) - body[0].lineno + 1)
        for path in COMMANDS
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and (body := function.body[ast.get_docstring(function) is not None :])
    ]
