"""How a message can end, and the books."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.outcomes import IGNORED_REASONS, Outcome, Reason, Tally

DESIGN = {"stored", "duplicate", "spooled", "dead_lettered", "ignored"}


def test_there_is_no_outcome_that_means_lost() -> None:
    """Five ends and no other; their names are metric labels and must not change."""
    assert {outcome.value for outcome in Outcome} == DESIGN


def test_reasons_are_labels() -> None:
    """Short, lower-case, each once: they are metric labels and column values."""
    values = [reason.value for reason in Reason]
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{2,30}", value) for value in values)
    assert len(set(values)) == len(values)


def test_every_reason_is_used() -> None:
    """A reason that nothing gives would mislead whoever reads the list."""
    package = Path(__file__).parents[2] / "gateway"
    text = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py") if path.name != "outcomes.py")
    assert [reason.name for reason in Reason if f"Reason.{reason.name}" not in text] == []


def test_what_configuration_ignores_is_no_dead_letter() -> None:
    """Only reasons that an operator asked for are ignored."""
    assert {Reason.RETAINED, Reason.STREAM_IGNORED, Reason.DEVICE_IGNORED} == IGNORED_REASONS


def test_the_books() -> None:
    """Received is settled plus in flight; anything else shows as what is missing, or too much."""
    tally = Tally()
    assert tally.balance(0) == 0
    tally.received = 10
    assert tally.balance(10) == 0
    for outcome in Outcome:
        tally.settled[outcome] += 1
    assert tally.balance(5) == 0
    assert tally.balance(4) == 1
    assert tally.balance(6) == -1
