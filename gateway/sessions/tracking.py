"""The session at the broker, as far as it outlives a process: which one it is, how far the broker has read our acks.

A restarted daemon that the broker resumes believes what earlier processes noted (the redelivery ledger, the spool's
records) only of the session that it resumed, only beyond what the broker is known to have read, and only where packet
ids are handed out in turn. What could not be kept in time makes a message look new: stored twice, never lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import time
from collections.abc import Sequence
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from gateway.clock import now_us
from gateway.errors import GatewayError
from gateway.messages import PACKET_IDS, Session
from gateway.observability import events, health
from gateway.sessions.redeliveries import Redeliveries

_SAVE_SECONDS = 0.2
"""Between two saves under load. Meanwhile a broker that uses packet ids again at once could be misunderstood."""
_RETRY_SECONDS = 1.0
_IN_USE_SECONDS = 20.0
"""Between two saves without need: they tell that the session is in use."""
_BEYOND = 2**62
"""No position and no time: there is room in 64 bits to go on from what is below."""
_ADVANCE = PACKET_IDS // 4
"""So far may packet ids come before it is saved."""
_MOST_AHEAD = PACKET_IDS // 2 - 1
"""So far may acks leave beyond what is saved: what comes first in a resumed session lies within half a round of it, or
a later process takes it for a message of a broker that begins anew, and what it stored before for new."""
_PATIENT_SECONDS = 2.0
"""So long do acks wait for that to be saved. Rather twice than stalled."""


class SessionState(msgspec.Struct, frozen=True):
    """What is kept of a session.

    Attributes:
        session: its 16 bytes.
        confirmed: position up to which the broker has read our acknowledgements.
        in_turn: the broker hands out packet ids in turn, as far as was ever seen under this client id.
        at_us: when it was so, µs since the Unix epoch.
        filters: what the broker may still be subscribed to in it.
        in_use: a process has it, or ended without a word.
    """

    session: Annotated[bytes, Meta(min_length=16, max_length=16)]
    confirmed: Annotated[int, Meta(ge=0, lt=_BEYOND)] = 0
    in_turn: bool = True
    at_us: Annotated[int, Meta(ge=0, lt=_BEYOND)] = 0
    filters: tuple[str, ...] = ()
    in_use: bool = True


class Store(Protocol):
    """Where the state is kept."""

    async def load(self) -> SessionState | None:
        """What is kept; None: nothing. Raises GatewayError: it cannot be read now."""

    async def save(self, state: SessionState) -> None:
        """Make it durable. Raises GatewayError: it is not."""


class Sessions:
    """The sessions of one client id: what an earlier process left, and what becomes of it in this one.

    Attributes:
        client_id: whose sessions.
        inherited: the session that the broker may still hold for an earlier process.
        before: what that process left; None: not looked up yet.

    Args:
        stores: all are written; of what they hold the newest is believed, unless one was adopted before.
        redeliveries: forgets what is confirmed.
    """

    def __init__(
        self,
        client_id: str,
        stores: Sequence[Store],
        redeliveries: Redeliveries,
        component: health.Component | None = None,
    ) -> None:
        self.client_id, self._stores, self._redeliveries = client_id, stores, redeliveries
        self._component = component or health.Component("session")
        self._component.ready()
        self.inherited = self._current = Session(inherited=True)
        self.before: SessionState | None = None
        self._confirmed: int | None = None
        self._in_turn = True
        self._noted = False
        self._saved_turn: int | None = None
        self._saved_at, self._urgent = 0.0, False
        self._number, self._saved_number = 0, -PACKET_IDS  # nothing is saved of this process
        self._unsaved_since: float | None = None
        self._changed, self._kept, self._looked_up = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._wanted: frozenset[str] = frozenset()
        self._asked: set[str] = set()
        self._ended: set[str] = set()
        self._known_us = 0

    async def look_up(self) -> SessionState:
        """What an earlier process left. The inherited session has its id and its base from then on.

        Raises:
            GatewayError: it cannot be read now.
        """
        if self.before is None:
            found = [state for store in self._stores if (state := await store.load()) is not None]
            if not found:
                self._changed.set()
            self.adopt(max(found, key=lambda state: state.at_us, default=SessionState(os.urandom(16))))
        assert self.before is not None
        return self.before

    def believes(self, position: int) -> bool:
        """Whether what an earlier process noted of this position may be said of a message that is delivered again.

        Where the broker had read the acknowledgement of what comes first now, packet ids have begun anew.
        """
        before, session = self.before, self.inherited
        if before is None or self._current is not session or not self.in_turn or not session.first:
            return False
        return session.position(session.first) > before.confirmed and position > self._position()

    @property
    def in_turn(self) -> bool:
        """Whether the broker hands out packet ids in turn, as far as was ever seen."""
        return self._in_turn and (self.before is None or self.before.in_turn)

    def adopt(self, state: SessionState) -> None:
        """Take over what an earlier process left."""
        if self.before is None:
            self.before, self.inherited.id = state, state.session
            self.inherited.go_on(state.confirmed)
            self._looked_up.set()
            if self._current.inherited:
                self._known_us = state.at_us
            elif state.filters:
                self._tell_lost(state.at_us)

    # ------------------------------------------------------------------ what the source tells

    def begin(self) -> Session:
        """The broker has no session of ours: a new one. Nothing that was noted before says anything about it."""
        if self._known_us and self.filters:  # without any, none of ours was ever at the broker
            self._tell_lost(self._known_us)
        self._known_us = now_us()
        self._current = Session(os.urandom(16))
        self._asked, self._ended = set(), set()
        self._confirmed = self._saved_turn = 0
        self._urgent = True
        self._kept.clear()
        self._changed.set()
        return self._current

    def _tell_lost(self, known_us: int) -> None:
        """A session that was noted at this time, µs since the Unix epoch, is no more."""
        seconds = (now_us() - known_us) / 1e6
        moment = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self._component.ready(
            f"at {moment} the broker had no session of ours any more, used {seconds:.0f} s before; what it kept is "
            "lost: another client took it by our mqtt.client_id (docs/security.md), it expired, or the broker was "
            "restarted without persistence"
        )
        events.mqtt_session_lost(client_id=self.client_id, last_used_seconds=seconds)

    def subscribing(self, filters: Sequence[str]) -> None:
        """These filters are what we subscribe to, in the session that lives now."""
        self._wanted = frozenset(filters)
        if self._wanted <= set(self.filters):
            self._kept.set()
        else:
            self._urgent = True
            self._kept.clear()
            self._changed.set()
        self._asked |= self._wanted

    @property
    def filters(self) -> list[str]:
        """What the broker may be subscribed to in the session that lives now."""
        earlier = self.before.filters if self.before is not None and self._current.inherited else ()
        return sorted(self._asked.union(earlier) - self._ended)

    async def stale(self) -> list[str]:
        """Filters that an earlier configuration subscribed to, and this one does not; returns once there are any."""
        await self._looked_up.wait()
        stale = [one for one in self.filters if one not in self._wanted]
        if not stale:
            await asyncio.get_running_loop().create_future()  # until cancelled: nothing can add to them
        return stale

    def unsubscribed(self, filters: Sequence[str]) -> None:
        """The broker has ended these subscriptions."""
        self._ended |= set(filters)
        self._changed.set()

    async def kept(self, seconds: float) -> None:
        """Return when the session and its filters are known durably, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._kept.wait()
        except TimeoutError:
            events.session_not_kept(seconds=seconds)

    def out_of_turn(self) -> None:
        """The broker was seen to use a packet id again before all others had their turn, or to begin anew."""
        if self._in_turn:
            self._in_turn, self._urgent = False, True
            self._changed.set()

    def resumed(self, packet_id: int, *, number: int) -> None:
        """The broker goes on with this message, so it has read our acks of all before.

        Where that is further than acks may have left (``_MOST_AHEAD``), ids have begun anew, and it says nothing.
        """
        known = self._confirmed if self._saved_turn is None else self._saved_turn
        if known is None:  # a process counts from the first id that it receives
            self._take_confirmed(packet_id - 1, number)
        elif (ahead := (packet_id - 1 - known) % PACKET_IDS) <= _MOST_AHEAD:
            self._take_confirmed(known + ahead, number)
        else:
            self._take_confirmed(0, number)

    @property
    def leave_before(self) -> int | None:
        """Acks of this delivery number and later must wait until it is saved what the broker has read; None: none must.

        Not where ids say nothing anyway, nor for longer than ``_PATIENT_SECONDS``.
        """
        since = self._unsaved_since
        if not self.in_turn or (since is not None and time.monotonic() - since > _PATIENT_SECONDS):
            return None
        return self._saved_number + _MOST_AHEAD

    def confirmed(self, turn: int, *, number: int, before: int | None) -> None:
        """The broker has read our acknowledgements.

        Args:
            turn: of the last message whose acknowledgement it has read.
            number: of the message after it.
            before: delivery number; what came before can be forgotten. None: nothing can, now.
        """
        if before is not None:
            self._redeliveries.forget(before)
        self._take_confirmed(turn, number)

    def _take_confirmed(self, turn: int, number: int) -> None:
        self._confirmed, self._number = max(self._confirmed or 0, turn), max(self._number, number)
        self._urgent |= self._number - self._saved_number >= _ADVANCE
        if self._urgent or self._noted:
            self._noted = False
            self._unsaved_since = self._unsaved_since or time.monotonic()
            self._changed.set()

    def noted(self, numbers: Sequence[int]) -> list[bytes]:
        """Digests of those of these messages that are stored and would look new if they came again, in this order."""
        return self._redeliveries.digests(numbers)

    def note(self) -> None:
        """Something was noted that a later process would believe, until the broker has read the acknowledgement."""
        self._noted = True

    # ------------------------------------------------------------------ making it durable

    async def keep(self) -> None:
        """Task: keep the state durable."""
        self._changed.set()  # what an earlier process subscribed to is looked up at once
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IN_USE_SECONDS):
                    await self._changed.wait()
            wait = self._saved_at + _SAVE_SECONDS - time.monotonic()
            if wait > 0 and not self._urgent:
                await asyncio.sleep(wait)
            try:
                await self.save()
            except GatewayError:
                await asyncio.sleep(_RETRY_SECONDS)

    async def save(self, *, in_use: bool = True) -> None:
        """Make durable what is known now.

        Args:
            in_use: False: this process has done with the session.

        Raises:
            GatewayError: some store did not take it; it is to be saved again.
        """
        await self.look_up()
        self._changed.clear()
        self._urgent = False
        session, turn, number = self._current, self._confirmed, self._number
        filters = tuple(self.filters)
        state = SessionState(session.id, self._position(), self.in_turn, now_us(), filters, in_use)
        failed = await self._save_in_each(state)
        if len(failed) < len(self._stores):
            self._saved_at = time.monotonic()
            self._saved(turn, number)
            self._known_us = state.at_us
            if session is self._current and filters == tuple(self.filters):
                self._kept.set()
        if failed:
            self._changed.set()
            raise failed[0]

    def _saved(self, turn: int | None, number: int) -> None:
        """A later process will know this position; without one, of no message of this process."""
        if turn is not None:
            self._saved_turn, self._saved_number = turn, number
            self._unsaved_since = None if number == self._number else time.monotonic()

    def _position(self) -> int:
        """Up to where the broker has read our acknowledgements, in the session that lives now."""
        known = self.before.confirmed if self._current.inherited and self.before else 0
        return known if self._confirmed is None else max(known, self._current.position(self._confirmed))

    async def _save_in_each(self, state: SessionState) -> list[GatewayError]:
        """The errors of those stores that did not take it."""
        failed: list[GatewayError] = []
        for store in self._stores:
            try:
                await store.save(state)
            except GatewayError as error:
                failed.append(error)
        return failed
