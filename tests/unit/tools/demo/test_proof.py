"""What the demo proves at its end."""

from __future__ import annotations

import collections
import dataclasses

import pytest

from gateway.tools.demo.fleet import Intent
from gateway.tools.demo.proof import Proof
from gateway.tools.demo.tables import Counts

BOOKS = {
    "received": 104,
    "stored": 100,
    "duplicate": 0,
    "spooled": 0,
    "dead_lettered": 4,
    "ignored": 0,
    "in_flight": 0,
    "balance": 0,
}
DEAD = {"unknown_device": 1, "malformed": 1, "out_of_range": 1, "timestamp_in_future": 1}
SOUND = Proof(
    published={intent: 100 if intent is Intent.READING else 1 for intent in Intent},
    books=BOOKS,
    added=Counts(100, collections.Counter(DEAD)),
    exit_code=0,
)


def test_holds_when_all_three_agree() -> None:
    """Fleet, gateway and database counted the same."""
    assert SOUND.held
    assert list(SOUND.lines())[-1] == "It held: nothing lost, nothing twice."


def test_a_redelivery_is_no_loss() -> None:
    """What came twice and was stored once is received twice, and the books say so."""
    again = {**BOOKS, "received": 105, "duplicate": 1}
    assert dataclasses.replace(SOUND, books=again).held


@pytest.mark.parametrize(
    "wrong",
    [
        {"added": Counts(99, collections.Counter(DEAD))},
        {"added": Counts(101, collections.Counter(DEAD))},
        {"added": Counts(100, collections.Counter({**DEAD, "malformed": 0, "out_of_range": 2}))},
        {"added": Counts(100, collections.Counter({**DEAD, "malformed": 0}))},
        {"books": {**BOOKS, "received": 103}},
        {"books": {**BOOKS, "balance": 1}},
        {"books": {**BOOKS, "in_flight": 1}},
        {"exit_code": 5},
        {"exit_code": None},
        {"published": {**SOUND.published, Intent.READING: 101}},
    ],
    ids=["a row less", "a row more", "another reason", "a dead letter less", "not received", "unbalanced",
         "unsettled", "stopped unsettled", "killed", "not arrived"],
)  # fmt: skip
def test_does_not_hold_when_anything_differs(wrong: dict[str, object]) -> None:
    """A row too few or too many, a wrong reason, a message under way, a gateway that did not end clean."""
    proof = dataclasses.replace(SOUND, **wrong)  # type: ignore[arg-type]
    assert not proof.held
    assert list(proof.lines())[-1] == "IT DID NOT HOLD."
