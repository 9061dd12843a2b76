"""When rows become visible to other sessions: a connection of the bench's own looks, cheaply and often.

Every load ends with a message of one certain device, so that the end is one look at a key. Only then everything is
counted, until there are as many rows as messages: a run with one more or less fails.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gateway.errors import GatewayError

T = TypeVar("T")

_EVERY = 0.005
_SHARE = 5
"""A look that takes long is followed by a pause that is longer: the looking must not be what is measured."""
_LETTERS_EVERY = 1.0


class MismatchError(GatewayError):
    """There are not as many rows as messages were published."""


@dataclasses.dataclass(frozen=True, slots=True)
class RowsSeen:
    """So many rows at this moment (``time.monotonic``)."""

    when: float
    rows: int


class Sight:
    """Looks at all rows of a table.

    Args:
        connection: to the time-series database; for no other use meanwhile.
        table: its name.
    """

    def __init__(self, connection: Any, table: str) -> None:
        self._connection, self._table = connection, table

    async def count(self) -> int:
        """Rows now; none while there is no such table."""
        if await self._connection.fetchval("SELECT to_regclass($1)", self._table) is None:
            return 0
        rows: int = await self._connection.fetchval(f"SELECT count(*) FROM {self._table}")  # noqa: S608
        return rows

    async def begun(self) -> bool:
        """Whether there is a row; cheaper than to count."""
        return await self.count() > 0

    async def ended(self) -> bool:
        """Whether it is worth while to count."""
        return True

    async def letters(self) -> str:
        """What became dead letters; empty: nothing."""
        return ""

    async def first(self, at_least: int, timeout: float) -> RowsSeen:
        """The first look that sees that many rows.

        Raises:
            MismatchError: there are fewer after ``timeout`` seconds, or dead letters.
        """
        expected = f"{at_least} rows expected"
        await self._until(self.begun, timeout, expected)
        return await self._until(lambda: self._look(at_least), timeout, expected)

    async def all(self, published: int, timeout: float) -> RowsSeen:
        """The first look that sees all rows.

        Raises:
            MismatchError: there are more, or fewer after ``timeout`` seconds, or dead letters.
        """
        expected = f"{published} messages published"
        await self._until(self.ended, timeout, expected)
        seen = await self._until(lambda: self._look(published), timeout, expected)
        if seen.rows != published or await self.letters():
            raise await self._mismatch(expected)
        return seen

    async def _look(self, at_least: int) -> RowsSeen | None:
        when = time.monotonic()
        seen = RowsSeen(when, await self.count())
        return seen if seen.rows >= at_least else None

    async def _until(self, question: Callable[[], Awaitable[T | None]], timeout: float, expected: str) -> T:
        """The first answer that is not empty."""
        began = asked_letters = time.monotonic()
        while True:
            asked = time.monotonic()
            if answer := await question():
                return answer
            if asked - asked_letters > _LETTERS_EVERY:
                asked_letters = asked
                timeout = 0 if await self.letters() else timeout
            if asked - began > timeout:
                raise await self._mismatch(expected)
            await asyncio.sleep(max(_EVERY, _SHARE * (time.monotonic() - asked)))

    async def _mismatch(self, expected: str) -> MismatchError:
        letters = await self.letters()
        return MismatchError(f"{expected}, but {await self.count()} rows{letters and ' and '}{letters} found")


class TelemetrySight(Sight):
    """Looks at the scratch tenant's rows in ``telemetry``.

    Args:
        last: id of the device that ends a load.
        stream: of the dead letters.
    """

    def __init__(self, connection: Any, *, tenant: uuid.UUID, last: uuid.UUID, stream: str) -> None:
        super().__init__(connection, "telemetry")
        self._tenant, self._last, self._stream = tenant, last, stream

    async def count(self) -> int:
        """Rows of the tenant now."""
        query = "SELECT count(*) FROM telemetry WHERE tenant_id = $1"
        rows: int = await self._connection.fetchval(query, self._tenant)
        return rows

    async def begun(self) -> bool:
        """By the index on (tenant, time)."""
        query = "SELECT EXISTS (SELECT FROM telemetry WHERE tenant_id = $1)"
        return bool(await self._connection.fetchval(query, self._tenant))

    async def ended(self) -> bool:
        """By the primary key."""
        query = "SELECT EXISTS (SELECT FROM telemetry WHERE device_id = $1)"
        return bool(await self._connection.fetchval(query, self._last))

    async def letters(self) -> str:
        """How many, and the reason and detail of one."""
        query = "SELECT count(*), min(reason), min(detail) FROM dead_letters WHERE stream = $1"
        letters, reason, detail = await self._connection.fetchrow(query, self._stream)
        return f"{letters} dead letters ({reason}: {detail})" if letters else ""
