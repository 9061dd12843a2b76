"""Readings that meet others of their key, on both engines: merge, keep, replace, and stepping aside."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.outcomes import MessageIdReused, OnConflict, Outcome
from gateway.writer import staged
from gateway.writer.copy import Writer
from gateway.writer.layouts.document import encoding
from gateway.writer.work import BatchWrite
from tests.integration.conftest import Writers
from tests.support.batching import NOW_US, Filling, StubRoute, a_device
from tests.support.databases import Databases
from tests.support.written import Table, letters_of, rows_of, written

STORED, DUPLICATE, DEAD = Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED
POLICIES: tuple[OnConflict, ...] = ("merge", "keep", "replace")

Reading = tuple[dict[str, Any], dict[str, Any] | None]
"""Data and metadata of readings of one key."""

# Two readings of one key: what is kept by policy, and whether the second brought anything new.
PAIRS: dict[str, tuple[Reading, Reading, dict[str, tuple[Reading, Outcome]]]] = {
    "the same": (
        ({"a": 1, "b": 2}, {"m": 1}),
        ({"a": 1, "b": 2}, {"m": 1}),
        {
            "merge": (({"a": 1, "b": 2}, {"m": 1}), DUPLICATE),
            "keep": (({"a": 1, "b": 2}, {"m": 1}), DUPLICATE),
            "replace": (({"a": 1, "b": 2}, {"m": 1}), DUPLICATE),
        },
    ),
    "other metrics": (
        ({"a": 1, "b": 1}, None),
        ({"b": 2, "c": 3}, None),
        {
            "merge": (({"a": 1, "b": 2, "c": 3}, None), STORED),
            "keep": (({"a": 1, "b": 1}, None), DUPLICATE),
            "replace": (({"b": 2, "c": 3}, None), STORED),
        },
    ),
    "fewer metrics": (
        ({"a": 1, "b": 1}, {"m": 1}),
        ({"b": 1}, None),
        {
            "merge": (({"a": 1, "b": 1}, {"m": 1}), DUPLICATE),
            "keep": (({"a": 1, "b": 1}, {"m": 1}), DUPLICATE),
            "replace": (({"b": 1}, None), STORED),
        },
    ),
    "other metadata": (
        ({"a": 1}, {"m": 1, "n": 1}),
        ({"a": 1}, {"n": 2}),
        {
            "merge": (({"a": 1}, {"m": 1, "n": 2}), STORED),
            "keep": (({"a": 1}, {"m": 1, "n": 1}), DUPLICATE),
            "replace": (({"a": 1}, {"n": 2}), STORED),
        },
    ),
    "metadata at last": (
        ({"a": 1}, None),
        ({"a": 1}, {"n": 2}),
        {
            "merge": (({"a": 1}, {"n": 2}), STORED),
            "keep": (({"a": 1}, None), DUPLICATE),
            "replace": (({"a": 1}, {"n": 2}), STORED),
        },
    ),
    "null and nested": (
        ({"a": 1, "n": {"x": 1, "y": 1}}, None),
        ({"a": None, "n": {"x": 2}}, None),
        {
            "merge": (({"a": None, "n": {"x": 2}}, None), STORED),
            "keep": (({"a": 1, "n": {"x": 1, "y": 1}}, None), DUPLICATE),
            "replace": (({"a": None, "n": {"x": 2}}, None), STORED),
        },
    ),
}


async def kept(table: Table, device: Any) -> list[tuple[int, Reading]]:
    """The device's rows: microseconds after ``NOW_US``, data and metadata."""
    return [
        (at, (json.loads(data), None if metadata is None else json.loads(metadata)))
        for at, data, metadata in await rows_of(table, device)
    ]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("apart", [True, False], ids=["in two batches", "in one batch"])
async def test_two_readings_of_one_key(
    writer: Writer, table: Table, policy: OnConflict, pair: str, apart: bool
) -> None:
    """The stream's policy decides what is kept, within a batch as between batches; nothing new is a duplicate."""
    first, second, by_policy = PAIRS[pair]
    device, filling = a_device(), Filling()
    for one in (first, second):
        if apart and one is second:
            assert (await written(writer, filling.batch)).outcomes == [STORED]
            filling = Filling()
        filling.timed(device, NOW_US, *one, on_conflict=policy)
    work = await written(writer, filling.batch)
    reading, outcome = by_policy[policy]
    assert await kept(table, device) == [(0, reading)]
    assert work.outcomes[-1] == outcome


@pytest.mark.parametrize("policy", POLICIES)
async def test_the_same_in_another_spelling_is_a_duplicate(
    writer: Writer, table: Table, policy: OnConflict
) -> None:
    """The database compares values, not bytes: another order of the keys, 2.0 for 2."""
    device, first, second = a_device(), Filling(), Filling()
    first.timed(device, NOW_US, {"a": 1, "b": 2}, on_conflict=policy)
    second.timed(device, NOW_US, {"b": 2.0, "a": 1.0}, on_conflict=policy)
    await written(writer, first.batch)
    assert (await written(writer, second.batch)).outcomes == [DUPLICATE]


