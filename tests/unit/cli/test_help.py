"""What ``--help`` shows: all of it, on the narrowest terminal."""

from __future__ import annotations

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

from gateway import cli


def helps() -> dict[str, list[str]]:
    """Every call that can have ``--help``, with the option names that it has to show."""
    found: dict[str, list[str]] = {"": ["--version"]}
    for name in cli._TEXTS:
        found.update(_helps_of(name, cli.load(name)))
    return found


def _helps_of(call: str, loaded: object) -> dict[str, list[str]]:
    if isinstance(loaded, TyperGroup):
        inner = [_helps_of(f"{call} {verb}", leaf) for verb, leaf in loaded.commands.items()]
        return {call: [], **{name: options for one in inner for name, options in one.items()}}
    assert isinstance(loaded, TyperCommand)
    return {call: [option for one in loaded.params for option in one.opts if "--" in option]}


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(("call", "options"), helps().items())
def test_no_name_and_no_sentence_is_cut(call: str, options: list[str], width: int) -> None:
    """An option whose name ends in an ellipsis cannot be typed."""
    shown = CliRunner().invoke(
        cli.app, [*call.split(), "--help"], env={"COLUMNS": str(width)}, prog_name="gateway"
    )
    assert shown.exit_code == 0
    cut = [line for line in shown.stdout.splitlines() if line.endswith(("…", "...")) and "Usage:" not in line]
    assert cut == [] or width < 80
    assert [option for option in options if option not in shown.stdout.split()] == []


def test_every_command_has_an_example() -> None:
    """That can be typed."""
    called = [call for call in helps() if not any(other.startswith(f"{call} ") for other in helps())]
    without = [call for call in called if call and "Example" not in text(call)]
    assert without == []


def text(call: str) -> str:
    """The help of a command."""
    return CliRunner().invoke(cli.app, [*call.split(), "--help"]).stdout
