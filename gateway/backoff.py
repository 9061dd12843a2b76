"""Waits between attempts: doubling, with jitter, so that many clients of one lost server do not return at once."""

from __future__ import annotations

import random


class Backoff:
    """The waits of one thing that is tried again and again.

    Args:
        shortest: first wait, seconds.
        longest: bound of the wait, seconds.
    """

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest, self._longest = shortest, max(shortest, longest)
        self._ceiling = shortest

    def next(self) -> float:
        """Seconds until the next attempt: from half of the ceiling to all of it; the ceiling then doubles."""
        ceiling = self._ceiling
        self._ceiling = min(self._longest, ceiling * 2)
        return ceiling * random.uniform(0.5, 1)  # noqa: S311  no secret depends on it

    def reset(self) -> None:
        """It worked: the next wait is the shortest again."""
        self._ceiling = self._shortest
