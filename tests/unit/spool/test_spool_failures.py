"""A disk that is full, fails, or is meddled with: nothing is promised that it does not have, and it recovers."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.errors import SpoolError, StartError
from gateway.messages import digest
from gateway.spool.spool import Spool
from tests.conftest import lacking
from tests.unit.spool.forgetful import ForgetfulDisk
from tests.unit.spool.spooling import SMALL, names, numbers, opened, record, rest, segments


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """No file may grow beyond 8 KiB: the kernel writes what fits, then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 2**10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_write_that_breaks_off_is_cut_off(tmp_path: Path) -> None:
    """Whatever of an append the kernel had taken, nothing of it counts, and what was there before is untouched."""
    spool = opened(tmp_path)
    await spool.append([record(0)])
    with limited(), pytest.raises(SpoolError, match=r"spool.folder .*: File too large"):
        await spool.append([record(1), record(2, b"x" * 3000)] * 3)
    (segment,) = segments(tmp_path)
    assert segment.stat().st_size == spool.size_bytes
    await spool.append([record(3)])
    assert numbers(rest(spool)[0]) == [0, 3]
    spool.close()
    again = opened(tmp_path)
    assert numbers(rest(again)[0]) == [0, 3]
    assert again.corrupt == 0
    again.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "spool-test", place], capture_output=True, check=False
    )
    if mounted.returncode:
        lacking("mount", "no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_full_disk(small_disk: Path) -> None:
    """Nothing counts that did not fit; as soon as there is room, it goes on."""
    spool = opened(small_disk / "spool")
    await spool.append([record(0)])
    filler = small_disk / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(bytes(2**20))
    for _ in range(3):
        with pytest.raises(SpoolError, match="No space left on device"):
            await spool.append([record(1, b"x" * 9000)])
    filler.unlink()
    await spool.append([record(2, b"x" * 9000)])
    found, positions = rest(spool)
    assert numbers(found) == [0, 2]
    spool.settle(positions)
    assert segments(small_disk / "spool") == []
    spool.close()


async def test_a_disk_is_tried_out(small_disk: Path) -> None:
    """While it is full, that is told; with room again nothing is left of the trial, nor of one that a crash left."""
    folder = small_disk / "spool"
    spool = opened(folder)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(bytes(2**20))
    for _ in range(2):
        with pytest.raises(SpoolError, match="No space left on device"):
            await spool.try_out()
    filler.unlink()
    spool.close()
    (folder / "trial").touch()
    again = Spool(folder, SMALL, digest)
    assert again.open().unknown == ()
    await again.try_out()
    assert names(folder) == ["lock"]
    again.close()


def remount(place: Path, how: str) -> None:
    """Make a mounted file system ``ro`` or ``rw``."""
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


async def test_a_read_only_disk(small_disk: Path) -> None:
    """The start says what is wrong with the folder; once that is mended, what was spooled is there."""
    spool = opened(small_disk / "spool")
    await spool.append([record(0)])
    spool.close()
    remount(small_disk, "ro")
    with pytest.raises(StartError, match="Read-only file system: it must be a folder"):
        opened(small_disk / "spool")
    remount(small_disk, "rw")
    again = opened(small_disk / "spool")
    assert numbers(rest(again)[0]) == [0]
    again.close()


def broken(operations: tuple[str, ...]) -> Callable[[ForgetfulDisk], None]:
    """Breaks these operations of a disk."""
    return lambda disk: disk.broken.update(dict.fromkeys(operations, errno.EIO))


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ("write", 3000),
        ("write", 5000),
        ("sync", 3000),
        ("sync", 5000),
        ("sync_folder", 5000),
        ("create", 5000),
    ],
    ids=lambda value: f"new segment: {value == 5000}" if isinstance(value, int) else value,
)
@pytest.mark.parametrize("chance", range(20))
async def test_after_an_error_a_segment_gets_no_more(operation: str, size: int, chance: int) -> None:
    """After a failed fsync a second one proves nothing: it goes on in a new file, after a durable cut."""
    disk = ForgetfulDisk(random.Random(chance))
    spool = opened(Path("/nowhere"), disk=disk)
    await spool.append([record(0)])
    (first,) = disk.names_cached
    before = bytes(disk.names_cached[first].cached)
    broken((operation,))(disk)
    with pytest.raises(SpoolError, match="Input/output error"):
        await spool.append([record(1, b"x" * size) for size in (10, 10, 10, size)])
    disk.broken = {}
    await spool.append([record(2)])
    assert len(disk.names_cached) == 2
    disk.crash()
    assert disk.names_cached[first].cached == before
    again = opened(Path("/nowhere"), disk=disk)
    assert numbers(rest(again)[0]) == [0, 2]
    again.close()


