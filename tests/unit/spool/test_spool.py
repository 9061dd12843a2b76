"""What the disk spool promises on a sound disk."""

from __future__ import annotations

import asyncio
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import clock
from gateway.errors import SpoolFullError, StartError
from gateway.messages import digest
from gateway.sessions.tracking import SessionState
from gateway.settings import SpoolSettings as Options
from gateway.spool.disk import LOCK, Disk, File
from gateway.spool.spool import Spool
from tests.unit.spool.spooling import SESSION, SMALL, mode, names, numbers, opened, record, rest, segments


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Not made yet; its parent is."""
    return tmp_path / "spool"


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    """An open spool."""
    spool = opened(folder)
    yield spool
    spool.close()


async def test_an_append_is_on_disk_when_it_returns(spool: Spool, folder: Path) -> None:
    """Another look at the folder, meanwhile, finds all of it; nobody else may read it."""
    await spool.append([record(0), record(1)])
    (segment,) = segments(folder)
    assert segment.read_bytes().count(b"temperature") == 2
    assert mode(folder) == 0o700
    assert mode(segment) == 0o600
    assert spool.size_bytes == segment.stat().st_size
    assert spool.records == 2
    assert spool.oldest_us == record(0).received_us


async def test_what_was_spooled_comes_back_as_it_was(spool: Spool) -> None:
    """Order and every attribute are kept, through any size of portion."""
    appended = [record(number, b"x" * (number * 7 % 400)) for number in range(200)]
    for start in range(0, 200, 20):
        await spool.append(appended[start : start + 20])
    found, positions = rest(spool, max_bytes=700)
    assert found == appended
    assert positions == sorted(set(positions))
    assert not spool.empty
    spool.settle(positions)
    assert spool.empty


async def test_at_rest_the_folder_is_empty(spool: Spool, folder: Path) -> None:
    """Once everything is settled, in whatever order, no segment is left, and it begins anew."""
    for turn in range(3):
        await spool.append([record(turn * 1000 + number) for number in range(100)])
        _, positions = rest(spool)
        spool.settle(reversed(positions))
        assert names(folder) == [LOCK]
        assert (spool.size_bytes, spool.records, spool.oldest_us) == (0, 0, None)


async def test_a_segment_goes_when_all_of_it_is_settled(spool: Spool, folder: Path) -> None:
    """One record not settled keeps its segment; the others go, older and newer."""
    for start in range(0, 200, 10):
        await spool.append([record(start + number) for number in range(10)])
    before = segments(folder)
    assert len(before) > 4
    found, positions = rest(spool)
    kept = next(place for place, position in enumerate(positions) if position[0] == int(before[2].stem))
    spool.settle(positions[:kept] + positions[kept + 1 :])
    assert segments(folder) == [before[2]]
    assert spool.records == 1
    assert spool.oldest_us == found[kept].received_us
    spool.settle([positions[kept]])
    assert segments(folder) == []


async def test_segments_have_the_size_that_was_asked_for(spool: Spool, folder: Path) -> None:
    """None is larger, but one that holds a single larger append; deleting frees disk in such steps."""
    for start in range(0, 300, 5):
        await spool.append([record(start + number) for number in range(5)])
    sizes = [path.stat().st_size for path in segments(folder)]
    assert all(SMALL.segment_bytes * 0.7 < size <= SMALL.segment_bytes for size in sizes[:-1])
    await spool.append([record(number, b"x" * 1000) for number in range(8)])
    assert segments(folder)[-1].stat().st_size > 8000


async def test_what_is_not_settled_comes_again(spool: Spool, folder: Path) -> None:
    """A new process is handed what the old one had not settled, under the same positions."""
    await spool.append([record(number) for number in range(10)])
    _, positions = rest(spool)
    spool.settle(positions[:4])
    spool.close()
    second = opened(folder)
    found, again = rest(second)
    assert positions == again
    assert numbers(found) == list(range(10))
    second.settle(again)
    assert second.empty
    second.close()


async def test_a_full_spool_takes_nothing_of_an_append(spool: Spool) -> None:
    """max_bytes holds, the refusal says what is full, and draining makes room again."""
    taken = 0

    async def fill() -> None:
        nonlocal taken
        while True:
            await spool.append([record(taken, b"x" * 500), record(taken + 1, b"x" * 500)])
            taken += 2

    with pytest.raises(SpoolFullError, match=r"65536 bytes \(spool.max_bytes\)"):
        await fill()
    assert SMALL.max_bytes * 0.9 < spool.size_bytes <= SMALL.max_bytes
    assert spool.records == taken
    found, positions = rest(spool)
    assert numbers(found) == list(range(taken))
    spool.settle(positions)
    await spool.append([record(0, b"x" * 60_000)])


async def test_one_that_does_not_fit_does_not_hold_back_others(spool: Spool) -> None:
    """Of appends written together, those with room are, the others are refused, each as a whole."""
    results = await asyncio.gather(
        spool.append([record(0)]),
        spool.append([record(1), record(2, b"x" * 70_000)]),
        spool.append([record(3)]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), SpoolFullError, type(None)]
    assert numbers(rest(spool)[0]) == [0, 3]


class CountingDisk(Disk):
    """Counts fsyncs, and can be held in the middle of one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.synced = 0
        self.may_go_on, self.is_syncing = threading.Event(), threading.Event()
        self.may_go_on.set()

    def create(self, name: str) -> File:
        """A file whose syncs are counted."""
        made, disk = super().create(name), self

        class Counted(File):
            def sync(self) -> None:
                """Once more."""
                disk.is_syncing.set()
                assert disk.may_go_on.wait(10)
                super().sync()
                disk.synced += 1

        return Counted(made._descriptor)


