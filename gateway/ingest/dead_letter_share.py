"""Notices that messages become dead letters by the share, not one by one: a decoder, a clock, a type that is wrong."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from gateway.observability import events
from gateway.observability.health import Component
from gateway.outcomes import Outcome, Tally

_EVERY_SECONDS = 1.0
_WINDOW_SECONDS = 60.0
_RECEDED = 0.8
"""Of the limit: what goes to and fro about it is told once."""
_JUDGED = (Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED)
"""Ends that say whether messages are good: what is spooled comes to its end later, what is ignored was never judged."""

Counts = tuple[int, int]
"""Messages that came to one of these ends, and of those the dead letters."""


class DeadLetterShare:
    """Of a stream's messages of the last minute, more than ``limit`` became dead letters: warned of, and a detail.

    The component stays ready: messages flow, and what is wrong is mended at the devices or in the registry. A minute
    without messages changes nothing: a fleet that reports every quarter of an hour is not well between two reports.

    Args:
        tallies: the books of every path, by stream: the live one's, and the spool's drain's.
        limit: a share; 1 is never exceeded.
    """

    def __init__(self, tallies: Sequence[Mapping[str, Tally]], component: Component, *, limit: float) -> None:
        self._tallies, self._component, self._limit = tallies, component, limit
        self._seen: dict[str, deque[tuple[float, Counts]]] = {}
        self._told: dict[str, str] = {}

    async def watch(self) -> None:
        """Task: look once a second."""
        while True:
            self.look(time.monotonic())
            await asyncio.sleep(_EVERY_SECONDS)

    def look(self, now: float) -> None:
        """Judge each stream by what ended in the minute before ``now``, in seconds."""
        for stream in {name: None for tallies in self._tallies for name in tallies}:
            ended, letters, whole = self._within(stream, now)
            if whole and ended:
                self._judge(stream, ended, letters)
        self._component.ready("; ".join(self._told.values()))

    def _within(self, stream: str, now: float) -> tuple[int, int, bool]:
        """What ended within the window, and whether it was watched for so long."""
        counts = _counts(tallies[stream] for tallies in self._tallies if stream in tallies)
        seen = self._seen.setdefault(stream, deque())
        seen.append((now, counts))
        while len(seen) > 1 and now - seen[1][0] >= _WINDOW_SECONDS:
            seen.popleft()
        since, (ended, letters) = seen[0]
        return counts[0] - ended, counts[1] - letters, now - since >= _WINDOW_SECONDS

    def _judge(self, stream: str, ended: int, letters: int) -> None:
        share, told = letters / ended, stream in self._told
        if share > self._limit * (_RECEDED if told else 1):
            self._told[stream] = (
                f"stream {stream}: {letters} of the last minute's {ended} messages became dead letters: "
                "`gateway dead-letter list` shows why (watchdog.dead_letter_share)"
            )
            if not told:
                events.dead_letters_prevail(stream=stream, dead_letters=letters, messages=ended)
        elif told:
            del self._told[stream]
            events.dead_letters_receded(stream=stream, dead_letters=letters, messages=ended)


def _counts(tallies: Iterable[Tally]) -> Counts:
    settled = [tally.settled for tally in tallies]
    ended = sum(one[outcome] for one in settled for outcome in _JUDGED)
    return ended, sum(one[Outcome.DEAD_LETTERED] for one in settled)
