"""Waits between attempts."""

from __future__ import annotations

from gateway.backoff import Backoff


def test_waits_double_up_to_the_longest_with_jitter() -> None:
    """Each wait lies between half of its ceiling and the whole."""
    backoff = Backoff(1, 5)
    for ceiling in (1, 2, 4, 5, 5):
        assert ceiling / 2 <= backoff.next() <= ceiling


def test_after_a_success_the_first_wait_is_short_again() -> None:
    """The next trouble is a new one."""
    backoff = Backoff(1, 64)
    for _ in range(9):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 1


def test_many_do_not_come_back_as_one() -> None:
    """Jitter: gateways that lost one broker together spread their attempts."""
    assert len({Backoff(1, 1).next() for _ in range(50)}) > 40
