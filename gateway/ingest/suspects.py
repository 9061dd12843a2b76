"""A message that ends the process again and again is set apart: a dead letter, unread; and the rest goes on.

Killed, out of memory, hung: such an end says nothing, and the broker delivers what was unacknowledged again, the cause
among it. So the next process is careful for a while: it takes messages one by one, and notes which one is in hand, in a
file of the spool's folder; a large one that came before is alone until it is settled. If that process ends without a
word too, the note names the message, and where the next one does with the same in hand, it was that (ADR 18). The file
lives in the kernel's memory, which outlives a process; nothing is synced. Outside of such a time a delivery costs one
look at :attr:`Suspects.passes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from gateway import unreadable
from gateway.batches import UniqueReceiveTimes
from gateway.ingest.waiting import LARGE_BYTES
from gateway.messages import NO_REPEATS, PACKET_IDS, Delivery, Message, digest
from gateway.observability import events
from gateway.spool.disk import SUSPECTS

_FILE_BYTES = 8 * 1024
_MOST = 64
"""Messages that are set apart at a time; of more, the latest."""
_APART_SECONDS = 7 * 86_400.0
"""A message that is set apart stays so: devices send the same bytes again."""
_CAREFUL_SECONDS = 60.0
_MOST_CAREFUL_SECONDS = 4 * 3600.0
_ROW_SECONDS = 86_400.0
"""Ends without a word within so long are in a row: each makes the time of care longer."""
_HARMLESS_BYTES = 4096
"""What is smaller does not end a process by what is done with it later, in a batch."""
_ALONE_SECONDS = 10.0
"""A loop that still runs after so long does not hang because of it: servers are awaited."""
_AT_ONCE = 64


class ReceivingPath(Protocol):
    """The path, :class:`gateway.ingest.pipeline.Pipeline`."""

    def take(self, delivery: Delivery) -> None:
        """All messages of one delivery."""

    def idle(self) -> None:
        """Whatever has collected may go."""

    async def wait_settled(self) -> None:
        """Return when everything taken is settled."""


class _Apart(msgspec.Struct):
    size: int
    until: float


class _State(msgspec.Struct):
    """What the file holds.

    Attributes:
        running: a process began to take messages and did not end in order.
        deaths: how many in a row did not, before this one.
        since: when this one began, s since the Unix epoch.
        in_hand: digest of the message in hand, hex; empty: none.
        named: the one that was in hand at the last end: at random once, for a process may be killed from outside.
        apart: digests of those that are set apart.
    """

    running: bool = False
    deaths: int = 0
    since: float = 0.0
    in_hand: str = ""
    named: str = ""
    size: int = 0
    apart: dict[str, _Apart] = {}


class Suspects:
    """What is known of ends without a word, over processes.

    Args:
        folder: the spool's; None: nothing is known, and every message passes.

    Attributes:
        passes: deliveries go by whole, nothing is looked for.
        careful: messages are taken one by one.
        turn: of one path at a time, so that a note names one message.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self._state = _State()
        self._until, self._left = 0.0, 0
        self._begun = self._keep = False
        self.passes, self.careful = folder is None, False
        self.turn = asyncio.Lock()

    def open(self) -> None:
        """Learn how the last process ended. The folder must be there, and ours."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._descriptor = os.open(self._folder / SUSPECTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._state = state = self._read()
        now = time.time()
        state.apart = {key: one for key, one in list(state.apart.items())[-_MOST:] if one.until > now}
        self.careful = state.running
        self._judge(state, now)
        in_a_row = state.running and now - state.since < _ROW_SECONDS
        state.deaths = (state.deaths if in_a_row else 0) + state.running

    def _judge(self, state: _State, now: float) -> None:
        """What was in hand at the last end, and at the one before, is set apart."""
        if state.in_hand and state.in_hand == state.named:
            state.apart[state.in_hand] = _Apart(state.size, now + _APART_SECONDS)
            events.message_set_apart(digest=state.in_hand, size_bytes=state.size)
            state.in_hand, state.deaths = "", 0
        state.in_hand, state.named = "", state.in_hand
        self._write()

    def begin(self) -> None:
        """Messages are taken from now on. Idempotent."""
        if self._begun:
            return
        self._begun, state = True, self._state
        state.running, state.since = True, time.time()
        self._write()
        if self.careful:
            seconds = min(_CAREFUL_SECONDS * 4 ** (state.deaths - 1), _MOST_CAREFUL_SECONDS)
            self._until, self._left = time.monotonic() + seconds, PACKET_IDS
            events.careful(deaths=state.deaths, seconds=seconds)
        self.passes = not (self.careful or state.apart)

    def look(self) -> None:
        """See whether there has been enough care: what was unacknowledged has come again by then."""
        first = self._state.deaths == 1
        if self.careful and (time.monotonic() >= self._until or (first and self._left <= 0)):
            self.careful = False
            self.passes = not self._state.apart

    def is_apart(self, message: Message) -> bool:
        """Whether this message is set apart."""
        apart, size = self._state.apart, len(message.payload)
        return any(one.size == size for one in apart.values()) and digest(message).hex() in apart

    def must_be_alone(self, message: Message) -> bool:
        """Whether it might end the process later: when its turn to be decoded comes, or in a batch with others."""
        size = len(message.payload)
        return size > LARGE_BYTES or (
            size > _HARMLESS_BYTES and (message.duplicate or self._state.deaths > 1)
        )

    def in_hand(self, message: Message) -> None:
        """If the process ends without a word now, it was this one."""
        self._left -= 1
        self._state.in_hand, self._state.size = digest(message).hex(), len(message.payload)
        self._write()

    def out_of_hand(self) -> None:
        """It was none of those until now."""
        if self._state.in_hand:
            self._state.in_hand = ""
            self._write()

    def keep(self) -> None:
        """A defect ends the process: to the next one it is an end without a word, by what is in hand."""
        self._keep = True

    def close(self) -> None:
        """The process ends in order. Idempotent."""
        if self._descriptor is None:
            return
        if self._begun and not self._keep:
            self._state.running, self._state.in_hand, self._state.named, self._state.deaths = False, "", "", 0
            self._write()
        os.close(self._descriptor)
        self._descriptor = None

    def _read(self) -> _State:
        try:
            found = os.pread(self._descriptor, _FILE_BYTES, 0) if self._descriptor is not None else b""
            return msgspec.json.decode(found, type=_State)
        except (OSError, msgspec.MsgspecError):
            return _State()

    def _write(self) -> None:
        """One write: what a killed process wrote is whole. A disk that takes nothing costs only this knowledge."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, msgspec.json.encode(self._state).ljust(_FILE_BYTES), 0)


