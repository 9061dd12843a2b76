"""Medians and percentiles."""

from __future__ import annotations

import math

import pytest

from gateway.tools.bench.percentiles import median, percentile


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (0.999, 100), (1, 100), (0, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    """Nearest rank: so many are not greater, and none is invented between two."""
    assert percentile(list(range(100, 0, -1)), share) == value


def test_nothing_measured_is_no_figure() -> None:
    """No zero that would look like a result."""
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(median([]))
