"""Rows staged one a key, and who contributed. Against a server: tests/integration/test_conflicts.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.outcomes import Outcome
from gateway.writer import rows
from gateway.writer.conflicts import Staging
from tests.support.batching import NOW_US, a_device

STORED, DUPLICATE = Outcome.STORED, Outcome.DUPLICATE
DEVICE = a_device()


def key(after: int) -> bytes:
    """The device's key so many microseconds after ``NOW_US``."""
    return rows.key_of(NOW_US + after, DEVICE.id.bytes)


def staged(on_conflict: str, *readings: tuple[int, dict[str, Any]]) -> Staging:
    """Readings, a message each."""
    staging = Staging(on_conflict)
    for index, (after, data) in enumerate(readings):
        staging.add(index, rows.encode(NOW_US + after, DEVICE.columns, data, None))
    return staging


def held(staging: Staging) -> dict[int, Any]:
    """What is staged, by microseconds after ``NOW_US``; every row knows its own key."""
    assert {row.key for row in staging.rows.values()} == set(staging.rows)
    return {row.time_us - NOW_US: json.loads(row.data) for row in staging.rows.values()}


@pytest.mark.parametrize(
    ("policy", "kept", "outcomes"),
    [
        ("merge", {"a": 2, "b": 1}, {0: STORED, 1: STORED, 2: DUPLICATE}),
        ("keep", {"a": 1, "b": 1}, {0: STORED, 1: DUPLICATE, 2: DUPLICATE}),
        ("replace", {"a": 2}, {0: STORED, 1: STORED, 2: DUPLICATE}),
    ],
)
def test_readings_of_one_key(policy: str, kept: dict[str, int], outcomes: dict[int, Outcome]) -> None:
    """One row is staged; a message counts as stored when it brought something new into a batch that did."""
    staging = staged(policy, (0, {"a": 1, "b": 1}), (0, {"a": 2}), (0, {"a": 2}))
    assert held(staging) == {0: kept}
    assert staging.outcomes({key(0)}) == outcomes
    assert staging.outcomes(set()) == dict.fromkeys(range(3), DUPLICATE)


def test_true_is_not_one() -> None:
    """Values that Python takes for equal are different readings."""
    assert held(staged("merge", (0, {"a": 1}), (0, {"a": True}))) == {0: {"a": True}}
    assert staged("merge", (0, {"a": 1}), (0, {"a": True})).outcomes({key(0)})[1] is STORED


def test_receive_times_that_are_equal_part() -> None:
    """Each reading gets a key of its own, as near as can be."""
    staging = staged("distinct", (0, {"n": 0}), (0, {"n": 0}), (1, {"n": 2}), (0, {"n": 3}))
    assert held(staging) == {0: {"n": 0}, 1: {"n": 0}, 2: {"n": 2}, 3: {"n": 3}}


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=12),
    st.sets(st.integers(0, 12)),
)
def test_stepping_aside_keeps_all_and_their_order(received: list[int], others: set[int]) -> None:
    """Whatever keys others hold: every reading ends at a free key at or after its own, in the order of coming."""
    staging = staged("distinct", *((at, {"n": n}) for n, at in enumerate(sorted(received))))
    while taken := {row.key for row in staging.rows.values()} & set(map(key, others)):
        staging.step_aside(taken)
    found = held(staging)
    assert sorted(data["n"] for data in found.values()) == list(range(len(received)))
    assert not set(found) & others
    for at, data in found.items():
        assert at >= sorted(received)[data["n"]]
    kept = {key(at) for at in found}
    assert staging.outcomes(kept) == dict.fromkeys(range(len(received)), STORED)


def test_those_that_move_together_stay_in_order() -> None:
    """A second gateway with the same clock: its readings move behind the first's, as they came."""
    staging = staged("distinct", *((n, {"n": n}) for n in range(50)))
    staging.step_aside({key(n) for n in range(50)})
    found = held(staging)
    assert [found[at]["n"] for at in sorted(found)] == list(range(50))
    assert min(found) >= 50
