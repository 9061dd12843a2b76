"""What a process remembers of what the broker may deliver again."""

from __future__ import annotations

import time

from gateway.messages import digest
from gateway.sessions.redeliveries import Redeliveries
from tests.unit.mqtt.test_redeliveries_model import Sent

COUNT = 30_000


def message(number: int) -> Sent:
    """No two are alike."""
    return Sent(1, 0, duplicate=False, payload=str(number).encode())


def test_what_was_entered_is_known_until_it_is_forgotten() -> None:
    """By number and bytes, also what is entered or forgotten after the first question."""
    redeliveries = Redeliveries()
    redeliveries.enter([0, 1], [digest(message(0)), digest(message(1))])
    assert redeliveries.knows(1, message(1))
    assert not redeliveries.knows(1, message(0))
    redeliveries.enter([2], [digest(message(2))])
    assert redeliveries.knows(2, message(2))
    redeliveries.forget(2)
    assert not redeliveries.knows(1, message(1))
    assert redeliveries.digests([0, 1, 2]) == [digest(message(2))]
    redeliveries.forget(3)
    assert not redeliveries.knows(2, message(2))


def test_a_backlog_that_comes_again_costs_each_message_once() -> None:
    """A broker that was restarted sent 24 000 again: each that was known cost a look at all, for a minute."""
    redeliveries = Redeliveries()
    messages = [message(number) for number in range(COUNT)]
    redeliveries.enter(range(COUNT), [digest(one) for one in messages])
    began = time.thread_time()
    for number, one in enumerate(messages):
        assert redeliveries.knows(number, one)
        redeliveries.enter([COUNT + number], [digest(one)])
        redeliveries.forget(number)
    assert time.thread_time() - began < 2
