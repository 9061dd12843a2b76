"""What ``gateway dead-letter`` makes of its options, before any database is asked."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest

from gateway.outcomes import DEAD_LETTER_REASONS, IGNORED_REASONS
from tests.support.commands import Done, command

DOCUMENT = Path(__file__).parents[3] / "docs" / "dead-letters.md"
COMMANDS = ("list", "count", "replay")


def dead_letter(*arguments: str) -> Done:
    """The command, with a configuration that is not there: options are looked at first."""
    return command(Path("/nowhere/gateway.toml"), "dead-letter", *arguments)


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("unknwon_device", "unknown_device"),
        ("Unknown-Device", "unknown_device"),
        ("not utf8", "not_utf8"),
        ("timestamp_to_old", "timestamp_too_old"),
    ],
)
def test_a_typo_in_a_reason_is_an_error(verb: str, typed: str, meant: str) -> None:
    """It would find nothing, and look as if all were well: the near one is named, and all there are."""
    done = dead_letter(verb, "--reason", typed)
    assert done.returncode == 2
    assert f"there is no such reason; perhaps {meant} is meant" in done.stderr
    assert all(reason.value in done.stderr for reason in DEAD_LETTER_REASONS)


@pytest.mark.parametrize("reason", sorted(IGNORED_REASONS))
def test_what_is_ignored_is_no_dead_letter(reason: str) -> None:
    """Reasons of ignored messages select nothing there, so they are refused."""
    assert dead_letter("list", "--reason", reason).returncode == 2


@pytest.mark.parametrize("reason", DEAD_LETTER_REASONS)
def test_every_reason_is_taken(reason: str) -> None:
    """The next thing that is wrong is the configuration."""
    assert "cannot read /nowhere/gateway.toml" in dead_letter("list", "--reason", reason).stderr


def test_every_reason_is_documented() -> None:
    """In the order in which a message meets them; none that does not exist."""
    documented = re.findall(r"^\| `([a-z0-9_]+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert documented == [reason.value for reason in DEAD_LETTER_REASONS]


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize(
    "text", ["yesterday", "-", "99999999999d", "0001-01-01T00:00:00+14:00", "nan", "inf"]
)
def test_times_that_are_none(verb: str, option: str, text: str) -> None:
    """Neither an age nor a time, or beyond the calendar: named with its option."""
    done = dead_letter(verb, option, text)
    assert done.returncode == 2
    assert f"{option} {text}: write an age (2h, 30min, 7d) or a time" in done.stderr


def test_a_span_without_room() -> None:
    """Since after until finds nothing ever: an error."""
    done = dead_letter("list", "--since", "1h", "--until", "2h")
    assert done.returncode == 2
    assert "--since 1h is not before --until 2h" in done.stderr
    later = dt.datetime.now(dt.UTC).isoformat()
    assert "cannot read" in dead_letter("list", "--since", "2h", "--until", later).stderr


@pytest.mark.parametrize(
    "verb", [("list",), ("count",), ("replay",), ("show", "5b8f3a52-6c1e-4a52-9d53-0d6b8f6f0a11")]
)
def test_all_take_the_log_in_of_a_database(verb: tuple[str, ...]) -> None:
    """As every command does that asks one."""
    done = dead_letter(*verb, "--db-user", "gateway_owner", "--db-password-file", "/nowhere/password")
    assert (done.returncode, "cannot read /nowhere/gateway.toml" in done.stderr) == (4, True)
