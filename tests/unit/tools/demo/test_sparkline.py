"""Curves drawn with block characters."""

from __future__ import annotations

import pytest

from gateway.tools.demo.sparkline import sparkline


def test_runs_from_the_least_to_the_greatest() -> None:
    """The least value is the lowest block, the greatest the highest, one character a value."""
    assert sparkline(list(range(8)), 8) == "▁▂▃▄▅▆▇█"


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100, 101])
def test_is_never_wider_than_allowed(count: int) -> None:
    """Fewer values than characters are drawn as they are, more are averaged."""
    assert len(sparkline([float(n) for n in range(count)], 8)) == min(count, 8)


def test_averages_what_does_not_fit() -> None:
    """No value is left out when several share a character."""
    assert sparkline([0, 0, 0, 8, 8, 8], 2, low=0, high=8) == "▁█"
    assert sparkline([0, 8, 0, 8], 2, low=0, high=8) == "▅▅"


def test_a_flat_line_lies_low() -> None:
    """Equal values divide by no zero."""
    assert sparkline([5, 5, 5], 8) == "▁▁▁"


def test_values_beyond_the_scale_stay_on_it() -> None:
    """What is below or above a given scale is drawn at its ends."""
    assert sparkline([-3, 0.5, 9], 8, low=0, high=1) == "▁▅█"


def test_no_room_draws_nothing() -> None:
    """A terminal without room for a curve gets none."""
    assert sparkline([1, 2, 3], 0) == ""