async def test_appends_that_come_meanwhile_share_one_fsync(folder: Path) -> None:
    """However many wait for the disk, the next fsync is for all of them."""
    disk = CountingDisk(folder)
    spool = opened(folder, disk=disk)
    disk.may_go_on.clear()
    first = asyncio.create_task(spool.append([record(0)]))
    assert await asyncio.to_thread(disk.is_syncing.wait, 10)
    others = [asyncio.create_task(spool.append([record(number)])) for number in range(1, 20)]
    disk.may_go_on.set()
    await asyncio.gather(first, *others)
    assert disk.synced == 2
    assert numbers(rest(spool)[0]) == list(range(20))
    spool.close()


async def test_nothing_is_handed_out_before_it_is_durable(folder: Path) -> None:
    """Nor is a segment deleted while it is appended to, although all that was in it is settled."""
    disk = CountingDisk(folder)
    spool = opened(folder, disk=disk)
    await spool.append([record(0)])
    _, positions = rest(spool)
    disk.is_syncing.clear()
    disk.may_go_on.clear()
    second = asyncio.create_task(spool.append([record(1)]))
    assert await asyncio.to_thread(disk.is_syncing.wait, 10)
    assert spool.next_chunk(2**20) is None
    spool.settle(positions)
    assert len(segments(folder)) == 1
    disk.may_go_on.set()
    await second
    assert numbers(rest(spool)[0]) == [1]
    spool.close()


async def test_a_cancelled_append_harms_nobody(folder: Path) -> None:
    """Who waits for the same fsync gets its answer; closing waits for the write that is under way."""
    disk = CountingDisk(folder)
    spool = opened(folder, disk=disk)
    disk.may_go_on.clear()
    given_up = asyncio.create_task(spool.append([record(0)]))
    assert await asyncio.to_thread(disk.is_syncing.wait, 10)
    never = asyncio.create_task(spool.append([record(1)]))
    other = asyncio.create_task(spool.append([record(2)]))
    await asyncio.sleep(0)
    given_up.cancel()
    never.cancel()
    disk.may_go_on.set()
    await other
    assert numbers(rest(spool)[0]) == [0, 2]
    disk.may_go_on.clear()
    last = asyncio.create_task(spool.append([record(3)]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(spool.close))
    disk.may_go_on.set()
    await asyncio.gather(last, closing)
    assert numbers(rest(opened(folder))[0]) == [0, 2, 3]


async def test_waiting_for_records(spool: Spool) -> None:
    """Who drains sleeps until there is something, also when it comes much later, or was there at the start."""
    assert spool.next_chunk(2**20) is None
    waiting = asyncio.create_task(spool.wait_for_records())
    await asyncio.sleep(0)
    assert not waiting.done()
    await spool.append([record(0)])
    await asyncio.wait_for(waiting, 10)
    spool.close()
    again = opened(spool._disk.folder)
    await asyncio.wait_for(again.wait_for_records(), 10)
    again.close()


async def test_appending_nothing_writes_nothing(spool: Spool, folder: Path) -> None:
    """No segment is begun for an empty group."""
    await spool.append([])
    assert segments(folder) == []


def everywhere(_position: int) -> bool:
    """Every position may be believed."""
    return True


async def test_a_redelivery_is_known(spool: Spool, folder: Path) -> None:
    """By packet id and digest, by the next process, also when it was drained meanwhile; others are not."""
    here, other = record(7, packet_id=7), record(8, packet_id=7)
    await spool.append([here, *(record(number, packet_id=0) for number in range(9, 12))])
    spool.close()
    again = opened(folder)
    assert again.knows(7, digest(here), SESSION, everywhere)
    assert not again.knows(7, digest(other), SESSION, everywhere)
    assert not again.knows(8, digest(here), SESSION, everywhere)
    again.settle(rest(again)[1])
    assert again.knows(7, digest(here), SESSION, everywhere)
    again.close()


async def test_a_redelivery_is_believed_where_its_ack_may_be_lost(spool: Spool, folder: Path) -> None:
    """Not of another session, and only where its position may be believed."""
    here = record(10, packet_id=7)
    await spool.append([here])
    spool.close()
    again = opened(folder)
    assert again.knows(7, digest(here), SESSION, lambda position: position == 10)
    assert not again.knows(7, digest(here), SESSION, lambda position: position > 10)
    assert not again.knows(7, digest(here), bytes(16), everywhere)
    again.close()


@pytest.mark.parametrize(("turn", "believed"), [(10 + 65_534, True), (10 + 65_535, False)])
async def test_a_packet_id_is_believed_for_one_round(
    spool: Spool, folder: Path, turn: int, believed: bool
) -> None:
    """After 65 535 more messages the broker may have used the id again: another message of the same bytes."""
    here = record(10, packet_id=7)
    await spool.append([here, record(turn, packet_id=8)])
    spool.close()
    again = opened(folder)
    assert again.knows(7, digest(here), SESSION, everywhere) is believed
    again.close()


async def test_a_record_without_packet_id_is_never_known(spool: Spool, folder: Path) -> None:
    """QoS 0 messages are not delivered again."""
    await spool.append([record(1, packet_id=0)])
    spool.close()
    again = opened(folder)
    assert not again.knows(0, digest(record(1)), SESSION, everywhere)
    again.close()


async def test_the_session_outlives_the_process(spool: Spool, folder: Path) -> None:
    """Kept beside the records; nothing of it is taken for one of them."""
    state = SessionState(SESSION, confirmed=5, in_turn=False, at_us=7)
    assert spool.session.read() is None
    for one in (SessionState(bytes(16)), state):
        await spool.session.save(one)
    spool.close()
    again = opened(folder)
    assert again.session.read() == state
    assert again.empty
    again.close()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b'{"session": "\xa5"}',
        b'{"session": "AAAA"}',
        b'{"session": "%s", "confirmed": %d}' % (b"A" * 22 + b"==", 10**30),
    ],
)
def test_a_damaged_session_file_stops_nobody(spool: Spool, folder: Path, content: bytes) -> None:
    """It is as if there were none: what is no UTF-8, and what is no session."""
    (folder / "session").write_bytes(content)
    assert spool.session.read() is None