class OneByOne:
    """Takes the deliveries that do not pass whole."""

    def __init__(self, suspects: Suspects, path: ReceivingPath) -> None:
        self._suspects, self._path = suspects, path
        self._times = UniqueReceiveTimes()

    async def take(self, delivery: Delivery) -> None:
        """All messages of one delivery, in order."""
        suspects = self._suspects
        suspects.look()
        if not suspects.careful and not any(map(suspects.is_apart, delivery.messages)):
            self._path.take(delivery)
            return
        for number, piece in enumerate(_pieces(delivery, self._times)):
            message = piece.messages[0]
            if suspects.is_apart(message):
                self._path.take(msgspec.structs.replace(piece, messages=(unreadable.set_apart(message),)))
            elif suspects.careful:
                async with suspects.turn:
                    await self._take_noted(piece, message)
            else:
                self._path.take(piece)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _take_noted(self, piece: Delivery, message: Message) -> None:
        alone = self._suspects.must_be_alone(message)
        if alone:
            await self._settled()
        self._suspects.in_hand(message)
        self._path.take(piece)
        if alone:
            await self._settled()
        self._suspects.out_of_hand()

    async def _settled(self) -> None:
        self._path.idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ALONE_SECONDS):
                await self._path.wait_settled()


def _pieces(delivery: Delivery, times: UniqueReceiveTimes) -> Iterator[Delivery]:
    """The delivery, as deliveries of one message.

    Hazard: they come into several batches, which are committed in any order. Of readings of one key the later received
    is the newer, so that no two may have been received at once. What comes from the spool keeps its times.
    """
    received_us = delivery.received_us
    for number, message in enumerate(delivery.messages, delivery.first):
        resent = {number: delivery.resent[number]} if number in delivery.resent else NO_REPEATS
        own_us = received_us if delivery.replayed else times.next(received_us)
        yield msgspec.structs.replace(
            delivery, messages=(message,), first=number, resent=resent, received_us=own_us
        )


class PausableSource(Protocol):
    """The source, as far as it is held back here."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""


class PausingPath(ReceivingPath, Protocol):
    """The live path."""

    @property
    def paused(self) -> bool:
        """Whether its own memory is full."""


class Guard:
    """The sink of the live source. What does not pass whole waits here, with the socket not read."""

    def __init__(self, suspects: Suspects, path: PausingPath, source: PausableSource) -> None:
        self._suspects, self._path, self._source = suspects, path, source
        self._one_by_one = OneByOne(suspects, path)
        self._waiting: deque[Delivery] = deque()
        self._busy, self._wake = False, asyncio.Event()

    def take(self, delivery: Delivery) -> None:
        """All messages of one socket read."""
        if self._suspects.passes and not self._busy:
            self._path.take(delivery)
            return
        self._suspects.begin()
        self._waiting.append(delivery)
        self._busy = True
        self._wake.set()
        self._source.pause()

    @property
    def busy(self) -> bool:
        """Whether something waits here."""
        return self._busy

    def idle(self) -> None:
        """The socket has nothing more for now."""
        if not self._busy:
            self._path.idle()

    async def run(self) -> None:
        """Task: what waits goes on, in order."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._one_by_one.take(self._waiting.popleft())
            self._busy = False
            self._path.idle()
            if not self._path.paused:
                self._source.resume()
