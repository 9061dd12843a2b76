"""The metrics, and the only module that imports the metrics library.

What the path counts per message lives in :class:`gateway.outcomes.Tally` and in plain attributes; they are read when
somebody scrapes. Only per-batch things are prometheus objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.outcomes import Tally

registry = CollectorRegistry()

commit_seconds = Histogram(
    "gateway_commit_seconds",
    "Time from handing a batch to the database to its commit.",
    registry=registry,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
batch_messages = Histogram(
    "gateway_batch_messages",
    "Messages in a committed batch.",
    registry=registry,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
)
rows = Counter("gateway_rows", "Rows written to telemetry tables.", registry=registry)
dead_letters = Counter(
    "gateway_dead_letters", "Dead letters written, by reason.", ["stream", "reason"], registry=registry
)
ignored = Counter("gateway_ignored", "Messages ignored by configuration, by reason.", ["stream", "reason"], registry=registry)
store_errors = Counter("gateway_store_errors", "Errors of the databases, by verdict.", ["verdict", "sqlstate"], registry=registry)
reconnects = Counter("gateway_mqtt_reconnects", "Connections to the broker made after the first.", registry=registry)
connected = Gauge("gateway_mqtt_connected", "1 while connected and subscribed.", registry=registry)
registry_hits = Counter("gateway_registry_hits", "Device look-ups answered by the cache.", registry=registry)
registry_misses = Counter("gateway_registry_misses", "Device look-ups that needed the database.", registry=registry)


class PathCollector(Collector):
    """Reads the books of the path when somebody scrapes."""

    def __init__(self, tallies: Mapping[str, Tally], gauges: Mapping[str, tuple[str, Callable[[], float]]],
                 in_flight: Callable[[], Mapping[str, int]]) -> None:
        self._tallies, self._gauges, self._in_flight = tallies, gauges, in_flight

    def collect(self) -> Iterable[Any]:
        """The conservation counters per stream, and the gauges."""
        received = CounterMetricFamily("gateway_messages_received", "Messages received.", labels=["stream"])
        qos0 = CounterMetricFamily("gateway_messages_qos0", "Of those, received at QoS 0.", labels=["stream"])
        settled = CounterMetricFamily(
            "gateway_messages_settled", "Messages settled, by outcome.", labels=["stream", "outcome"]
        )
        flying = GaugeMetricFamily("gateway_messages_in_flight", "Messages received, not settled.", labels=["stream"])
        held = self._in_flight()
        for stream, tally in self._tallies.items():
            received.add_metric([stream], tally.received)
            qos0.add_metric([stream], tally.qos0)
            flying.add_metric([stream], held.get(stream, 0))
            for outcome, count in tally.settled.items():
                settled.add_metric([stream, outcome.value], count)
        yield from (received, qos0, settled, flying)
        for name, (description, read) in self._gauges.items():
            yield GaugeMetricFamily(name, description, value=read())


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    return generate_latest(registry)