async def test_streams_of_several_policies_in_one_batch(writer: Writer, table: Table) -> None:
    """Each message is treated as its own stream says."""
    devices = {policy: a_device() for policy in POLICIES}
    before, after = Filling(), Filling()
    for policy, device in devices.items():
        before.timed(device, NOW_US, {"a": 1}, on_conflict=policy)
        after.timed(device, NOW_US, {"b": 2}, on_conflict=policy)
    await written(writer, before.batch)
    assert (await written(writer, after.batch)).outcomes == [STORED, DUPLICATE, STORED]
    found = {policy: (await kept(table, device))[0][1][0] for policy, device in devices.items()}
    assert found == {"merge": {"a": 1, "b": 2}, "keep": {"a": 1}, "replace": {"b": 2}}


async def test_a_message_of_several_readings(writer: Writer, table: Table) -> None:
    """It is a duplicate when none of its readings brings anything new, stored when one of them does."""
    device, before, after = a_device(), Filling(), Filling()
    for n in range(3):
        before.timed(device, NOW_US + n, {"n": n})
    await written(writer, before.batch)
    again = b"".join(before.batch.rows)
    after.message(device, again, "nothing new")
    after.timed(device, NOW_US + 3, {"n": 3})
    after.message(device, again + after.batch.rows[1].replace(b'"n":3', b'"m":4'), "one new")
    work = await written(writer, after.batch)
    assert work.outcomes == [DUPLICATE, STORED, STORED]
    assert (await kept(table, device))[-1] == (3, ({"n": 3, "m": 4}, None))


VALUES = st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 2), min_size=1)
STEPS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), VALUES, st.none() | VALUES), min_size=1, max_size=6),
    min_size=1,
    max_size=3,
)


def one_by_one(
    policy: OnConflict, steps: list[list[tuple[int, dict[str, Any], dict[str, Any] | None]]]
) -> list[Any]:
    """What is kept when readings come one by one."""
    kept: dict[int, Reading] = {}
    for at, data, metadata in (reading for batch in steps for reading in batch):
        old = kept.get(at)
        if old is None or policy == "replace":
            kept[at] = data, metadata
        elif policy == "merge":
            united = {**(old[1] or {}), **(metadata or {})} or None
            kept[at] = {**old[0], **data}, united
    return sorted(kept.items())


