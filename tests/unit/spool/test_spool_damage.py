"""Damage costs what is damaged, and nothing else."""

from __future__ import annotations

import random
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.messages import digest
from gateway.settings import SpoolSettings as Options
from gateway.spool import layout, records
from gateway.spool.reader import Reader
from gateway.spool.records import HEAD_BYTES
from gateway.spool.recovery import Recovery
from gateway.spool.spool import Spool
from tests.unit.spool.forgetful import ForgetfulDisk
from tests.unit.spool.spooling import SMALL, names, numbers, opened, record, rest, segments

SECONDS = 4.0
"""Of CPU, in which a start finds out what is damaged."""
WIDE = Options(segment_bytes=8 * 2**20)


@pytest.fixture
async def written(tmp_path: Path) -> Path:
    """A spool of six records in one segment, closed."""
    folder = tmp_path / "spool"
    spool = opened(folder)
    await spool.append([record(number) for number in range(6)])
    spool.close()
    return folder


@pytest.fixture
def offsets(written: Path) -> list[int]:
    """Where the six frames begin, and the last one ends."""
    spool = opened(written)
    _, positions = rest(spool)
    spool.close()
    return [offset for _, offset in positions] + [segments(written)[0].stat().st_size]


def damaged(written: Path, change: Callable[[bytearray], None]) -> Path:
    """A copy of the folder in which the segment is changed."""
    folder = written.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(written, folder)
    content = bytearray(segments(folder)[0].read_bytes())
    change(content)
    segments(folder)[0].write_bytes(content)
    return folder


def drained(folder: Path) -> tuple[list[int], Recovery, int]:
    """What a new process finds: numbers of the records, what it says at start, damaged places. All is settled."""
    spool = Spool(folder, SMALL, digest)
    recovery = spool.open()
    found, positions = rest(spool)
    assert all(one == record(one.turn) for one in found)
    spool.settle(positions)
    assert spool.empty
    spool.close()
    assert segments(folder) == []
    return numbers(found), recovery, spool.corrupt


def test_any_flipped_bit_costs_its_record_only(written: Path, offsets: list[int]) -> None:
    """Wherever a bit flips, in lengths, checksums and bodies: the neighbours survive, the bytes are set aside."""
    before = segments(written)[0].read_bytes()
    for place in range(offsets[0], len(before), 5):
        hit = next(n for n, start in enumerate(offsets) if offsets[n + 1] > place)

        def flip(content: bytearray, place: int = place) -> None:
            content[place] ^= 1 << place % 8

        folder = damaged(written, flip)
        aside = folder / f"{segments(folder)[0].name}.corrupt"
        found, recovery, corrupt = drained(folder)
        assert found == [n for n in range(6) if n != hit], place
        assert (corrupt, recovery.torn_bytes > 0) == ((0, True) if hit == 5 else (1, False)), place
        kept = aside.read_bytes()[offsets[hit] : offsets[hit + 1]]
        assert sum(one != other for one, other in zip(kept, before[offsets[hit] :], strict=False)) == 1


def test_a_torn_tail_is_cut(written: Path, offsets: list[int]) -> None:
    """Wherever the last write broke off: what is whole comes, the rest is cut off, once."""
    for length in range(offsets[4], offsets[6]):

        def tear(content: bytearray, length: int = length) -> None:
            del content[length:]

        folder = damaged(written, tear)
        whole = 4 if length < offsets[5] else 5
        spool = Spool(folder, SMALL, digest)
        assert spool.open().torn_bytes == length - offsets[whole]
        spool.close()
        assert segments(folder)[0].stat().st_size == offsets[whole]
        found, recovery, corrupt = drained(folder)
        assert found == list(range(whole))
        assert (recovery.torn_bytes, corrupt) == (0, 0)


def test_zeros_at_the_end_are_a_torn_tail(written: Path) -> None:
    """As file systems leave them, which make a file longer before they write what is in it."""
    found, recovery, _ = drained(damaged(written, lambda content: content.extend(bytes(10_000))))
    assert (found, recovery.torn_bytes) == (list(range(6)), 10_000)


def test_a_damaged_header_costs_no_record(written: Path) -> None:
    """All of them come; only the process that wrote them is unknown, and the damage is told."""
    for place in range(layout.HEADER_BYTES):

        def flip(content: bytearray, place: int = place) -> None:
            content[place] ^= 0x10

        found, _, corrupt = drained(damaged(written, flip))
        assert (found, corrupt) == (list(range(6)), 1), place


def test_a_segment_that_was_just_begun(written: Path) -> None:
    """With no or half a header there is nothing in it, and it goes."""
    for length in (0, 1, layout.HEADER_BYTES - 1, layout.HEADER_BYTES):

        def tear(content: bytearray, length: int = length) -> None:
            del content[length:]

        assert drained(damaged(written, tear))[0] == []


def test_what_is_hidden_in_a_payload_is_no_record(tmp_path: Path, offsets: list[int]) -> None:
    """A payload that holds a frame, valid elsewhere, is not taken for one when its own record is damaged."""
    folder = tmp_path / "spool"
    number = int(segments(folder)[0].stem)
    hidden = b"".join(
        b"".join(records.frames([records.encode(record(100))], records.seed(n), place))
        for n in (number, 0)
        for place in (0, layout.HEADER_BYTES, offsets[1])
    )
    content = bytearray(segments(folder)[0].read_bytes()[: offsets[2]])
    start = records.seed(number)
    content += b"".join(
        records.frames(map(records.encode, [record(2, hidden), record(3)]), start, offsets[2])
    )
    content[offsets[2] + HEAD_BYTES + 1] ^= 1
    segments(folder)[0].write_bytes(content)
    found, _, corrupt = drained(folder)
    assert (found, corrupt) == ([0, 1, 3], 1)


