"""What needs no database is there at once: the modules that are imported for it are bounded."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.core import TyperGroup

from gateway import cli

SERVERS = {
    "asyncpg",
    "sqlalchemy",
    "alembic",
    "aiohttp",
    "mqtt5",
    "aiomqtt",
    "paho",
    "structlog",
    "prometheus_client",
}
HEAVY = SERVERS | {"pydantic_settings", "rich.console", "asyncio", "msgspec", "gateway.settings"}

_RUN = """
import os, sys
os.environ.update({environment!r})
sys.argv = {words!r}
from gateway.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n" + " ".join(sys.modules))
"""


def imported(*words: str, **environment: str) -> set[str]:
    """The modules that were imported when this ended."""
    script = _RUN.format(words=["gateway", *words], environment=environment)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_version() -> None:
    """Prints a number, and imports nothing to do so."""
    assert not imported("--version") & HEAVY


@pytest.mark.parametrize("typed", ["gateway ", "gateway de", *(f"gateway {name} " for name in cli._NOUNS)])
def test_completion(typed: str) -> None:
    """Each TAB starts a process: names come from what is declared."""
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert not imported(_GATEWAY_COMPLETE="complete_bash", **words) & HEAVY


@pytest.mark.parametrize("name", ["", *cli._TEXTS])
def test_help(name: str) -> None:
    """Needs nothing that draws, speaks to servers or reads settings."""
    assert not imported(*name.split(), "--help") & (SERVERS | {"gateway.settings", "rich.console"})


def test_help_says_what_commands_say() -> None:
    """The texts of the list of commands are those of the commands."""
    for name in cli._COMMANDS:
        loaded = cli.load(name)
        assert not isinstance(loaded, TyperGroup)
        assert (loaded.help or "").split("\n\n")[0].replace("\n", " ") == cli._TEXTS[name]


@pytest.mark.parametrize(
    ("shell", "sign"),
    [("zsh", "#compdef gateway"), ("bash", "complete -o"), ("fish", "complete --command")],
)
def test_completion_is_of_the_shell_that_was_named(shell: str, sign: str) -> None:
    """Not of the shell that happens to call."""
    command = [sys.executable, "-m", "gateway", "--show-completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert sign in done.stdout
