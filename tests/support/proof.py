"""Nothing lost, nothing twice: what is in the tables against what was published, to the message."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.support.daemon import Daemon
from tests.support.databases import Databases
from tests.support.plan import Plan
from tests.support.waiting import eventually


def prove(databases: Databases, plan: Plan, *, resent: int = 0) -> None:
    """The tables hold exactly the plan.

    Args:
        resent: how many messages the publisher sent again, because the broker went away before its acknowledgement
            came. Readings with timestamps meet themselves; so many dead letters may stand twice.
    """
    expected = plan.expected()
    rows = databases.timeseries("SELECT (data->>'seq')::int AS seq FROM telemetry")
    _compare("rows", Counter(expected.stored), Counter(row["seq"] for row in rows), extra=0)
    letters = databases.timeseries("SELECT payload, reason FROM dead_letters")
    _compare("dead letters", expected.dead_payloads, Counter(row["payload"] for row in letters), extra=resent)
    reasons = {row["payload"]: row["reason"] for row in letters}
    assert Counter(reasons.values()) == expected.dead


def _compare(what: str, expected: Counter[Any], found: Counter[Any], *, extra: int) -> None:
    lost, surplus = expected - found, found - expected
    assert not lost, f"{lost.total()} {what} lost, such as {list(lost)[:3]}"
    assert surplus.total() <= extra, f"{surplus.total()} {what} too many, such as {list(surplus)[:3]}"
    assert set(surplus) <= set(expected), (
        f"{what} that nobody published: {list(set(surplus) - set(expected))[:3]}"
    )


def settled(daemon: Daemon, databases: Databases, plan: Plan, *, timeout: float = 90) -> dict[str, int]:
    """Wait until the tables hold as much as the plan asks for and the daemon holds nothing; its books."""
    expected = plan.expected()

    def done() -> dict[str, int]:
        rows, letters = databases.count("telemetry"), databases.count("dead_letters")
        books = daemon.total()
        assert rows >= len(expected.stored), f"{rows} rows, {letters} dead letters, {books}"
        assert letters >= expected.dead.total(), f"{rows} rows, {letters} dead letters, {books}"
        assert not books["in_flight"], books
        return books

    what = f"{len(expected.stored)} rows and {expected.dead.total()} dead letters"
    return eventually(done, timeout=timeout, every=0.2, what=what)
