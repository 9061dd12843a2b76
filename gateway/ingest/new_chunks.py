"""How many chunks the readings of one tenant may make within an hour.

A hypertable makes a chunk for the first reading of its time, which takes milliseconds in which its transaction does
nothing else, and acknowledgements leave in order: readings of ten years, one a day, delayed all others by 26 s. What
would make more becomes a dead letter; a replay of it, which is the operator's decision, is not counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from gateway import clock
from gateway.errors import MessageError
from gateway.outcomes import Reason

FRESH_US = 7 * 86_400 * clock.MICROS
"""A reading no further from its receive time is not looked at: so few chunks delay nobody for long."""
_HOUR_SECONDS = 3600.0


class NewChunks:
    """Which chunks there are, as far as is known, and how many each tenant had made in this hour.

    There is no limit where readings make no chunks (plain PostgreSQL), nor until :meth:`learn` was called.
    """

    def __init__(self, per_hour: int) -> None:
        self._per_hour = per_hour
        self._interval_us = 0
        self._known: set[int] = set()
        self._made: Counter[str | None] = Counter()
        self._hour_ends = 0.0

    def learn(self, interval_us: int, ranges: Iterable[tuple[int, int]]) -> None:
        """These chunks are there now, from a time to before another, µs; how long new ones are; 0: none are made."""
        self._interval_us = interval_us
        self._known = {
            slot
            for start, end in (ranges if interval_us else ())
            for slot in range(start // interval_us, (end - 1) // interval_us + 1)
        }

    def admit(self, times_us: Iterable[int], tenant: str | None) -> None:
        """Let a message of this tenant have the chunks that its readings of these times need.

        Raises:
            MessageError: they are more than the tenant has left in this hour; none is counted.
        """
        if not self._interval_us:
            return
        new = {time_us // self._interval_us for time_us in times_us} - self._known
        if not new:
            return
        if (now := time.monotonic()) >= self._hour_ends:
            self._made.clear()
            self._hour_ends = now + _HOUR_SECONDS
        if self._made[tenant] + len(new) > self._per_hour:
            raise MessageError(
                Reason.CHUNK_LIMIT,
                f"{len(new)} chunks would be made for it, and its tenant has had {self._made[tenant]} of "
                f"{self._per_hour} within the hour (validation.new_chunks_per_hour): replay it",
            )
        self._made[tenant] += len(new)
        self._known |= new
