"""What the path asks of an MQTT connection. Two implementations, one contract suite (``tests/contracts``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from gateway.messages import Delivery, Session


class DeliveryReceiver(Protocol):
    """Where a source puts what it receives. Both calls are synchronous and must not raise."""

    def take(self, delivery: Delivery) -> None:
        """All messages of one socket read, in order. May call ``Source.pause`` before it returns."""

    def idle(self) -> None:
        """The socket has nothing more for now: what was collected may go."""


class SessionTracker(Protocol):
    """Where the source tells what becomes of its session; :class:`gateway.sessions.tracking.Sessions` is one."""

    inherited: Session
    """What the broker resumes at the first connection."""

    def begin(self) -> Session:
        """The broker has no session of ours: a new one."""

    def subscribing(self, filters: Sequence[str]) -> None:
        """These filters are what we subscribe to."""

    async def kept(self, seconds: float) -> None:
        """Return when the session and its filters are known durably, or after so many seconds."""

    async def stale(self) -> Sequence[str]:
        """Filters that an earlier configuration subscribed to, and this one does not; returns once there are any."""

    def unsubscribed(self, filters: Sequence[str]) -> None:
        """The broker has ended these subscriptions."""

    def noted(self, numbers: Sequence[int]) -> Sequence[bytes]:
        """Digests of those of these messages that are stored and would look new if they came again, in this order."""

    def out_of_turn(self) -> None:
        """The broker does not hand out packet ids in turn."""

    def confirmed(self, turn: int, *, number: int, before: int | None) -> None:
        """The broker has read our acknowledgements up to this turn, and of all messages before this number."""

    def resumed(self, packet_id: int, *, number: int) -> None:
        """A resumed session begins with this packet id, of this delivery number."""

    @property
    def leave_before(self) -> int | None:
        """Acks of this delivery number and later must wait; None: none must."""


class Source(Protocol):
    """An MQTT connection that yields messages and acknowledges those that are settled.

    Delivery numbers rise without gaps over the source's whole life, across reconnects. Acknowledgements leave in
    the order in which the messages came (MQTT 5 §4.6, [MQTT-4.6.0-2]), in whatever order they are settled; a
    message that is not settled is never acknowledged. Numbers of an earlier connection are accepted by ``settle``
    and forgotten: the broker delivers those messages again.
    """

    async def run(self, sink: DeliveryReceiver) -> None:
        """Connect, subscribe, yield into ``sink``; reconnect for ever with back-off. Returns after :meth:`close`.

        An absent or refusing broker is waited for and reported by the health component.
        """

    def settle(self, numbers: Iterable[int]) -> None:
        """These messages have come to their end. Acks that may leave now leave in one write.

        A contiguous ``range`` is fastest.

        Raises:
            IndexError: a number that was never given.
        """

    def pause(self) -> None:
        """Stop reading the socket; pings go on. Idempotent; survives reconnects.

        What was read by then is still yielded, at most one delivery. A connection lost meanwhile is made again at
        the resume.
        """

    def resume(self) -> None:
        """Read again. Idempotent; without effect after :meth:`stop`."""

    def reconnect(self, reason: str) -> None:
        """Drop the connection and make a new one; the broker then delivers again what is not acknowledged."""

    def stop(self) -> None:
        """Yield nothing from now on, but stay connected so that acks can leave. Idempotent."""

    async def close(self) -> None:
        """Send the acks that may leave, DISCONNECT (the session stays at the broker), close. Idempotent."""