async def test_nothing_is_written_until_a_failed_append_is_cut_off() -> None:
    """When not even the cut succeeds, appends go on failing: what nobody was told of could come back."""
    disk = ForgetfulDisk(random.Random(1))
    spool = opened(Path("/nowhere"), disk=disk)
    await spool.append([record(0)])
    broken(("sync", "truncate"))(disk)
    with pytest.raises(SpoolError):
        await spool.append([record(1)])
    del disk.broken["sync"]
    with pytest.raises(SpoolError):
        await spool.append([record(2)])
    disk.broken = {}
    await spool.append([record(3)])
    disk.crash()
    again = opened(Path("/nowhere"), disk=disk)
    assert numbers(rest(again)[0]) == [0, 3]
    again.close()


async def test_a_segment_that_cannot_be_deleted_is_tried_again() -> None:
    """Meanwhile the spool counts as empty, and its bytes as used."""
    disk = ForgetfulDisk(random.Random(1))
    spool = opened(Path("/nowhere"), disk=disk)
    await spool.append([record(0)])
    disk.broken = {"remove": errno.EROFS}
    spool.settle(rest(spool)[1])
    assert spool.empty
    assert spool.size_bytes > 0
    disk.broken = {}
    assert spool.next_chunk(1) is None
    assert spool.size_bytes == 0
    spool.close()


async def test_a_segment_deleted_under_the_writer(tmp_path: Path) -> None:
    """What would go into a file that nobody can find is refused; the next try is in a new one."""
    spool = opened(tmp_path)
    await spool.append([record(0)])
    segments(tmp_path)[0].unlink()
    with pytest.raises(SpoolError, match="deleted"):
        await spool.append([record(1)])
    await spool.append([record(2)])
    assert numbers(rest(spool)[0]) == [2]
    spool.close()


async def test_a_segment_deleted_before_it_is_drained(tmp_path: Path) -> None:
    """It is lost by whoever deleted it; the others come, and the spool gets empty."""
    spool = opened(tmp_path)
    for start in range(0, 120, 10):
        await spool.append([record(start + number) for number in range(10)])
    lost = segments(tmp_path)[1]
    kept = sum(path.read_bytes().count(b"temperature") for path in segments(tmp_path) if path != lost)
    lost.unlink()
    found, positions = rest(spool)
    assert len(found) == kept < 120
    spool.settle(positions)
    assert spool.empty
    assert (spool.size_bytes, segments(tmp_path)) == (0, [])
    await spool.append([record(0)])
    spool.close()


async def test_a_segment_cut_short_by_somebody(tmp_path: Path) -> None:
    """What is left of it comes; the rest counts as damaged."""
    spool = opened(tmp_path)
    await spool.append([record(number) for number in range(10)])
    segment = segments(tmp_path)[0]
    os.truncate(segment, segment.stat().st_size // 2)
    found, positions = rest(spool)
    assert numbers(found) == list(range(len(found)))
    assert 3 <= len(found) < 10
    assert spool.corrupt == 1
    spool.settle(positions)
    assert spool.empty
    spool.close()


async def test_sectors_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost the records in them; those before and behind come."""
    spool = opened(tmp_path)
    await spool.append([record(number, b"x" * 1000) for number in range(40)])
    whole, bad = os.pread, range(20_480, 24_576)

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if offset < bad.stop and offset + size > bad.start:
            raise OSError(errno.EIO, "Input/output error")
        return whole(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    found, positions = rest(spool)
    missing = sorted(set(range(40)) - set(numbers(found)))
    assert missing == list(range(missing[0], missing[-1] + 1))
    assert 4 <= len(missing) <= 12
    assert spool.corrupt == 1
    spool.settle(positions)
    assert spool.empty
    spool.close()


async def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, nothing is skipped, and when it can be read again, it comes."""
    spool = opened(tmp_path)
    await spool.append([record(0)])
    with monkeypatch.context() as patched:
        denied = OSError(errno.EACCES, "Permission denied")
        patched.setattr(spool._disk, "open_file", lambda _name: (_ for _ in ()).throw(denied))
        with pytest.raises(SpoolError, match="Permission denied"):
            spool.next_chunk(2**20)
    assert numbers(rest(spool)[0]) == [0]
    spool.close()
