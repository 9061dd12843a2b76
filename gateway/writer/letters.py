"""Dead letters on their way into their table, in the transaction of the batch they came with."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway import clock, settings
from gateway.messages import DeadLetter
from gateway.observability import events
from gateway.storage import pools
from gateway.writer import dead_letter_sql, rows

_ROW_BYTES = 512
"""What a dead letter takes in its table and indexes beside its texts."""
_LONGEST_NAME = 255

_Sharers = tuple[str, str | None, str | None]
"""Stream, tenant, device: whose letters share what is kept of an hour; None: all unknown ones of what stands before."""


class Letters:
    """Writes dead letters, as much of them as is kept.

    A device that has had its share of the hour has its letters counted, in the same transaction. Devices that the
    registry does not know have one share together: a client that may publish can name as many as it likes.
    """

    def __init__(self, options: settings.DeadLettersSettings) -> None:
        self._largest = options.max_payload_bytes
        self._of_device, self._of_unknown = options.max_bytes_per_device, options.max_bytes_unknown
        self._not_kept: Counter[str] = Counter()

    def begin(self) -> None:
        """A transaction begins, or the same is tried again."""
        self._not_kept.clear()

    def committed(self) -> None:
        """What was written is there."""
        for stream, count in self._not_kept.items():
            events.dead_letters_not_kept(stream=stream, count=count)
        self._not_kept.clear()

    async def copy(self, connection: Any, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters of which none can be there yet, in the caller's transaction."""
        if fresh := await self._kept(connection, letters):
            with pools.statement("COPY dead_letters"):
                await connection.copy_records_to_table(
                    "dead_letters", records=self._records(fresh), columns=dead_letter_sql.COLUMNS
                )
        await _note_failed_replays(connection, letters)

    async def insert(self, connection: Any, letters: Sequence[DeadLetter]) -> None:
        """The same where some may be there already."""
        if fresh := await self._kept(connection, letters):
            with pools.statement("INSERT INTO dead_letters"):
                await connection.executemany(dead_letter_sql.INSERT, list(self._records(fresh)))
        await _note_failed_replays(connection, letters)

    def _records(self, letters: Sequence[DeadLetter]) -> Iterator[Sequence[object]]:
        """One at a time: those of a batch would be as large as the batch."""
        return (_record(letter, self._largest) for letter in letters)

    async def _kept(self, connection: Any, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those that are new and within their shares."""
        self._not_kept.clear()
        groups: defaultdict[_Sharers, list[DeadLetter]] = defaultdict(list)
        for letter in letters:
            if not letter.replay_failed:
                groups[_sharers(letter)].append(letter)
        if not groups:
            return []
        sizes = {sharers: [self._size(letter) for letter in group] for sharers, group in groups.items()}
        with pools.statement("INSERT INTO dead_letter_hours"):
            before = await _enter(connection, {sharers: sum(each) for sharers, each in sizes.items()})
        kept: list[DeadLetter] = []
        beyond: dict[bytes, int] = {}
        for sharers, group in groups.items():
            share = self._of_unknown if sharers[-1] is None else self._of_device
            count = _within(sizes[sharers], share - before[sharers])
            kept += group[:count]
            if left := len(group) - count:
                beyond[_key(sharers)] = left
                self._not_kept[sharers[0]] += left
        if beyond:
            await connection.execute(dead_letter_sql.COUNT_NOT_KEPT, list(beyond), list(beyond.values()))
        return kept

    def _size(self, letter: DeadLetter) -> int:
        message = letter.message
        size = min(len(message.payload), self._largest) + len(message.topic) + _ROW_BYTES
        if properties := message.user_properties:
            size += sum(len(name) + len(value) for name, value in properties)
        return size


async def _enter(connection: Any, sizes: Mapping[_Sharers, int]) -> dict[_Sharers, int]:
    """Bytes of each of these shares that the hour had before these."""
    by_key = {_key(sharers): sharers for sharers in sizes}
    streams, tenants, devices = zip(*sizes, strict=True)
    found = await connection.fetch(
        dead_letter_sql.ENTER_BYTES,
        list(by_key),
        streams,
        [_short(tenant) for tenant in tenants],
        [_short(device) for device in devices],
        list(sizes.values()),
    )
    return {(one := by_key[record["key"]]): record["bytes"] - sizes[one] for record in found}


def _within(sizes: Sequence[int], room: int) -> int:
    """How many of the first of these there is room for."""
    if sum(sizes) <= room:
        return len(sizes)
    return sum(end <= room for end in itertools.accumulate(sizes))


def _sharers(letter: DeadLetter) -> _Sharers:
    if letter.share == "device":
        return letter.stream, letter.tenant, letter.device
    return letter.stream, letter.tenant if letter.share == "tenant" else None, None


def _key(sharers: _Sharers) -> bytes:
    """Names are longer than an index can hold."""
    stream, *source = sharers
    text = repr((stream, tuple(source))).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=16).digest()


def _short(text: str | None) -> str | None:
    return _sayable(None if text is None else text[:_LONGEST_NAME])


async def _note_failed_replays(connection: Any, letters: Sequence[DeadLetter]) -> None:
    """Replays that failed stay the dead letters they were."""
    again = [_failed_replay(letter) for letter in letters if letter.replay_failed]
    if again:
        await connection.executemany(dead_letter_sql.NOTE_FAILED, again)


def _record(letter: DeadLetter, largest: int) -> Sequence[object]:
    """The columns of a dead letter, in the order of ``dead_letter_sql.COLUMNS``."""
    message = letter.message
    payload, cut = message.payload, len(message.payload) > largest
    properties = [[_sayable(name), _sayable(value)] for name, value in message.user_properties]
    return (
        letter.identity.hex(),
        clock.to_datetime(letter.received_us),
        letter.stream,
        _sayable(message.topic),
        payload[:largest] if cut else payload,
        letter.reason.value,
        _sayable(letter.detail),
        _sayable(letter.tenant),
        _sayable(letter.device),
        0 if message.packet_id is None else 1,
        message.retain,
        rows.to_json(properties).decode() if properties else None,
        len(payload) if cut else None,
        hashlib.sha256(payload).digest() if cut else None,
    )


def _failed_replay(letter: DeadLetter) -> Sequence[object]:
    """The arguments of ``dead_letter_sql.NOTE_FAILED``."""
    return (
        letter.id,
        letter.stream,
        letter.reason.value,
        _sayable(letter.detail),
        _sayable(letter.tenant),
        _sayable(letter.device),
    )


def _sayable(text: str | None) -> str | None:
    """Text that PostgreSQL can hold: no NUL, no lone surrogate. A letter that it refused would hold up all others."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
