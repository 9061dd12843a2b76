"""The disk spool: messages that wait for a database, durable before they are acknowledged.

Constraints
    One process at a time has the folder (flock on ``lock``). An append is durable when it returns, and nothing of
    one that raised counts. Segments hold at most ``max_bytes`` together, memory one portion at a time. The loop
    is blocked by reading from disk and by deleting files; by fsync only to quarantine damaged bytes.

On disk
    Segment files, oldest first by name (:mod:`gateway.spool.layout`), of checksummed frames
    (:mod:`gateway.spool.records`). There is no other state: what is settled is known in memory only.

Writing
    Appends that wait while one is under way form the next group: one write, one fsync, and one fsync of the
    folder when a segment was begun. A segment takes groups until ``segment_bytes``; a larger group has its own. A
    process never appends to a segment of another. When write or fsync fails, the segment is cut to what was
    durable before, durably, and gets no more (:mod:`gateway.spool.appender`).

Reading
    Oldest first, only what is durable. Damage ends at the next frame that is valid in its place, whatever the
    damaged frame's length says; what lies between is counted and skipped (:mod:`gateway.spool.reader`).

Deleting
    A segment is deleted when all of it was read and settled and no append to it is under way, the newest one too:
    at rest the folder is empty. Its damaged bytes are in ``<segment>.corrupt`` before that, or it stays.

After a crash
    What is not a whole, valid frame at the end of the newest segment is quarantined and cut off. Records come again
    when they were handed out and not settled, when they were settled but others of their segment were not, and
    when the deletion of their segment was not durable yet. A record may come that no append returned for: its
    message was not acknowledged, and is delivered again by the broker (:meth:`Spool.knows`).
    The order is always that of the appends.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from gateway import clock, settings
from gateway.errors import SpoolError, SpoolFullError
from gateway.observability import events
from gateway.spool import layout, records, recovery
from gateway.spool.appender import Appender
from gateway.spool.disk import Disk
from gateway.spool.layout import HEADER_BYTES
from gateway.spool.recent import Recent
from gateway.spool.records import Record
from gateway.spool.recovery import Recovery
from gateway.spool.segments import Segment
from gateway.spool.session_file import SessionFile

Position = tuple[int, int]
"""Number of the segment and offset in it: names a record for good, over restarts too."""


_USABLE_BELOW = 0.75
"""Of ``max_bytes``: a full spool is usable again when it holds less."""


class Portion(msgspec.Struct, frozen=True):
    """Records handed out together, in the order in which they were appended.

    Attributes:
        positions: for :meth:`Spool.settle`; one a record.
    """

    records: Sequence[Record]
    positions: Sequence[Position]


class _Append(msgspec.Struct):
    """An append that waits, or is under way."""

    records: Sequence[Record]
    bodies: Sequence[bytes]
    size: int
    done: asyncio.Future[None]


class Spool:
    """See the module. Not thread-safe: all methods are called from the event loop's thread.

    Attributes:
        corrupt: damaged places found since :meth:`open`.
        session: the state of the client id's session, kept in the same folder.
    """

    def __init__(
        self,
        folder: Path,
        options: settings.SpoolSettings,
        digest: Callable[[Record], bytes],
        *,
        disk: Disk | None = None,
    ) -> None:
        self._options = options
        self._disk = disk or Disk(folder)
        self._epoch = os.urandom(16)
        self._appender = Appender(self._disk, self._epoch)
        self._recent = Recent(digest)
        self.session = SessionFile(self._disk)
        self._segments: dict[int, Segment] = {}
        self._active: Segment | None = None
        self._waiting: list[_Append] = []
        self._writing = False
        self._last_number = 0
        self._readable = asyncio.Event()
        self._closed = False
        self.corrupt = 0

    def open(self) -> Recovery:
        """Take possession of the folder, look what is there.

        Raises:
            StartError: the folder cannot be used. Damage in it never is a reason.
        """
        self._disk.open()
        found = layout.listing(self._disk)
        self._last_number = max([*found.segments, *found.quarantined], default=0)
        self._segments, recovered = recovery.recover(self._disk, self._recent)
        self.corrupt = recovered.corrupt
        if self._segments:
            self._readable.set()
        torn, corrupt, unknown = recovered.torn_bytes, recovered.corrupt, recovered.unknown
        if torn or corrupt or unknown:
            events.spool_recovered(torn_bytes=torn, corrupt=corrupt, unknown=unknown)
        for segment in self._segments.values():
            if not segment.finished:
                _tell_damage(segment, 0)
        self._sweep()
        return recovered

    def close(self) -> None:
        """Wait for a write that is under way, then give the folder free. Idempotent."""
        self._closed = True
        self._appender.close()
        for segment in self._segments.values():
            segment.reader.close()
        self._disk.close()

    # ------------------------------------------------------------------ what there is

    @property
    def records(self) -> int:
        """Records not settled. About, until segments of an earlier process are read."""
        return sum(segment.unsettled for segment in self._segments.values())

    @property
    def size_bytes(self) -> int:
        """Bytes in segments, settled records among them; at most ``max_bytes``."""
        return sum(segment.end for segment in self._segments.values())

    @property
    def empty(self) -> bool:
        """Whether everything is settled."""
        return all(segment.finished for segment in self._segments.values())

    @property
    def oldest_us(self) -> int | None:
        """Receive time of the oldest record, to within a portion, µs since the Unix epoch; None when empty."""
        return next((one.oldest_us for one in self._segments.values() if not one.finished), None)

    def knows(self, packet_id: int, digest: bytes, session: bytes, believes: Callable[[int], bool]) -> bool:
        """Whether an earlier process spooled the message that is delivered again.

        Args:
            session: the id of the session in which it came.
            believes: whether what is noted of a position may be believed.
        """
        return self._recent.knows(packet_id, digest, session, believes)

    # ------------------------------------------------------------------ appending

    async def append(self, added: Sequence[Record]) -> None:
        """Make records durable, together with those of other calls meanwhile. Cancelled, it may still happen.

        Raises:
            SpoolFullError: they do not fit into ``max_bytes`` now.
            SpoolError: the disk failed. Nothing of these counts as written, in either case.
        """
        if not added:
            return
        bodies = list(map(records.encode, added))
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Append(added, bodies, records.size(bodies), done))
        if not self._writing:
            self._write_group()
        await done

    async def try_out(self) -> None:
        """See that the spool can be used again: for when something was refused, and nothing is to be appended since.

        Raises:
            SpoolError: it would refuse again, or is nearly full.
        """
        if self.size_bytes > self._options.max_bytes * _USABLE_BELOW:
            raise self._full()
        try:
            await asyncio.to_thread(self._disk.try_out)
        except OSError as error:
            raise self._failed(error) from error

    def _write_group(self) -> None:
        """Write together what waits."""
        group = self._take_fitting()
        if not group:
            return
        self._writing = True
        bodies = [body for one in group for body in one.bodies]
        number = self._number_for(sum(one.size for one in group))
        writing = asyncio.get_running_loop().run_in_executor(None, self._appender.append, bodies, number)
        writing.add_done_callback(functools.partial(self._written, group, number))

    def _take_fitting(self) -> list[_Append]:
        """The appends that there is room for; the others fail."""
        group, room = [], self._options.max_bytes - self.size_bytes - HEADER_BYTES
        for one in self._waiting:
            if one.done.cancelled():
                continue
            if one.size <= room:
                room -= one.size
                group.append(one)
            else:
                one.done.set_exception(self._full())
        self._waiting.clear()
        return group

    def _number_for(self, size: int) -> int | None:
        """Number of the segment to begin for so many bytes; None when they go into the newest one."""
        if self._active is not None and self._active.end + size <= self._options.segment_bytes:
            return None
        self._last_number = max(clock.now_us(), self._last_number + 1)
        return self._last_number

    def _written(self, group: Sequence[_Append], number: int | None, writing: asyncio.Future[int]) -> None:
        """A group is durable, or failed."""
        self._writing = False
        error = writing.exception()
        if error is None:
            self._enter(group, number, writing.result())
        else:
            self._active = None
        for one in group:
            if one.done.cancelled():
                continue
            if error is None:
                one.done.set_result(None)
            else:
                one.done.set_exception(self._failed(error) if isinstance(error, OSError) else error)
        if self._waiting:
            self._write_group()
        self._sweep()

    def _enter(self, group: Sequence[_Append], number: int | None, end: int) -> None:
        """Into the books: there is more to hand out."""
        added = [record for one in group for record in one.records]
        if number is not None:
            self._active = self._segments[number] = Segment(self._disk, number, HEADER_BYTES, self._epoch)
        assert self._active is not None
        self._active.grow(end, added)
        self._readable.set()

    def _full(self) -> SpoolFullError:
        return SpoolFullError(
            f"the spool is full: {self.size_bytes} of {self._options.max_bytes} bytes (spool.max_bytes) "
            f"in {self._disk.folder}; it drains when the database is back"
        )

    def _failed(self, error: OSError) -> SpoolError:
        return SpoolError(f"spool.folder {self._disk.folder}: {error.strerror or error}")

    # ------------------------------------------------------------------ draining

    async def wait_for_records(self) -> None:
        """Return when :meth:`next_chunk` has something."""
        await self._readable.wait()

    def next_chunk(self, max_bytes: int) -> Portion | None:
        """The next records that were not handed out yet, oldest first; None when there are none.

        Args:
            max_bytes: most bytes of disk to read; a record that is larger comes alone.

        Raises:
            SpoolError: the disk cannot be read.
        """
        for segment in list(self._segments.values()):
            while not segment.read_through:
                offsets, found = self._read(segment, max_bytes)
                if found:
                    return Portion(found, [(segment.number, offset) for offset in offsets])
        self._readable.clear()
        self._sweep()
        return None

    def settle(self, positions: Iterable[Position]) -> None:
        """These records have come to their end. In any order; again does no harm."""
        by_segment: dict[int, list[int]] = {}
        for number, offset in positions:
            by_segment.setdefault(number, []).append(offset)
        for number, offsets in by_segment.items():
            if number in self._segments:
                self._segments[number].settle(offsets)
        self._sweep()

    def _read(self, segment: Segment, max_bytes: int) -> tuple[list[int], list[Record]]:
        """Some records of a segment; says what could not be read."""
        name, known = layout.name_of(segment.number), len(segment.reader.damage)
        try:
            offsets, found = segment.next_records(max_bytes)
        except FileNotFoundError:
            events.spool_segment_missing(segment=name, records=segment.unsettled)
            segment.end = segment.reader.position
            self._retire(segment)
            return [], []
        except OSError as error:
            raise self._failed(error) from error
        self.corrupt += _tell_damage(segment, known)
        if segment.read_through:
            segment.reader.close()
        return offsets, found

    def _sweep(self) -> None:
        """Delete what is settled as a whole."""
        for segment in [] if self._closed else list(self._segments.values()):
            if segment.finished and not (self._writing and segment is self._active):
                self._delete(segment)

    def _delete(self, segment: Segment) -> None:
        """Delete a segment, its damaged bytes quarantined; when the disk will not, it is tried again."""
        name = layout.name_of(segment.number)
        try:
            segment.quarantine(self._disk)
            segment.reader.close()
            self._disk.remove(name)
        except FileNotFoundError:
            segment.reader.close()
        except OSError as error:
            if not segment.stuck:
                segment.stuck = True
                events.spool_segment_stuck(segment=name, error=str(error))
            return
        self._retire(segment)
        del self._segments[segment.number]

    def _retire(self, segment: Segment) -> None:
        """Nothing more is appended to this segment."""
        if segment is self._active and not self._writing:
            self._active = None
            self._appender.seal()


def _tell_damage(segment: Segment, known: int) -> int:
    """Tell of the damaged places after the first ``known`` ones; how many."""
    found = list(segment.reader.damage.items())[known:]
    for offset, length in found:
        events.spool_damaged(segment=layout.name_of(segment.number), offset=offset, length=length)
    return len(found)
