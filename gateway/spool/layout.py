r"""What lies in the spool's folder: names of files, and how a segment begins.

::

    <number>.segment            17 digits: µs since the Unix epoch at its creation, never less than its predecessor's
    <number>.segment.corrupt    the damaged bytes of that segment, at the same offsets; the rest is a hole
    session                     the client id's session, JSON (:class:`gateway.sessions.tracking.SessionState`)
    suspects                    how the last process ended, and by which message (:mod:`gateway.ingest.suspects`)

    segment = header | frame | frame | …
    header  = magic "GWSPOOL\n" | version u32 | created_us u64 | epoch, 16 bytes | crc32c u32 of what precedes

Nothing that is needed to read the frames depends on the header: with a damaged header all records survive, and
only the epoch of their process is unknown.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import google_crc32c
import msgspec

from gateway.spool.disk import LOCK, SESSION, SESSION_NEW, SUSPECTS, TRIAL, Disk

VERSION = 1
NO_EPOCH = bytes(16)
_MAGIC = b"GWSPOOL\n"
_HEADER = struct.Struct("<8sIQ16s")
_CHECK = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CHECK.size

_OF_A_WORKER = re.compile(r"worker-\d+")
"""Spools of their own, in the folder of the supervisor's."""
_NAME = re.compile(r"(\d{17})\.segment(\.corrupt)?")


def name_of(number: int) -> str:
    """The file name of a segment; names sort by age."""
    return f"{number:017d}.segment"


def quarantine_name(number: int) -> str:
    """The file name for the damaged bytes of a segment."""
    return name_of(number) + ".corrupt"


def header(created_us: int, epoch: bytes) -> bytes:
    """The first bytes of a segment file."""
    content = _HEADER.pack(_MAGIC, VERSION, created_us, epoch)
    return content + _CHECK.pack(google_crc32c.value(content))


class Header(msgspec.Struct, frozen=True):
    """What a header says; a damaged one is taken to be of our version, and of an unknown process."""

    version: int = VERSION
    epoch: bytes = NO_EPOCH
    damaged: bool = False


def read_header(content: bytes) -> Header:
    """The header at the beginning of these bytes."""
    fields = content[: _HEADER.size]
    if content[_HEADER.size : HEADER_BYTES] != _CHECK.pack(google_crc32c.value(fields)):
        return Header(damaged=True)
    _, version, _, epoch = _HEADER.unpack(fields)
    return Header(version, epoch)


class Listing(msgspec.Struct, frozen=True):
    r"""What lies in the folder: numbers of segments, and of those with quarantined bytes; names of the rest."""

    segments: Sequence[int]
    quarantined: Sequence[int]
    unknown: Sequence[str]


def listing(disk: Disk) -> Listing:
    """Look what lies in the folder; segments oldest first."""
    segments: list[int] = []
    quarantined: list[int] = []
    unknown: list[str] = []
    for name in sorted(disk.names()):
        match = _NAME.fullmatch(name)
        if match:
            (quarantined if match[2] else segments).append(int(match[1]))
        elif name not in (LOCK, SESSION, SESSION_NEW, SUSPECTS, TRIAL) and not _OF_A_WORKER.fullmatch(name):
            unknown.append(name)
    return Listing(segments, quarantined, unknown)
