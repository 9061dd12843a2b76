"""What happens all the time is logged now and then, with how often it happened."""

from __future__ import annotations

import time
from collections import Counter


class Quiet:
    """Counts what must not be logged each time it happens."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next: dict[tuple[str, str], float] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def due(self, key: tuple[str, str], count: int) -> int:
        """How many there were since it was last logged; 0: not yet."""
        self._counts[key] += count
        now = time.monotonic()
        if now < self._next.get(key, 0):
            return 0
        self._next[key] = now + self._every
        return self._counts.pop(key)
