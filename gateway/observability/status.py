"""What the daemon says of itself: the books, the components, the figures. Reads only, when asked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway import __version__
from gateway.observability import metrics
from gateway.observability.health import ComponentState, Health
from gateway.observability.pace import Pace
from gateway.outcomes import Outcome, Tally


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Where the daemon's state is read from.

    Attributes:
        health: the components.
        tallies: the books of each stream.
        in_flight: messages received and not settled, by stream, counted where they are held.
        drained: how messages of the spool ended once it was drained, by stream; their books closed when they were
            spooled.
        gauges: see :func:`gateway.observability.metrics.path_gauges`.
        started: seconds since the Unix epoch.
        pace: to be looked at once a second.
    """

    health: Health
    tallies: Mapping[str, Tally]
    in_flight: Callable[[], Mapping[str, int]]
    gauges: metrics.Gauges
    drained: Mapping[str, Tally] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.time)
    pace: Pace = dataclasses.field(default_factory=Pace)

    def as_dict(self) -> dict[str, Any]:
        """What ``/status`` tells; the books are taken in one go, so the equation can be checked."""
        streams = self.books()
        rates = self.pace.rates(self.tallies)
        return {
            "version": __version__,
            "uptime_seconds": round(time.time() - self.started, 1),
            "balanced": all(book["balance"] == 0 for book in streams.values()),
            "total": _total(streams),
            "streams": streams,
            "rates": rates,
            "last_message_at": self.pace.last_message_at,
            "dead_letters": metrics.by_stream(metrics.dead_letters),
            "drained": {stream: tally.settled for stream, tally in self.drained.items()},
            **self.health.as_dict(),
            "figures": self._figures(),
        }

    def books(self) -> dict[str, dict[str, int]]:
        """By stream: ``received``, each outcome, ``in_flight``, ``balance`` (unaccounted for), ``qos0``."""
        held = self.in_flight()
        return {stream: _book(tally, held.get(stream, 0)) for stream, tally in self.tallies.items()}

    def exposition(self) -> bytes:
        """What ``/metrics`` tells."""
        return metrics.exposition(
            metrics.PathCollector(self.tallies, self.gauges, self.in_flight),
            metrics.DrainCollector(self.drained),
            metrics.StateCollector(__version__, self._ready),
        )

    def _ready(self) -> dict[str, bool]:
        components = self.health.as_dict()["components"]
        return {name: component["state"] == ComponentState.READY for name, component in components.items()}

    def _figures(self) -> dict[str, Any]:
        return {
            "rows": metrics.total(metrics.rows),
            **_of_batches(metrics.LIVE, ""),
            **(_of_batches(metrics.SPOOL, "spool_") if self.drained else {}),
            "reconnects": metrics.total(metrics.reconnects),
            "store_errors": metrics.total(metrics.store_errors),
            "registry_hits": metrics.total(metrics.registry_hits),
            "registry_misses": metrics.total(metrics.registry_misses),
            **{name.removeprefix("gateway_"): read() for name, (_, read) in self.gauges.items()},
        }


def _of_batches(path: str, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}commit_seconds": metrics.summary(metrics.commit_seconds.labels(path)),
        f"{prefix}batch_messages": metrics.summary(metrics.batch_messages.labels(path)),
    }


def _book(tally: Tally, in_flight: int) -> dict[str, int]:
    return {
        "received": tally.received,
        **{outcome.value: tally.settled[outcome] for outcome in Outcome},
        "in_flight": in_flight,
        "balance": tally.balance(in_flight),
        "qos0": tally.qos0,
    }


def _total(streams: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    names = ("received", *(outcome.value for outcome in Outcome), "in_flight", "balance", "qos0")
    return {name: sum(book[name] for book in streams.values()) for name in names}