async def test_a_hole_between_large_records(tmp_path: Path) -> None:
    """Sectors that became zeros or noise, over more than is searched at a time: the rest comes."""
    folder = tmp_path / "spool"
    spool = opened(folder, WIDE)
    noise = bytes(hash((n, "noise")) & 0xFF for n in range(150_000))
    await spool.append([record(number, b"x" * 100_000) for number in range(30)])
    spool.close()
    content = bytearray(segments(folder)[0].read_bytes())
    content[550_000:700_000] = bytes(150_000)
    content[1_550_000:1_700_000] = noise
    segments(folder)[0].write_bytes(content)
    spool = opened(folder, WIDE)
    assert numbers(rest(spool, max_bytes=150_000)[0]) == [*range(5), *range(7, 15), *range(17, 30)]
    assert spool.corrupt == 2
    spool.close()


async def test_damage_at_the_end_of_an_older_segment_is_damage(tmp_path: Path) -> None:
    """Only the newest segment can have a torn tail: there, what is not whole was never promised."""
    folder = tmp_path / "spool"
    spool = opened(folder)
    for start in range(0, 60, 10):
        await spool.append([record(start + number) for number in range(10)])
    spool.close()
    first, second = segments(folder)[:2]
    first.write_bytes(first.read_bytes()[:-1])
    found, recovery, corrupt = drained(folder)
    assert len(found) == 59
    assert (recovery.torn_bytes, corrupt) == (0, 1)
    assert names(folder) == [f"{first.name}.corrupt", "lock"]
    assert second.name not in names(folder)


async def test_damage_found_twice_is_set_aside_once(written: Path, offsets: list[int]) -> None:
    """A restart before the segment could be deleted finds the same again."""

    def flip(content: bytearray) -> None:
        content[offsets[1] + 20] ^= 1

    folder = damaged(written, flip)
    spool = opened(folder)
    rest(spool)
    spool.close()
    found, _, _ = drained(folder)
    assert found == [0, 2, 3, 4, 5]
    (aside,) = folder.glob("*.corrupt")
    assert aside.stat().st_size == offsets[2]


def test_damage_found_at_start_is_told_once(written: Path, offsets: list[int]) -> None:
    """By segment and place, as damage is that is found later; to read it again tells nothing new."""

    def flip(content: bytearray) -> None:
        content[offsets[1] + 20] ^= 1

    folder = damaged(written, flip)
    (segment,) = segments(folder)
    with capture_logs() as told:
        drained(folder)
    (place,) = [line for line in told if line["event"] == "spool damaged"]
    assert (place["segment"], place["offset"]) == (segment.name, offsets[1])
    assert place["length"] == offsets[2] - offsets[1]


def test_strange_files_are_left_alone_and_named(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of others, of a newer version, or that are no files, neither stop the start nor are they touched."""
    no_file, newer = written / "00000000000000001.segment", written / "00000000000000002.segment"
    no_file.mkdir()
    with monkeypatch.context() as later:
        later.setattr(layout, "VERSION", 2)
        newer.write_bytes(layout.header(0, bytes(16)) + b"what it means, only that version knows")
    (written / "notes.txt").write_text("mine")
    (written / "worker-3").mkdir()  # a worker's own spool: not strange
    spool = Spool(written, SMALL, digest)
    assert spool.open().unknown == ("notes.txt", no_file.name, newer.name)
    found, positions = rest(spool)
    assert numbers(found) == list(range(6))
    spool.settle(positions)
    spool.close()
    assert names(written) == [no_file.name, newer.name, "lock", "notes.txt", "worker-3"]


def test_the_next_frame_is_found_wherever_it_begins() -> None:
    """Also across the edge of the blocks in which it is searched for."""
    disk = ForgetfulDisk(random.Random(1))
    for length in range(65_400, 65_540):
        bodies = list(map(records.encode, [record(0, b"x" * length), record(1)]))
        content = bytearray(layout.HEADER_BYTES)
        content += b"".join(records.frames(bodies, records.seed(length), len(content)))
        content[layout.HEADER_BYTES] ^= 0xFF
        disk.create(layout.name_of(length)).write(0, bytes(content))
        reader = Reader(disk, length)
        assert [body for _, body in reader.read(len(content), 1000)] == bodies[1:]
        assert reader.damage == {layout.HEADER_BYTES: HEAD_BYTES + len(bodies[0])}


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        (struct.pack("<II", 2**20, 0) + b"\x9c", 2**22),
        (struct.pack("<II", 5, 0) + b"\x9c", 2**22),
        (b"\x9c", 2**22),
    ],
    ids=["long frames", "short frames", "marks"],
)
@pytest.mark.parametrize("torn", [True, False])
async def test_a_payload_made_of_what_may_be_frames(
    tmp_path: Path, unit: bytes, size: int, *, torn: bool
) -> None:
    """Its own record is damaged, and the next one is looked for: seconds at most, and what follows is found."""
    folder, large = tmp_path / "spool", Options.model_construct(max_bytes=2**30, segment_bytes=2**27)
    spool = opened(folder, large)
    await spool.append([record(0), record(1, unit * (size // len(unit))), *([] if torn else [record(2)])])
    spool.close()
    (segment,) = segments(folder)
    content = bytearray(segment.read_bytes())
    if torn:
        del content[-1:]
    else:
        content[segment.stat().st_size - size] ^= 0xFF
    segment.write_bytes(content)
    began = time.process_time()
    spool = opened(folder, large)
    found, _ = rest(spool)
    spool.close()
    assert time.process_time() - began < SECONDS
    assert numbers(found) == ([0] if torn else [0, 2])
