"""Curves drawn with block characters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(
    values: Sequence[float], width: int, *, low: float | None = None, high: float | None = None
) -> str:
    """Values as a line of at most ``width`` characters, the oldest first; more are averaged into so many.

    ``low`` and ``high`` are what the lowest and the highest block stand for; default: the least and the most.
    """
    points = _resample(values, width)
    if not points:
        return ""
    floor = min(points) if low is None else low
    span = (max(points) if high is None else high) - floor
    if span <= 0:
        return _BLOCKS[0] * len(points)
    steps = (int((point - floor) / span * len(_BLOCKS)) for point in points)
    return "".join(_BLOCKS[min(max(step, 0), len(_BLOCKS) - 1)] for step in steps)


def _resample(values: Sequence[float], width: int) -> list[float]:
    count = min(len(values), width)
    edges = [len(values) * n // count for n in range(count + 1)] if count else []
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
