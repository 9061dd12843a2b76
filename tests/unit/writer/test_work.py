"""A batch on its way into the database, and how far it got."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PoisonError
from gateway.outcomes import Outcome, Reason
from gateway.writer.work import BatchWrite
from tests.support.batching import NOW_US, Filling, a_device, published

REFUSED = PoisonError("timeseries: no (SQLSTATE 22000)", "22000")


def work_of(count: int) -> BatchWrite:
    """Work of so many messages."""
    filling, device = Filling(), a_device()
    for n in range(count):
        filling.timed(device, NOW_US + n, {"n": n})
    return BatchWrite(filling.batch)


def carry_out(work: BatchWrite, bad: set[int]) -> tuple[list[int], int]:
    """Write it into a database that refuses these; what was stored, in order, and how many tries that took."""
    stored: list[int] = []
    tries = 0
    while work.left:
        inside = work.next.indices
        tries += 1
        if bad.intersection(inside):
            work.isolate(REFUSED)
        else:
            stored += inside
            work.left.pop()
    return stored, tries


@given(
    st.integers(1, 300).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1))))
)
def test_isolation_finds_exactly_the_bad_ones(case: tuple[int, set[int]]) -> None:
    """Each message is stored once or refused once, in the order of coming, in at most 2 log2(n) + 2 tries a bad one."""
    count, bad = case
    work = work_of(count)
    stored, tries = carry_out(work, bad)
    assert stored == [n for n in range(count) if n not in bad]
    assert set(work.refused) == bad
    assert [n for n, outcome in enumerate(work.outcomes) if outcome is Outcome.DEAD_LETTERED] == sorted(bad)
    assert tries <= 1 + len(bad) * (2 * math.ceil(math.log2(count + 1)) + 2)


def test_letters_go_with_the_last_stretch() -> None:
    """All of the batch and all that were refused, once, and after everything before is done."""
    filling = Filling()
    for n in range(4):
        filling.timed(a_device(), NOW_US, {"n": n})
    filling.letter(published("t", b"{"))
    work = BatchWrite(filling.batch)
    assert [letter.reason for letter in work.letters()] == [Reason.MALFORMED]
    seen = []
    while work.left:
        seen.append(len(work.letters()))
        inside = work.next.indices
        if 1 in inside or 3 in inside:
            work.isolate(REFUSED)
        else:
            work.left.pop()
    assert seen[-1] == 3
    assert seen.count(3) == 1


def test_only_what_no_key_can_recognise_is_for_the_ledger() -> None:
    """Messages of the next stretch with a reading without a time or an own id, and the letters that go with it."""
    filling, device = Filling(), a_device()
    filling.timed(device, NOW_US, {})
    filling.untimed(device, NOW_US, {})
    filling.batch.ids[filling.timed(device, NOW_US, {})] = [(device.tenant_id, "m")]
    filling.untimed(device, NOW_US, {})
    filling.letter(published("t", b"{"))
    work = BatchWrite(filling.batch)
    batch = filling.batch
    entries = list(zip(batch.numbers, batch.messages, strict=True))
    assert work.known_again() == [*entries[1:], (batch.dead_letter_numbers[0], batch.dead_letters[0].message)]
    work.isolate(REFUSED)
    assert work.known_again() == [entries[1]]


def test_each_stretch_has_a_name_of_its_own() -> None:
    """Halves are other transactions than the whole."""
    work = work_of(8)
    names = {work.next.id}
    for _ in range(3):
        work.isolate(REFUSED)
        names |= {stretch.id for stretch in work.left}
    assert len(names) == 7


def test_a_refused_letter_is_held_for() -> None:
    """There is no other place for it: found among the others by halving, then it is no longer isolated but waits."""
    filling = Filling()
    for _ in range(3):
        filling.letter(published("t", b"{"))
    bad, written, work = filling.batch.dead_letters[1], 0, BatchWrite(filling.batch)
    while work.letters() != [bad]:
        if bad in work.letters():
            assert work.isolate(REFUSED)
        else:
            written += len(work.letters())
            work.done()
    assert not work.isolate(REFUSED)
    assert written == 1
    assert sum(len(stretch.letters) for stretch in work.left) == 2
