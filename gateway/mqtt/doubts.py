"""Warnings of redeliveries that cannot be told from new messages: readings without a time are stored twice.

Acks had left and were lost with the connection, so nothing in packet ids says whether a message comes again. Bytes do
not decide either, where devices say the same again and again, so nothing is dropped for what is seen here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gateway.messages import Message, digest
from gateway.mqtt.source import SessionTracker
from gateway.mqtt.window import Outstanding
from gateway.observability import events

_DIFFERENT = 2
"""So many different messages in their order are no accident; one alone may be of a device that repeats itself."""


class DoubtfulRedeliveries:
    """What was acknowledged, of which it is not known that the broker has read it, and what then comes."""

    def __init__(self, sessions: SessionTracker) -> None:
        self._sessions = sessions
        self._expected: deque[bytes] = deque()
        self._seen: set[bytes] = set()
        self._others = 0  # of what may come again, messages that have a time of their own
        self._warned = False

    def lost(self, outstanding: Iterable[Outstanding]) -> None:
        """The connection is gone with these; those that look new when they come again are looked for."""
        numbers = sorted(one.number for one in outstanding if one.sent)
        self._expected, self._seen = deque(self._sessions.noted(numbers)), set()
        self._others = len(numbers) - len(self._expected)

    def dismiss(self) -> None:
        """Messages come again under their ids, or it was said that they do not."""
        self._expected.clear()

    def same_id(self, one: Outstanding, message: Message) -> None:
        """A message came under the id of this one, and the broker uses ids again soon."""
        if self._sessions.noted([one.number]) == [digest(message)]:
            self._warn("same packet ids, which the broker uses again soon")

    def other_id(self, message: Message, *, certain: bool) -> None:
        """A message came under an id that no message has which may come again.

        Args:
            certain: it has DUP and an id that was used before, so the broker has sent it before under another one.
        """
        if not self._expected:
            return
        seen = digest(message)
        if seen == self._expected[0]:
            self._expected.popleft()
            self._seen.add(seen)
            if certain or len(self._seen) >= _DIFFERENT:
                self._warn("other packet ids")
        elif self._others:
            self._others -= 1
        else:
            self._expected.clear()

    def _warn(self, how: str) -> None:
        events.mqtt_redeliveries_look_new(how=how, first=not self._warned)
        self._warned = True
        self._expected.clear()
