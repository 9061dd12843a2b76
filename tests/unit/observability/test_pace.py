"""How fast messages come, without a look at any of them."""

from __future__ import annotations

import time

import pytest

from gateway.observability import pace
from gateway.outcomes import Outcome, Tally


def test_rates_are_those_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Received, stored and dead-lettered a second; what came long ago counts no more."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    books, found = {"a": Tally(), "b": Tally()}, pace.Pace()
    assert found.rates(books) == {"received": 0, "stored": 0, "dead_lettered": 0}
    for _ in range(30):
        found.look(books)
        now[0] += 1
        for tally in books.values():
            tally.received += 5
            tally.settled[Outcome.STORED] += 4
            tally.settled[Outcome.DEAD_LETTERED] += 1
    assert found.rates(books) == {"received": 10, "stored": 8, "dead_lettered": 2}
    for _ in range(30):
        found.look(books)
        now[0] += 1
    assert found.rates(books) == {"received": 0, "stored": 0, "dead_lettered": 0}


def test_when_the_last_message_came() -> None:
    """None before the first; it stays while nothing comes."""
    books, found = {"a": Tally()}, pace.Pace()
    seen = []
    for received in (0, 1, 1):
        books["a"].received = received
        found.look(books)
        seen.append(found.last_message_at)
    assert seen[0] is None
    assert seen[1] == seen[2]
    assert abs(time.time() - (seen[1] or 0)) < 60
