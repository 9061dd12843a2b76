"""What lies in a spool's folder: segments, records, the session's state."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import digest
from gateway.sessions.tracking import SessionState
from gateway.settings import SpoolSettings as Options
from gateway.spool import inspection, layout, records
from gateway.spool.disk import SESSION
from gateway.spool.records import HEAD_BYTES, Record
from gateway.spool.session_file import SessionFile
from gateway.spool.spool import Spool
from tests.support.fuzzing import attempt, fuzzed, spoiled
from tests.unit.spool.forgetful import ForgetfulDisk
from tests.unit.spool.spooling import record, rest

NUMBER = 17
OPTIONS = Options.model_construct(max_bytes=2**20, segment_bytes=2**16)
_MARK = bytes([0x90 | len(Record.__struct_fields__)])


def segment_of(found: list[Record], number: int = NUMBER) -> tuple[bytes, list[int]]:
    """A segment file with these records, and where each frame begins."""
    bodies = list(map(records.encode, found))
    offsets, at = [], layout.HEADER_BYTES
    for body in bodies:
        offsets.append(at)
        at += HEAD_BYTES + len(body)
    frames = records.frames(bodies, records.seed(number), layout.HEADER_BYTES)
    return layout.header(1, bytes(16)) + b"".join(frames), offsets


FEW = [record(number) for number in range(5)]
LARGE = [record(1), record(2, b"x" * 30_000), record(3, _MARK * 3_000), record(4, b"\0" * 5_000), record(5)]
SEGMENTS = [segment_of(found) for found in (FEW, LARGE, [], [record(1, _MARK * 100)] * 3)]
CONTENTS = [content for content, _ in SEGMENTS]
TOKENS = [
    b"\0", b"\xff", _MARK, b"\x9b", b"\xff\xff\0\0", b"\0\x01\0\0", b"\x10\0\0\0\0\0\0\0" + _MARK, b"GWSPOOL\n",
    b"\0\x80\0\0\0\0\0\0" + _MARK, b"\xc4\xff", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xa5hello",
    records.encode(record(9)),
]  # fmt: skip


def drained(content: bytes) -> list[Record]:
    """What a process that starts on this segment hands out; all is settled then, and nothing is left."""
    disk = ForgetfulDisk(random.Random(0))
    disk.create(layout.name_of(NUMBER)).write(0, content)
    spool = Spool(Path("/nowhere"), OPTIONS, digest, disk=disk)
    spool.open()
    found, positions = rest(spool)
    spool.settle(positions)
    assert spool.empty
    assert spool.size_bytes == 0
    spool.close()
    return found


@fuzzed
@given(spoiled(CONTENTS, TOKENS))
def test_segments(content: bytes) -> None:
    """Whatever a segment holds: the start succeeds, what can be read is handed out, the file is gone in the end."""
    found = attempt("spool segments", lambda: drained(content))
    assert isinstance(found, list)


@fuzzed
@given(st.sampled_from(SEGMENTS[:2]), st.data())
def test_no_record_is_lost(segment: tuple[bytes, list[int]], data: st.DataObject) -> None:
    """Bytes that are overwritten cost the records that they belong to; all others are handed out, in order."""
    content, offsets = segment
    spoilt = bytearray(content)
    places = data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), _OVER), max_size=4))
    for at, over in places:
        spoilt[at : at + len(over)] = over[: len(content) - at]
    ends = [*offsets[1:], len(content)]
    whole = [
        body
        for start, end in zip(offsets, ends, strict=True)
        if spoilt[start:end] == content[start:end]
        and (body := records.decode(content[start + HEAD_BYTES : end]))
    ]
    found = attempt("spool losses", lambda: drained(bytes(spoilt)))
    assert whole == found


_OVER = st.binary(min_size=1, max_size=8) | st.builds(
    lambda token, times: token * times, st.sampled_from(TOKENS), st.sampled_from([1, 10, 500])
)


def looked_at(folder: Path) -> tuple[inspection.SpoolStatus, inspection.Verification, list[Record]]:
    """All that ``gateway spool`` tells of a folder."""
    status, verdict = inspection.status(folder, 2**20), inspection.verify(folder)
    return status, verdict, list(inspection.read(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the one segment that is looked at."""
    return tmp_path_factory.mktemp("spool")


@fuzzed
@given(content=spoiled(CONTENTS, TOKENS))
def test_looking_at_them(folder: Path, content: bytes) -> None:
    """``gateway spool`` finds the records that a start would find, and changes nothing."""
    file = folder / layout.name_of(NUMBER)
    file.write_bytes(content)
    found = attempt("spool looked at", lambda: looked_at(folder))
    assert isinstance(found, tuple)
    assert found[2] == drained(content)
    assert found[1].records == len(found[2])
    assert file.read_bytes() == content


@fuzzed
@given(spoiled([records.encode(one) for one in [*FEW, record(7, b"x" * 300)]], TOKENS))
def test_records(body: bytes) -> None:
    """A record, which is the same when it is written again; or none."""
    found = attempt("spool records", lambda: records.decode(body))
    assert not isinstance(found, Exception)
    if found is not None:
        assert records.decode(records.encode(found)) == found


STATES = [
    msgspec.json.encode(SessionState(bytes(range(16)), number, True, 1_763_640_000_000_000, ("t/+/+",)))
    for number in (0, 70_000, 2**40)
]


@fuzzed
@given(
    spoiled(
        STATES, [b"{", b"[", b'"', b"\\u0000", b"-", b"9", b"1e308", b"null", b'"confirmed":', b"=", b"\xff"]
    )
)
def test_session_files(content: bytes) -> None:
    """A state that can be saved again, in a database too; or none."""
    disk = ForgetfulDisk(random.Random(0))
    disk.create(SESSION).write(0, content)
    found = attempt("spool session", SessionFile(disk).read)
    if found is not None:
        assert isinstance(found, SessionState)
        assert len(found.session) == 16
        assert all(0 <= number < 2**62 for number in (found.confirmed, found.at_us))
        assert msgspec.json.decode(msgspec.json.encode(found), type=SessionState) == found
