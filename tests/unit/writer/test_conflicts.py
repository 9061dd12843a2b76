"""Rows staged one a key, and who contributed. Against a server: tests/integration/test_conflicts.py."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from gateway.outcomes import Outcome
from gateway.writer import rows
from gateway.writer.conflicts import Policy, Staging
from gateway.writer.layouts import TELEMETRY
from gateway.writer.layouts.document import encoding, united
from tests.support.batching import NOW_US, a_device

STORED, DUPLICATE = Outcome.STORED, Outcome.DUPLICATE
DEVICE = a_device()


def key(after: int) -> bytes:
    """The device's key so many microseconds after ``NOW_US``."""
    return rows.key_of(NOW_US + after, DEVICE.id.bytes)


def staged(on_conflict: Policy, *readings: tuple[int, dict[str, Any]]) -> Staging:
    """Readings, a message each."""
    staging = Staging(TELEMETRY, on_conflict, most_bytes=2**20)
    for index, (after, data) in enumerate(readings):
        staging.add(index, encoding.encode(NOW_US + after, DEVICE.columns, data, None))
    return staging


def held(staging: Staging) -> dict[int, Any]:
    """What is staged, by microseconds after ``NOW_US``; every row knows its own key."""
    assert {row.key for row in staging.rows.values()} == set(staging.rows)
    documents = cast("dict[bytes, encoding.DocumentRow]", staging.rows)
    return {row.time_us - NOW_US: json.loads(row.data) for row in documents.values()}


@pytest.mark.parametrize(
    ("policy", "kept", "outcomes"),
    [
        ("merge", {"a": 2, "b": 1}, {0: STORED, 1: STORED, 2: DUPLICATE}),
        ("keep", {"a": 1, "b": 1}, {0: STORED, 1: DUPLICATE, 2: DUPLICATE}),
        ("replace", {"a": 2}, {0: STORED, 1: STORED, 2: DUPLICATE}),
    ],
)
def test_readings_of_one_key(policy: Policy, kept: dict[str, int], outcomes: dict[int, Outcome]) -> None:
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


@pytest.mark.parametrize("policy", ["merge", "keep", "replace"])
def test_readings_that_meet_cost_what_each_of_them_costs(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times the readings of one key are decoded and encoded in ten times the bytes, not in a hundred times."""

    def costs(count: int) -> int:
        spent: list[int] = []
        decode, encode = united._fields, rows.to_json

        def decoded(text: bytes) -> united.Fields:
            spent.append(len(text))
            return decode(text)

        def encoded(value: Any) -> bytes:
            spent.append(len(encode(value)))
            return encode(value)

        readings = [encoding.encode(NOW_US, DEVICE.columns, {f"f{n:05}": n}, None) for n in range(count)]
        monkeypatch.setattr(united, "_fields", decoded)
        monkeypatch.setattr(rows, "to_json", encoded)
        staging = Staging(TELEMETRY, policy, most_bytes=2**20)
        for index, blob in enumerate((b"".join(readings), *readings)):
            staging.add(index, blob)
        assert len(staging.rows) == 1
        monkeypatch.undo()
        return sum(spent)

    assert costs(1000) <= 11 * costs(100)


def test_a_row_that_merging_makes_too_large() -> None:
    """The message that would make it so is left out whole; what repeats or replaces or is large alone is not."""
    large, small = {"a": "x" * 60}, {"b": "y" * 60}
    staging = Staging(TELEMETRY, "merge", most_bytes=100)
    first, other = (encoding.encode(NOW_US, DEVICE.columns, data, None) for data in (large, small))
    beside = encoding.encode(NOW_US + 1, DEVICE.columns, {"c": 1}, None)
    alone = encoding.encode(NOW_US + 2, DEVICE.columns, {"a": "z" * 200}, None)
    for index, blob in enumerate((first, beside + other, first, first + other, alone, alone)):
        staging.add(index, blob)
    assert staging.too_large.keys() == {1, 3}
    assert held(staging) == {0: large, 2: {"a": "z" * 200}}
    assert staging.outcomes(set(staging.keys)) == dict.fromkeys((0, 4), STORED) | dict.fromkeys(
        (2, 5), DUPLICATE
    )
    replacing = Staging(TELEMETRY, "replace", most_bytes=100)
    for index, blob in enumerate((first, alone, first + alone)):
        replacing.add(index, blob)
    assert not replacing.too_large


def test_receive_times_that_are_equal_cost_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand readings of one microsecond: each is moved once, however many are there before it."""
    moves: list[int] = []
    at = encoding.DocumentRow.at

    def moved(row: encoding.DocumentRow, time_us: int) -> encoding.DocumentRow:
        moves.append(time_us)
        return at(row, time_us)

    monkeypatch.setattr(encoding.DocumentRow, "at", moved)
    staging = staged("distinct", *((0, {"n": n}) for n in range(2000)))
    assert held(staging) == {n: {"n": n} for n in range(2000)}
    assert len(moves) <= 2000
