"""Dead letters on their way into their table, in the transaction of the batch they came with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway import clock
from gateway.messages import DeadLetter
from gateway.storage import pools
from gateway.writer import rows

_COLUMNS = (
    "id", "received_at", "stream", "topic", "payload", "reason", "detail", "tenant", "device", "qos", "retained",
    "properties",
)  # fmt: skip
_INSERT = (
    f"INSERT INTO dead_letters ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(_COLUMNS) + 1))}) ON CONFLICT (id) DO NOTHING"
)

_FAILED_AGAIN = """
UPDATE dead_letters SET replays = replays + 1, replayed_at = now(), replay_outcome = 'dead_lettered',
  stream = $2, reason = $3, detail = $4, tenant = $5, device = $6
WHERE id = $1 AND (replay_outcome IS NULL OR replay_outcome NOT IN ('stored', 'duplicate'))
"""


async def copy(connection: Any, letters: Sequence[DeadLetter]) -> None:
    """Write dead letters of which none can be there yet, in the caller's transaction."""
    fresh = [_record(letter) for letter in letters if not letter.again]
    if fresh:
        columns = _COLUMNS
        with pools.statement("COPY dead_letters"):
            await connection.copy_records_to_table("dead_letters", records=fresh, columns=columns)
    await _note_again(connection, letters)


async def insert(connection: Any, letters: Sequence[DeadLetter]) -> None:
    """The same where some may be there already."""
    fresh = [_record(letter) for letter in letters if not letter.again]
    if fresh:
        with pools.statement("INSERT INTO dead_letters"):
            await connection.executemany(_INSERT, fresh)
    await _note_again(connection, letters)


async def _note_again(connection: Any, letters: Sequence[DeadLetter]) -> None:
    """Replays that failed stay the dead letters they were."""
    again = [_again_record(letter) for letter in letters if letter.again]
    if again:
        await connection.executemany(_FAILED_AGAIN, again)


def _record(letter: DeadLetter) -> Sequence[object]:
    """The columns of a dead letter, in the order of ``_COLUMNS``."""
    message = letter.message
    properties = [[_sayable(name), _sayable(value)] for name, value in message.user_properties]
    return (
        letter.id,
        clock.to_datetime(letter.received_us),
        letter.stream,
        _sayable(message.topic),
        message.payload,
        letter.reason.value,
        _sayable(letter.detail),
        _sayable(letter.tenant),
        _sayable(letter.device),
        0 if message.packet_id is None else 1,
        message.retain,
        rows.to_json(properties).decode() if properties else None,
    )


def _again_record(letter: DeadLetter) -> Sequence[object]:
    """The arguments of ``_FAILED_AGAIN``."""
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
