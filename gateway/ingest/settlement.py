"""The end of messages: into the books, then back to the source, which may acknowledge them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from gateway.ingest.in_flight import InFlight
from gateway.ingest.routes import TopicRoute
from gateway.messages import DeadLetter
from gateway.observability import events
from gateway.outcomes import Outcome, Reason
from gateway.writer.work import BatchWrite

_RESUME_AT = 0.75
"""Of the memory bound: reading goes on when less is held."""


class SourceControl(Protocol):
    """What the path does to its source; see :class:`gateway.mqtt.source.Source`."""

    def settle(self, numbers: list[int]) -> None:
        """These messages have come to their end."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""


class Settlement:
    """Settles messages, and stops the source while memory is full.

    Args:
        max_bytes: so much is held at most, but for what the source has read by then.

    Attributes:
        paused: the source was told to stop reading.
    """

    def __init__(self, source: SourceControl, held: InFlight, *, max_bytes: int) -> None:
        self._source, self._in_flight, self._max_bytes = source, held, max_bytes
        self._ended: list[int] = []
        self._ignored: Counter[tuple[str, Reason]] = Counter()
        self.paused = False

    def end(self, number: int, route: TopicRoute, outcome: Outcome) -> None:
        """A message has come to its end without a batch; it is settled with the next :meth:`flush`."""
        route.tally.settled[outcome] += 1
        self._ended.append(number)

    def ignore(self, number: int, route: TopicRoute, reason: Reason) -> None:
        """The same, as configuration says."""
        self._ignored[route.stream_name, reason] += 1
        self.end(number, route, Outcome.IGNORED)

    def flush(self) -> None:
        """Settle what ended at once, then see whether memory is full."""
        if self._ended:
            self._source.settle(self._ended)
            self._ended = []
            for (stream, reason), count in self._ignored.items():
                events.ignored(stream=stream, reason=reason, count=count)
            self._ignored.clear()
            self._in_flight.changed()
        self._bound_memory()

    def settle(self, work: BatchWrite) -> None:
        """Enter the outcomes of a batch into the books, and let the acknowledgements go."""
        batch = work.batch
        tallies = (route.tally for route in batch.routes)
        for (tally, outcome), count in Counter(zip(tallies, work.outcomes, strict=True)).items():
            tally.settled[outcome] += count
        for route, outcome in zip(batch.dead_letter_routes, work.dead_letter_outcomes, strict=True):
            route.tally.settled[outcome] += 1
        _report_letters(work.written_dead_letters())
        self._source.settle(batch.numbers + batch.dead_letter_numbers)
        self._bound_memory()
        self._in_flight.changed()

    def _bound_memory(self) -> None:
        """Back-pressure: stop reading the socket when memory is full, never drop."""
        bound, held = self._max_bytes, self._in_flight.size_bytes
        if not self.paused and held >= bound:
            self.paused = True
            events.reading_paused(held_bytes=held)
            self._source.pause()
        elif self.paused and held < bound * _RESUME_AT:
            self.paused = False
            events.reading_resumed(held_bytes=held)
            self._source.resume()


def _report_letters(letters: Sequence[DeadLetter]) -> None:
    groups: dict[tuple[str, Reason], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.stream, letter.reason), []).append(letter)
    for (stream, reason), group in groups.items():
        events.dead_lettered(stream=stream, reason=reason, count=len(group), example=group[0].detail)
