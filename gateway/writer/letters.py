"""Dead letters on their way into their table, in the transaction of the batch they came with."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import clock, settings
from gateway.messages import DeadLetter
from gateway.observability import events
from gateway.storage import pools
from gateway.writer import dead_letter_sql, rows

_ROW_BYTES = 512
"""What a dead letter takes in its table and indexes beside its texts."""
_LONGEST_NAME = 255


class Letters:
    """Writes dead letters, as much of them as is kept.

    A device that has had its share of the hour has its letters counted, in the same transaction.
    """

    def __init__(self, options: settings.DeadLettersSettings) -> None:
        self._largest, self._share = options.max_payload_bytes, options.max_bytes_per_device
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
            records = [_record(letter, self._largest) for letter in fresh]
            with pools.statement("COPY dead_letters"):
                await connection.copy_records_to_table(
                    "dead_letters", records=records, columns=dead_letter_sql.COLUMNS
                )
        await _note_failed_replays(connection, letters)

    async def insert(self, connection: Any, letters: Sequence[DeadLetter]) -> None:
        """The same where some may be there already."""
        if fresh := await self._kept(connection, letters):
            with pools.statement("INSERT INTO dead_letters"):
                await connection.executemany(
                    dead_letter_sql.INSERT, [_record(letter, self._largest) for letter in fresh]
                )
        await _note_failed_replays(connection, letters)

    async def _kept(self, connection: Any, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those that are new and within the share of their devices."""
        self._not_kept.clear()
        groups: defaultdict[bytes, list[DeadLetter]] = defaultdict(list)
        for letter in letters:
            if not letter.replay_failed:
                groups[_device_key(letter)].append(letter)
        if not groups:
            return []
        with pools.statement("INSERT INTO dead_letter_hours"):
            before = await self._enter(connection, groups)
        kept: list[DeadLetter] = []
        beyond: dict[bytes, int] = {}
        for key, group in groups.items():
            within = self._within(group, before[key])
            kept += within
            if left := group[len(within) :]:
                beyond[key] = len(left)
                self._not_kept[left[0].stream] += len(left)
        if beyond:
            await connection.execute(dead_letter_sql.COUNT_NOT_KEPT, list(beyond), list(beyond.values()))
        return kept

    async def _enter(self, connection: Any, groups: Mapping[bytes, Sequence[DeadLetter]]) -> dict[bytes, int]:
        """Bytes of each device's letters in this hour before these."""
        firsts = [group[0] for group in groups.values()]
        sizes = {key: sum(map(self._size, group)) for key, group in groups.items()}
        found = await connection.fetch(
            dead_letter_sql.ENTER_BYTES,
            list(groups),
            [one.stream for one in firsts],
            [_short(one.tenant) for one in firsts],
            [_short(one.device) for one in firsts],
            list(sizes.values()),
        )
        return {record["key"]: record["bytes"] - sizes[record["key"]] for record in found}

    def _within(self, group: Sequence[DeadLetter], before: int) -> Sequence[DeadLetter]:
        """The first of them, as many as the share has room for."""
        ends = itertools.accumulate(map(self._size, group), initial=before)
        return group[: sum(end <= self._share for end in itertools.islice(ends, 1, None))]

    def _size(self, letter: DeadLetter) -> int:
        message = letter.message
        properties = sum(len(name) + len(value) for name, value in message.user_properties)
        return min(len(message.payload), self._largest) + len(message.topic) + properties + _ROW_BYTES


def _device_key(letter: DeadLetter) -> bytes:
    """Of one device of a stream; where none is named, of a topic."""
    source = (letter.tenant, letter.device) if letter.device else letter.message.topic
    text = repr((letter.stream, source)).encode("utf-8", "backslashreplace")
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
        letter.id,
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
    if text is None:
        return None
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
