"""Messages that fail again and again although the server works, set apart out of the way of all others.

They are tried again slowly, for as long as it takes when nothing else is stored either: then it is the database that
must be mended, whatever it calls that. What fails alone while others are stored becomes a dead letter after a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.backoff import Backoff
from gateway.ingest.in_flight import InFlight
from gateway.observability import events, health
from gateway.storage.retry import Retrying
from gateway.writer.experience import Experience
from gateway.writer.work import BatchWrite

_SHORTEST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
_TRIES = 3
"""So often a message fails alone, beside others that are stored, before it is given up."""


class HeldBack:
    """The works set apart, and when each is due again.

    Args:
        limit: seconds after which what fails alone becomes a dead letter.
        most_bytes: when more is held back, it is not waited for that long.
        stores: is told while nothing proves that the database works.
        component: says how many are held back.
        wake: called when a work is due.
    """

    def __init__(
        self,
        held: InFlight,
        experience: Experience,
        *,
        limit: float,
        most_bytes: int,
        stores: Retrying,
        component: health.Component,
        wake: Callable[[], None],
    ) -> None:
        self._in_flight, self._experience = held, experience
        self._limit, self._most_bytes = limit, most_bytes
        self._stores, self._component, self._wake = stores, component, wake
        self._due: list[BatchWrite] = []
        component.ready()

    def add(self, work: BatchWrite) -> None:
        """Set this apart, or apart again; it is due after a while.

        Raises:
            StoreError: its last; it is a command that waits, which does so no longer.
        """
        now, rows = time.monotonic(), self._experience.rows
        if work.history is None:
            events.held_back(count=len(work.batch), where="memory", error=str(work.error))
        history = work.begin_history(now, rows)
        history.failed(rows)
        self._in_flight.back.append(work)
        self._tell(work)
        wait = _backoff(history.tries)
        if history.beside >= _TRIES and (now - history.since >= self._limit or self._too_many()):
            work.give_up(_TRIES)
            wait = 0.0 if work.refused else wait
        if wait and work.error is not None:
            self._stores.give_up(work.error, now - history.since + wait)
        asyncio.get_running_loop().call_later(wait, self._ready, work)

    def _ready(self, work: BatchWrite) -> None:
        self._due.append(work)
        self._wake()

    def due(self) -> BatchWrite | None:
        """A work to try again now; it is no longer held here."""
        if not self._due:
            return None
        work = self._due.pop(0)
        self._in_flight.back.remove(work)
        self._stores.report_recovery(work.history)
        return work

    @property
    def any_due(self) -> bool:
        """Whether one should be tried again."""
        return bool(self._due)

    def ended(self, work: BatchWrite) -> None:
        """A work that was tried again has come to its end."""
        if work.history is not None:
            self._say()

    def _tell(self, work: BatchWrite) -> None:
        history = work.history
        if history is not None and not history.beside and work.error is not None:
            self._stores.report_failure(history, work.error)
        self._say()

    def _say(self) -> None:
        count = sum(len(work.batch) for work in self._in_flight.back)
        example = next((str(work.error) for work in self._in_flight.back), "")
        self._component.ready(f"{count} messages held back: {example}" if count else "")

    def _too_many(self) -> bool:
        return sum(work.batch.size for work in self._in_flight.back) > self._most_bytes


def _backoff(tries: int) -> float:
    backoff = Backoff(_SHORTEST_SECONDS, _LONGEST_SECONDS)
    for _ in range(min(tries, 10) - 1):
        backoff.next()
    return backoff.next()
