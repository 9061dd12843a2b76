"""Others that do the same, or a part of it, measured in the same bench: figures mean something beside others."""

from __future__ import annotations

from typing import Protocol

from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import Drained
from gateway.tools.bench.shape import Shape


class Rival(Protocol):
    """Somebody who drains a backlog."""

    @property
    def name(self) -> str:
        """As tables show it."""

    def missing(self) -> str | None:
        """Why it cannot run here; None: it can."""

    async def drain(self, bench: Bench, kind: Shape, count: int) -> Drained:
        """Publish a backlog, start the rival, see all of it taken."""