async def test_the_order_does_not_hang_on_the_clock(
    spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps back an hour, over a restart too, does not put new segments before old ones."""
    now = clock.now_us()
    for turn, moment in enumerate((now, now - 3600 * 10**6, now - 3600 * 10**6)):
        monkeypatch.setattr(clock, "now_us", lambda moment=moment: moment)
        spool.close()
        spool = opened(folder)
        await spool.append([record(turn)])
    assert numbers(rest(spool)[0]) == [0, 1, 2]
    spool.close()


async def test_memory_holds_one_portion(folder: Path) -> None:
    """Draining 32 MiB in portions of 256 KiB never holds more than a few of these."""
    spool = opened(folder, Options(max_bytes=64 * 2**20, segment_bytes=16 * 2**20))
    for start in range(0, 8000, 1000):
        await spool.append([record(start + number, b"x" * 4000) for number in range(1000)])
    tracemalloc.start()
    try:
        drained = 0
        while portion := spool.next_chunk(256 * 2**10):
            drained += len(portion.records)
            spool.settle(portion.positions)
        assert drained == 8000
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
        spool.close()


async def test_how_many_wait_is_told_after_a_restart(spool: Spool, folder: Path) -> None:
    """About, from the size of the first records; exactly, once they were read."""
    for start in range(0, 200, 10):
        await spool.append([record(start + number) for number in range(10)])
    spool.close()
    again = Spool(folder, SMALL, digest)
    recovery = again.open()
    assert recovery.records == pytest.approx(200, rel=0.05) == again.records
    assert (recovery.torn_bytes, recovery.corrupt, recovery.unknown) == (0, 0, ())
    assert recovery.segments == len(segments(folder))
    found, positions = rest(again)
    assert again.records == len(found) == 200
    again.settle(positions[:50])
    assert again.records == 150
    again.close()


async def test_one_process_at_a_time(spool: Spool, folder: Path) -> None:
    """The second is told who has it, and starts once the first has given it free."""
    with pytest.raises(StartError, match=rf"in use by process {os.getpid()}: every gateway needs a folder"):
        opened(folder)
    spool.close()
    opened(folder).close()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """A mistyped path, or a file in its place, is named with what is needed; a worker's folder is made."""
    with pytest.raises(StartError, match=r"spool.folder .*/no/such/spool: No such file .*user \d+ may write"):
        opened(tmp_path / "no" / "such" / "spool")
    opened(tmp_path / "spool" / "worker-0").close()
    assert mode(tmp_path / "spool") == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="file: File exists"):
        opened(tmp_path / "file")
