"""Where readings go whose receive time is taken. Against a server: tests/integration/test_conflicts.py."""

from __future__ import annotations

from collections import defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from gateway.writer import rows
from gateway.writer.slots import Seeker, Slots

DEVICE = bytes(16)


def slots(others: dict[int, int], used: set[int], since: int, count: int) -> Slots:
    """What the database says of the first gaps from there on, where these hold readings of these contents."""
    gaps: list[tuple[int, int | None]] = []
    for end in sorted(at for at in others if at >= since):
        first = max((at + 1 for at in others if since <= at < end), default=since)
        if first < end:
            gaps.append((first, end))
    gaps.append((max((at + 1 for at in others if at >= since), default=since), None))
    until = None if len(gaps) <= count else gaps[count - 1][1]
    alike: defaultdict[int, deque[int]] = defaultdict(deque)
    for at in sorted(others):
        if at >= since and (until is None or at < until):
            alike[others[at]].append(at)
    known = gaps if until is None else gaps[:count]
    return Slots(known, alike, until, DEVICE, {rows.key_of(at, DEVICE) for at in used})


def places(others: dict[int, int], used: set[int], seekers: list[Seeker]) -> list[tuple[int, bool]]:
    """Where they come to, in the order of their times, asking on and on."""
    found: dict[bytes, tuple[int, bool]] = {}
    left = seekers
    while left:
        taken = used | {place for place, _ in found.values()}
        asked, waiting = slots(others, taken, left[0].since, len(left)), []
        for seeker in left:
            place, is_free = asked.take(seeker)
            if place is None:
                assert asked.until is not None
                seeker.since = max(seeker.since, asked.until)
                waiting.append(seeker)
            else:
                found[seeker.key] = place, is_free
        left = waiting
    return [found[seeker.key] for seeker in seekers]


OTHERS = st.dictionaries(st.integers(0, 20), st.integers(0, 2))


@given(OTHERS, st.sets(st.integers(0, 20)), st.lists(st.integers(0, 15), min_size=1, max_size=12))
def test_each_takes_the_first_place_for_it(
    others: dict[int, int], used: set[int], received: list[int]
) -> None:
    """Whatever others hold: free places, each reading its own, none passed over, in the order of coming."""
    seekers = [Seeker(n.to_bytes(2), since, None) for n, since in enumerate(sorted(received))]
    found = [at for at, is_free in places(others, used, seekers) if is_free]
    assert len(set(found)) == len(found) == len(received)
    assert not set(found) & (others.keys() | used)
    for since, at in zip(sorted(received), found, strict=True):
        assert set(range(since, at)) <= others.keys() | used | set(found)
    assert found == sorted(found)


@given(OTHERS, st.sets(st.integers(0, 20)), st.lists(st.integers(0, 15), min_size=1, max_size=12))
def test_the_same_readings_find_themselves_again(
    others: dict[int, int], used: set[int], received: list[int]
) -> None:
    """After a lost answer, when what was written is there: none of them comes to a place that is free."""
    contents = [100 + n for n in range(len(received))]
    starts = list(zip(sorted(received), contents, strict=True))
    first = places(others, used, [Seeker(n.to_bytes(2), *one) for n, one in enumerate(starts)])
    there = others | {at: content for (at, _), content in zip(first, contents, strict=True)}
    again = places(there, used, [Seeker(n.to_bytes(2), *one) for n, one in enumerate(starts)])
    assert again == [(at, False) for at, _ in first]


def test_a_block_is_passed_in_one_step() -> None:
    """A thousand readings behind a million others: no microsecond of the block is looked at."""
    asked = Slots([(1_000_000, None)], {}, None, DEVICE, set())
    found = [asked.take(Seeker(n.to_bytes(2), n, None)) for n in range(1000)]
    assert found == [(1_000_000 + n, True) for n in range(1000)]
