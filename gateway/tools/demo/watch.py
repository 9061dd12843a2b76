"""What the gateway says of itself: ``/status`` and ``/metrics``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import aiohttp

from gateway.observability.metrics import LIVE

_SAMPLE = re.compile(r"^(\w+?)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'\b(\w++)="([^"]*)"')


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """The gateway's own figures at one moment.

    Attributes:
        books: ``received``, every outcome, ``in_flight`` and ``balance``, over all streams.
        components: state of each, by name.
        dead_letters: count by reason.
        p50: median of the time from batch to commit, in seconds, since the start; None before the first.
        p99: the same for the slowest hundredth.
    """

    books: Mapping[str, int]
    ready: bool
    components: Mapping[str, str]
    dead_letters: Mapping[str, int]
    rows: int
    p50: float | None
    p99: float | None

    @property
    def balanced(self) -> bool:
        """Whether the conservation law holds."""
        return self.books["balance"] == 0


class DaemonWatch:
    """Asks the daemon over HTTP."""

    def __init__(self, port: int) -> None:
        self._session = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=5), raise_for_status=True
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def look(self) -> Snapshot | None:
        """The figures now; None when the daemon does not answer."""
        try:
            async with self._session.get("/status") as answer:
                status = await answer.json()
            async with self._session.get("/metrics") as answer:
                samples = parse(await answer.text())
        except (aiohttp.ClientError, TimeoutError):
            return None
        return _snapshot(status, samples)

    async def ready(self) -> bool:
        """Whether messages would flow."""
        seen = await self.look()
        return seen is not None and seen.ready


Sample = tuple[str, dict[str, str], float]
"""Name, labels, value."""


def parse(text: str) -> list[Sample]:
    """The samples of Prometheus' text format, as far as the gateway uses it: no escapes in labels."""
    found = _SAMPLE.findall(text)
    return [(name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in found]


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """A quantile of a histogram, straight within its bucket, as Prometheus reckons it.

    Args:
        share: 0.99 for p99.
        buckets: upper limit and cumulative count, rising; the last limit is infinite.
    """
    rank = share * buckets[-1][1] if buckets else 0
    if rank == 0:
        return None
    low, below = 0.0, 0.0
    for limit, count in buckets:
        if count >= rank:
            return low if limit == float("inf") else low + (limit - low) * (rank - below) / (count - below)
        low, below = limit, count
    return None


def _snapshot(status: Mapping[str, Any], samples: Sequence[Sample]) -> Snapshot:
    commits = [
        (labels, value)
        for name, labels, value in samples
        if name == "gateway_commit_seconds_bucket" and labels["path"] == LIVE
    ]
    buckets = [(float(labels["le"]), value) for labels, value in commits]
    dead_letters: dict[str, int] = {}
    for name, labels, value in samples:
        if name == "gateway_dead_letters_total":
            dead_letters[labels["reason"]] = dead_letters.get(labels["reason"], 0) + int(value)
    return Snapshot(
        books=status["total"],
        ready=status["ready"],
        components={name: component["state"] for name, component in status["components"].items()},
        dead_letters=dead_letters,
        rows=int(status["figures"]["rows"]),
        p50=quantile(0.5, buckets),
        p99=quantile(0.99, buckets),
    )
