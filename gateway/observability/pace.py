"""How fast messages come and end, and when the last one came; looked at once a second, never per message."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from gateway.outcomes import Outcome, Tally

SECONDS = 10
"""The span over which rates are taken."""


class Pace:
    """Compares the books of now with those of some seconds ago.

    Attributes:
        last_message_at: when the newest message was seen, at most a second late; seconds since the Unix epoch. None:
            none came so far.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[str, int]]] = deque(maxlen=SECONDS + 1)
        self._received = 0
        self.last_message_at: float | None = None

    def look(self, tallies: Mapping[str, Tally]) -> None:
        """To be called once a second."""
        self._looks.append((time.monotonic(), self._counted(tallies)))

    def rates(self, tallies: Mapping[str, Tally]) -> dict[str, float]:
        """Messages a second: received, stored, dead_lettered."""
        now, counts = time.monotonic(), self._counted(tallies)
        since, before = self._looks[0] if self._looks else (now, counts)
        seconds = max(now - since, 1.0)
        return {name: round((count - before[name]) / seconds, 1) for name, count in counts.items()}

    def _counted(self, tallies: Mapping[str, Tally]) -> dict[str, int]:
        received = sum(tally.received for tally in tallies.values())
        if received != self._received:
            self._received, self.last_message_at = received, time.time()
        ends = (Outcome.STORED, Outcome.DEAD_LETTERED)
        return {
            "received": received,
            **{end.value: sum(tally.settled[end] for tally in tallies.values()) for end in ends},
        }
