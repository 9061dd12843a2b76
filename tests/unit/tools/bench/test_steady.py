"""When a rate counts as held."""

from __future__ import annotations

import math

import pytest

from gateway.tools.bench.scenarios.steady import Trial


@pytest.mark.parametrize(
    ("asked", "reached", "left", "held"),
    [
        (1000, 1000, 0.0, True),
        (1000, 985, 0.5, True),
        (1000, 970, 0.0, False),
        (1000, 1000, 0.7, False),
        (math.inf, 50_000, 0.0, False),
    ],
)
def test_a_rate_is_held_when_nothing_piles_up(asked: float, reached: float, left: float, held: bool) -> None:
    """The load kept the rate, and in 30 s no more piled up than is stored in a fiftieth of that."""
    trial = Trial(asked=asked, reached=reached, left=left, messages=1, cpu={}, seconds=30)
    assert trial.held is held
