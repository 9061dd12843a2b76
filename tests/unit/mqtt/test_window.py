"""The window of unacknowledged messages."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.mqtt import window as window_module
from gateway.mqtt.window import NO_ID, Window


def test_acks_wait_for_the_oldest() -> None:
    """What is settled out of order leaves in the order in which it came."""
    window = Window()
    assert window.register([11, 12, 13]) == 0
    assert window.settle([2]) == []
    assert window.settle([1]) == []
    assert window.settle([0]) == [11, 12, 13]


def test_a_range_is_as_good_as_its_numbers() -> None:
    """The fast way for contiguous numbers ends like the slow one, overlaps included."""
    window = Window()
    window.register(range(1, 101))
    assert window.settle(range(10, 30)) == []
    assert window.settle(range(20)) == list(range(1, 31))
    assert window.settle(range(100)) == list(range(31, 101))
    assert window.settle(range(100)) == []


def test_qos_0_needs_no_ack() -> None:
    """A QoS 0 message takes a number, holds back nobody once settled, and is never acknowledged."""
    window = Window()
    window.register([5, 0, 6])
    assert window.settle([0]) == [5]
    assert window.settle([2]) == []
    assert window.settle([1]) == [6]
    assert window.unacknowledged == 0


def test_numbers_of_an_earlier_connection_are_forgotten() -> None:
    """After a reconnect the same packet ids come again; late settles must not acknowledge them."""
    window = Window()
    window.register([1, 2])
    window.restart()
    assert window.register([1, 2]) == 2
    assert window.settle(range(2)) == []
    assert window.settle([0, 1]) == []
    assert window.settle([2, 3]) == [1, 2]


def test_what_was_sent_again_has_no_ack_of_its_own() -> None:
    """The ack of the first leaves in its place when both are settled: the second may be another message."""
    window = Window()
    window.register([1, 2, 3])
    window.register([NO_ID, 4], resent={3: 1})
    assert window.settle([0, 1, 2, 4]) == [1]
    assert window.settle([3]) == [2, 3, 4]


def test_the_first_may_be_settled_last() -> None:
    """The ack waits for whichever of the two is later; a third copy counts too."""
    window = Window()
    window.register([1, 2])
    window.register([NO_ID, NO_ID], resent={2: 1, 3: 1})
    assert window.settle([3]) == []
    assert window.settle([0, 1]) == [1]
    assert window.settle([2]) == [2]
    assert window.unacknowledged == 0


@pytest.mark.parametrize("numbers", [[3], range(3, 4), range(2, 5)])
def test_a_number_never_given_is_an_error(numbers: list[int] | range) -> None:
    """It could only be a mistake of the gateway's own books."""
    window = Window()
    window.register([1, 2, 3])
    with pytest.raises(IndexError):
        window.settle(numbers)


class Model(RuleBasedStateMachine):
    """Any sequence of arrivals, settles and reconnects, against the plainest possible bookkeeping."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window()
        self.next_number = 0
        self.waiting: list[tuple[int, int, bool]] = []

    @rule(packet_ids=st.lists(st.integers(0, 65_535), min_size=1, max_size=9))
    def arrive(self, packet_ids: list[int]) -> None:
        """Messages come."""
        assert self.next_number == self.window.register(packet_ids)
        for packet_id in packet_ids:
            self.waiting.append((self.next_number, packet_id, False))
            self.next_number += 1

    @rule(data=st.data())
    def settle_some(self, data: st.DataObject) -> None:
        """Some are settled, in any order, perhaps again."""
        if self.next_number:
            self._settle(data.draw(st.lists(st.integers(0, self.next_number - 1), max_size=12)))

    @rule(data=st.data())
    def settle_range(self, data: st.DataObject) -> None:
        """A stretch is settled."""
        stop = data.draw(st.integers(0, self.next_number))
        self._settle(range(data.draw(st.integers(0, stop)), stop))

    @rule()
    def reconnect(self) -> None:
        """The connection is lost."""
        self.window.restart()
        self.waiting.clear()

    @invariant()
    def counts(self) -> None:
        """What is not acknowledged is counted."""
        assert len(self.waiting) == self.window.unacknowledged

    def _settle(self, numbers: list[int] | range) -> None:
        self.waiting = [(number, at, done or number in numbers) for number, at, done in self.waiting]
        leaving = []
        while self.waiting and self.waiting[0][2]:
            leaving.append(self.waiting.pop(0)[1])
        assert [packet_id for packet_id in leaving if packet_id] == self.window.settle(numbers)


class CompactingModel(Model):
    """The same with compaction at nearly every step."""

    def __init__(self) -> None:
        super().__init__()
        self._before, window_module._COMPACT_AT = window_module._COMPACT_AT, 3

    def teardown(self) -> None:
        """As it was."""
        window_module._COMPACT_AT = self._before


TestModel = Model.TestCase
TestCompactingModel = CompactingModel.TestCase
TestModel.settings = TestCompactingModel.settings = settings(max_examples=100, stateful_step_count=40)