@pytest.mark.parametrize("policy", POLICIES)
@given(steps=STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_batching_changes_nothing(
    writer: Writer, table: Table, policy: OnConflict, steps: list[list[tuple[int, Any, Any]]]
) -> None:
    """However readings fall into batches, the table holds what it would if they came one by one."""
    device = a_device()
    for batch in steps:
        filling = Filling()
        for at, data, metadata in batch:
            filling.timed(device, NOW_US + at, data, metadata, on_conflict=policy)
        await written(writer, filling.batch)
    assert await kept(table, device) == one_by_one(policy, steps)


# ---------------------------------------------------------------- readings that got a receive time


async def test_equal_receive_times_step_aside(writer: Writer, table: Table) -> None:
    """Two streams, one device, one microsecond: different readings, even when they say the same; both exist."""
    device, filling = a_device(), Filling()
    for data in ({"n": 1}, {"n": 1}, {"n": 2}):
        filling.untimed(device, NOW_US, data)
    work = await written(writer, filling.batch)
    assert work.outcomes == [STORED] * 3
    assert [(at, data) for at, (data, _) in await kept(table, device)] == [
        (0, {"n": 1}),
        (1, {"n": 1}),
        (2, {"n": 2}),
    ]


async def test_a_receive_time_that_is_taken_steps_aside(writer: Writer, table: Table) -> None:
    """By readings of an earlier batch, with or without a time of their own: all exist, unchanged."""
    device, before, after = a_device(), Filling(), Filling()
    before.timed(device, NOW_US, {"own": 0})
    before.untimed(device, NOW_US + 1, {"n": 1})
    before.timed(device, NOW_US + 2, {"own": 2})
    await written(writer, before.batch)
    for n in range(3):
        after.untimed(device, NOW_US + n, {"later": n})
    work = await written(writer, after.batch)
    assert work.outcomes == [STORED] * 3
    found = await kept(table, device)
    assert [reading for _, (reading, _) in found[:3]] == [{"own": 0}, {"n": 1}, {"own": 2}]
    assert [reading for _, (reading, _) in found[3:]] == [{"later": 0}, {"later": 1}, {"later": 2}]


async def test_equal_receive_times_of_two_processes(
    shared: Databases, make_writer: Writers, table: Table
) -> None:
    """Two workers meet one device in one microsecond, and it says the same: all readings exist."""
    device, outcomes = a_device(), []
    for _ in range(2):
        filling = Filling()
        for n in range(3):
            filling.untimed(device, NOW_US + n, {"door": "closed"})
        outcomes += (await written(make_writer(shared.timeseries_dsn), filling.batch)).outcomes
    assert outcomes == [STORED] * 6
    assert await kept(table, device) == [(n, ({"door": "closed"}, None)) for n in range(6)]


@pytest.mark.parametrize("own_first", [True, False])
async def test_a_receive_time_never_hides_behind_an_own_time(
    writer: Writer, table: Table, own_first: bool
) -> None:
    """One batch, one microsecond, one reading with a time of its own and one without: in any order, both exist."""
    device, filling = a_device(), Filling()
    for own in (own_first, not own_first):
        if own:
            filling.timed(device, NOW_US, {"n": "own"})
        else:
            filling.untimed(device, NOW_US, {"n": "received"})
    work = await written(writer, filling.batch)
    assert work.outcomes == [STORED, STORED]
    assert await kept(table, device) == [(0, ({"n": "own"}, None)), (1, ({"n": "received"}, None))]


async def test_stepping_aside_is_not_repeated(shared: Databases, make_writer: Writers, table: Table) -> None:
    """The same work again, as after a lost answer, finds itself where it stepped to: nothing is there twice.

    At QoS 0 there is no row of the ledger to tell it.
    """
    device, before, filling = a_device(), Filling(), Filling()
    for n in range(0, 40, 2):
        before.timed(device, NOW_US + n, {"own": n})
    for n in range(30):
        filling.untimed(device, NOW_US + n, {"n": n}, qos=0)
        filling.untimed(device, NOW_US + n, {"n": n}, qos=0)
    writer = make_writer(shared.timeseries_dsn)
    await written(writer, before.batch)
    await written(writer, filling.batch)
    found = await kept(table, device)
    assert len(found) == 20 + 60
    again = BatchWrite(filling.batch)
    again.next.uncertain = True
    await make_writer(shared.timeseries_dsn).write(again)
    assert await kept(table, device) == found
    assert again.outcomes == [DUPLICATE] * 60


@pytest.mark.parametrize("uncertain", [False, True], ids=["first try", "after a lost answer"])
async def test_a_window_that_is_taken_is_passed_in_one_step(
    writer: Writer, table: Table, monkeypatch: pytest.MonkeyPatch, uncertain: bool
) -> None:
    """Two thousand readings into a block of four thousand: they are staged twice, not once a microsecond."""
    device, before, after = a_device(), Filling(), Filling()
    stagings: list[Any] = []
    for n in range(4000):
        before.timed(device, NOW_US + n, {"own": n})
    await written(writer, before.batch)
    for n in range(2000):
        after.untimed(device, NOW_US + n, {"n": n})
    stage = staged._stage

    async def counted(connection: Any, staging: Any) -> None:
        stagings.append(staging)
        await stage(connection, staging)

    monkeypatch.setattr(staged, "_stage", counted)
    work = BatchWrite(after.batch)
    work.next.uncertain = uncertain
    await asyncio.wait_for(writer.write(work), 10)
    assert work.outcomes == [STORED] * 2000
    found = await kept(table, device)
    assert [(at, data["n"]) for at, (data, _) in found[4000:]] == [(4000 + n, n) for n in range(2000)]
    assert len(stagings) <= 2


# ---------------------------------------------------------------- rows that grow


async def test_a_row_does_not_grow_without_end(writer: Writer, table: Table) -> None:
    """What would make a row larger than it may be is a dead letter, in one batch as against the table; what is there
    stays, what repeats it is a duplicate, and a message is refused whole.
    """
    device, works = a_device(), []
    for n in (0, 1, 2, 0, 3):
        filling = Filling()
        filling.timed(device, NOW_US, {f"f{n}_{k}": k for k in range(5000)})
        works.append(await written(writer, filling.batch))
    assert [work.outcomes for work in works] == [[STORED], [STORED], [DEAD], [DUPLICATE], [DEAD]]
    ((_, (data, _)),) = await kept(table, device)
    assert len(data) == 10_000
    (letter,) = (await letters_of(table, works[2])).values()
    assert letter["reason"] == "row_too_large"
    assert "validation.max_row_bytes" in letter["detail"]
    together = Filling()
    for n in range(40):
        together.timed(device, NOW_US + 1, {f"f{n}_{k}": k for k in range(2000)})
    rest = b"".join(
        encoding.encode(
            NOW_US + after, device.columns, {"k": "y" * 250_000} if after == 1 else {"n": 1}, None, NOW_US
        )
        for after in (1, 2)
    )
    together.message(device, rest, "too large in one of its rows")
    work = await written(writer, together.batch)
    assert {STORED, DEAD} == set(work.outcomes)
    assert work.outcomes[0] is STORED
    assert work.outcomes[-1] is DEAD
    assert len(await letters_of(table, work)) == work.outcomes.count(DEAD)
    assert [at for at, _ in await kept(table, device)] == [0, 1]


async def test_a_large_row_is_not_read_to_refuse_a_small_reading(writer: Writer, table: Table) -> None:
    """A reading of a megabyte is stored; small ones of its key are refused, together; it itself is a duplicate."""
    device, large, after = a_device(), Filling(), Filling()
    text = "".join(str(uuid.uuid4()) for _ in range(30_000))
    for filling in (large, after):
        filling.timed(device, NOW_US, {"text": text})
    await written(writer, large.batch)
    small = Filling()
    for n in range(100):
        small.timed(device, NOW_US, {f"n{n}": n})
        small.timed(device, NOW_US + 1 + n, {"n": n})
    work = await written(writer, small.batch)
    assert work.outcomes == [DEAD, STORED] * 100
    assert (await written(writer, after.batch)).outcomes == [DUPLICATE]
    assert len(await kept(table, device)) == 101


async def test_a_row_that_is_replaced_may_be_large(writer: Writer, table: Table) -> None:
    """Nothing grows where nothing is merged."""
    for policy in ("replace", "keep"):
        device, filling = a_device(), Filling()
        for n in range(3):
            filling.timed(device, NOW_US, {f"k{n}": "x" * 300_000}, on_conflict=policy)
        assert DEAD not in (await written(writer, filling.batch)).outcomes


# ---------------------------------------------------------------- messages with ids of their own


async def test_a_message_id_is_stored_once(writer: Writer, table: Table) -> None:
    """A message with id and payload of another is a duplicate, in one batch and later, also without a time."""
    device, first, second = a_device(), Filling(), Filling()
    for filling in (first, second):
        for n in range(3):
            index = filling.untimed(device, NOW_US + n + (filling is second) * 100, {"n": max(n, 1)})
            filling.batch.ids[index] = [(device.tenant_id, "m-1" if n < 2 else f"m-{n}")]
    assert (await written(writer, first.batch)).outcomes == [STORED, DUPLICATE, STORED]
    assert (await written(writer, second.batch)).outcomes == [DUPLICATE] * 3
    assert [at for at, _ in await kept(table, device)] == [0, 2]


@pytest.mark.parametrize("policy", ["store", "dead_letter"])
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
async def test_a_message_id_that_starts_again(
    writer: Writer, table: Table, policy: MessageIdReused, together: bool
) -> None:
    """After a reboot the same id has other content: another message, or a dead letter; then again the same."""
    device, fillings = a_device(), [Filling(), Filling(), Filling()]
    if together:
        fillings[1] = fillings[0]
    for n, filling in enumerate((*fillings[:2], fillings[2])):
        content = {"n": min(n, 1)}
        index = filling.timed(device, NOW_US + min(n, 1), content)
        filling.batch.ids[index] = [(device.tenant_id, "esp_0")]
        filling.batch.routes[index] = StubRoute(message_id_reused=policy)
    works = [await written(writer, filling.batch) for filling in dict.fromkeys(fillings)]
    other, again = (STORED, DUPLICATE) if policy == "store" else (DEAD, DEAD)
    assert [outcome for work in works for outcome in work.outcomes] == [STORED, other, again]
    assert len(await kept(table, device)) == (2 if policy == "store" else 1)
    reasons = [row["reason"] for work in works for row in (await letters_of(table, work)).values()]
    assert reasons == ([] if policy == "store" else ["message_id_reused"] * 2)


async def test_a_message_id_counts_within_its_tenant(writer: Writer, table: Table) -> None:
    """Tenants do not hide each other's messages."""
    one, other, filling = a_device(), a_device(), Filling()
    for device in (one, other):
        filling.batch.ids[filling.timed(device, NOW_US, {"n": 1})] = [(device.tenant_id, "m-1")]
    assert (await written(writer, filling.batch)).outcomes == [STORED, STORED]


async def test_a_message_id_is_forgotten_with_its_horizon(writer: Writer, table: Table) -> None:
    """An id older than ``message_id_horizon`` may be used anew, also with the same content."""
    device, first, second = a_device(), Filling(), Filling()
    for n, filling in enumerate((first, second)):
        filling.batch.ids[filling.untimed(device, NOW_US + n, {"n": 0})] = [(device.tenant_id, "m-1")]
    await written(writer, first.batch)
    await table.execute(
        "UPDATE processed_messages SET processed_at = now() - interval '3601 s' WHERE tenant_id = $1",
        device.tenant_id,
    )
    assert (await written(writer, second.batch)).outcomes == [STORED]
