"""The spool against a model: any sequence of appends, failures, crashes, flipped bits, reads and settlements."""

from __future__ import annotations

import asyncio
import errno
import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import SpoolError, SpoolFullError
from gateway.messages import digest
from gateway.settings import SpoolSettings as Options
from gateway.spool import layout, records
from gateway.spool.reader import Reader
from gateway.spool.records import Record
from gateway.spool.spool import Portion, Position, Spool
from tests.unit.spool.forgetful import ForgetfulDisk, Inode, PowerLost

MAX_BYTES = 6_000
OPTIONS = Options.model_construct(max_bytes=MAX_BYTES, segment_bytes=900)
OPERATIONS = ("create", "write", "sync", "truncate", "remove", "sync_folder")


def record_of(index: int, size: int) -> Record:
    """A record that can be told from all others."""
    payload = (b"%d " % index) * size
    return Record(
        "s", f"t/{index}", payload, index, index % 65_535 + 1, False, False, False, index, bytes(16)
    )


class Model(RuleBasedStateMachine):
    """What was promised, record by record; a record is known by its number, which counts all appends."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self.notice)
        self.power_lost = False
        self.tried: list[Record] = []
        self.promised: set[int] = set()
        self.denied: set[int] = set()
        self.settled: set[int] = set()
        self.hurt: set[int] = set()
        self.gone: set[int] = set()
        self.segment_of: dict[int, int] = {}
        self.handed: dict[int, Position] = {}
        self.flips: list[tuple[int, int, int]] = []

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """An empty disk."""
        self.disk = ForgetfulDisk(random.Random(seed))
        self.start()

    def start(self) -> None:
        """A process begins; the power may be lost meanwhile."""
        self.flips = [flip for flip in self.flips if flip[:2] not in self.handed.values()]
        self.handed = {}
        self.loose: set[int] = set()
        self.newest = -1
        self.spool = Spool(self.disk.folder, OPTIONS, digest, disk=self.disk)
        try:
            self.spool.open()
        except PowerLost:
            self.disk.crash()
            self.start()

    # ---------------------------------------------------------------- what happens to it

    @rule(
        sizes=st.lists(st.lists(st.integers(0, 40), max_size=6), min_size=1, max_size=3),
        failing=st.none() | st.sampled_from(OPERATIONS),
    )
    def append(self, sizes: list[list[int]], failing: str | None) -> None:
        """Some appends at once, and perhaps an error once; each is promised as a whole, or denied as a whole."""
        self.disk.once = failing
        groups = []
        for payloads in sizes:
            first = len(self.tried)
            self.tried += [record_of(first + place, size) for place, size in enumerate(payloads)]
            groups.append(self.tried[first:])
        results = self.loop.run_until_complete(self.gather(groups))
        self.disk.once = None
        for group, result in zip(groups, results, strict=True):
            numbers = {record.turn for record in group}
            if result is None:
                self.promised |= numbers
            elif isinstance(result, SpoolError):
                assert failing or self.disk.broken or isinstance(result, SpoolFullError)
                self.loose |= numbers
            else:
                assert isinstance(result, PowerLost)
        if self.power_lost or any(isinstance(result, PowerLost) for result in results):
            self.crash()
        elif not self.spool._appender._failed:
            self.denied |= self.loose

    async def gather(self, groups: list[list[Record]]) -> list[BaseException | None]:
        """How each append ended."""
        return await asyncio.gather(*map(self.spool.append, groups), return_exceptions=True)

    def notice(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The power was lost in a callback of the loop; nothing else may happen there."""
        assert isinstance(context.get("exception"), PowerLost), context
        self.power_lost = True

    @rule(
        operations=st.sets(st.sampled_from(OPERATIONS), min_size=1),
        number=st.sampled_from([errno.EIO, errno.ENOSPC]),
    )
    def break_disk(self, operations: set[str], number: int) -> None:
        """From now on some operations fail."""
        self.disk.broken = dict.fromkeys(operations, number)

    @rule()
    def mend_disk(self) -> None:
        """They work again."""
        self.disk.broken = {}

    @rule(operations=st.integers(0, 8))
    def lose_power_soon(self, operations: int) -> None:
        """In the middle of something."""
        self.disk.lives = operations

    @rule()
    def crash(self) -> None:
        """Lose power now, start again."""
        self.note_deletions()
        self.disk.crash()
        self.power_lost = False
        self.start()

    @rule()
    def restart(self) -> None:
        """An orderly end, and a new beginning."""
        try:
            self.spool.close()
        except PowerLost:
            self.crash()
        else:
            self.start()

    @precondition(lambda self: not self.disk.broken)
    @rule(data=st.data())
    def flip(self, data: st.DataObject) -> None:
        """One bit of a segment at rest changes by itself."""
        segments = set(layout.listing(self.disk).segments) & self.spool._segments.keys()
        at_rest = sorted(number for number in segments if not self.inode(number).dirty)
        if not at_rest:
            return
        number = data.draw(st.sampled_from(at_rest))
        offset = data.draw(st.integers(0, len(self.inode(number).cached) - 1))
        bit = 1 << data.draw(st.integers(0, 7))
        whole = dict(self.frames(number))
        hurt = [at for at, body in whole.items() if at <= offset < at + records.HEAD_BYTES + len(body)]
        self.hurt |= {record.turn for at in hurt if (record := records.decode(whole[at]))}
        for content in (self.inode(number).cached, self.inode(number).durable):
            content[offset] ^= bit
        self.flips += [(number, at, at + records.HEAD_BYTES + len(whole[at])) for at in hurt]

    # ---------------------------------------------------------------- what it is asked

    @rule(max_bytes=st.integers(1, 2_000))
    def read(self, max_bytes: int) -> None:
        """Take the next records."""
        self.take(self.next_portion(max_bytes))

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Settle some of what was handed out, in any order."""
        if self.handed:
            self.settle_these(data.draw(st.sets(st.sampled_from(sorted(self.handed)))))

    @rule()
    def drain(self) -> None:
        """Read to the end: everything promised is there. Settle it: with a sound disk nothing is left."""
        while self.take(self.next_portion(1_000)):
            pass
        assert self.promised - self.settled - self.hurt - self.handed.keys() == set()
        self.settle_these(set(self.handed))
        assert self.spool.empty
        assert self.spool.records == 0
        if not self.disk.broken and self.disk.lives is None:
            assert self.spool.size_bytes == 0
            assert layout.listing(self.disk).segments == [] or self.spool._appender._failed
            self.see_what_was_set_aside()

    def next_portion(self, max_bytes: int) -> Portion | None:
        """What comes next; the power may be lost while settled segments are deleted."""
        try:
            return self.spool.next_chunk(max_bytes)
        except PowerLost:
            self.crash()
            return self.next_portion(max_bytes)

    def take(self, portion: Portion | None) -> bool:
        """Only what was appended, unchanged, in order, and nothing that was denied or is gone for good."""
        if portion is None:
            assert self.spool.records == 0 or not self.spool.empty
            return False
        for record, position in zip(portion.records, portion.positions, strict=True):
            assert record == self.tried[record.turn]
            assert self.newest < record.turn
            assert record.turn not in self.denied | self.loose | self.gone
            self.newest = record.turn
            self.handed[record.turn] = position
            self.segment_of[record.turn] = position[0]
        return True

    def settle_these(self, numbers: set[int]) -> None:
        """They are stored now."""
        self.settled |= numbers
        try:
            self.spool.settle(self.handed[number] for number in sorted(numbers, reverse=True))
        except PowerLost:
            self.crash()
            self.drain()

    # ---------------------------------------------------------------- what always holds

    @invariant()
    def bounded(self) -> None:
        """Never more bytes on disk than allowed, and the books say how many."""
        on_disk = sum(len(self.inode(number).cached) for number in layout.listing(self.disk).segments)
        assert on_disk <= MAX_BYTES
        assert self.spool.size_bytes <= MAX_BYTES
        self.note_deletions()

    def note_deletions(self) -> None:
        """What is in no segment that the disk could bring back must not come again."""
        left = {name for names in (self.disk.names_cached, self.disk.names_durable) for name in names}
        self.gone |= {n for n, segment in self.segment_of.items() if layout.name_of(segment) not in left}

    def see_what_was_set_aside(self) -> None:
        """Of every damaged record that was not handed out, the bytes as they are now lie beside."""
        for number, offset, end in self.flips:
            if (number, offset) not in self.handed.values():
                aside = self.disk.names_cached.get(layout.quarantine_name(number))
                assert aside is not None, (number, offset)
                assert any(aside.cached[offset:end])  # the flipped byte itself may be 0 now
        self.flips = []

    def inode(self, number: int) -> Inode:
        """The file of a segment."""
        return self.disk.names_cached[layout.name_of(number)]

    def frames(self, number: int) -> list[tuple[int, bytes]]:
        """Whole and valid frames of a segment."""
        reader, found = Reader(self.disk, number), []
        while more := reader.read(len(self.inode(number).cached), MAX_BYTES):
            found += more
        return found

    def teardown(self) -> None:
        """Whatever happened before: nothing promised is missing in the end."""
        try:
            if hasattr(self, "disk"):
                self.disk.broken, self.disk.lives = {}, None
                self.drain()
                self.spool.close()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
