"""The metrics, and the only module that imports the metrics library.

What the path counts per message lives in :class:`gateway.outcomes.Tally` and in plain attributes; they are
read at a scrape. Only per-batch things are prometheus objects. ``docs/metrics.md`` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from gateway.outcomes import Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# They would double the number of series, and say no more than process_start_time_seconds.
disable_created_metrics()  # type: ignore[no-untyped-call]
registry = CollectorRegistry()
ProcessCollector(registry=registry)

LIVE, SPOOL = "live", "spool"
"""The paths of a batch: from the broker, or drained from the disk. Quantiles of both together say nothing of either."""

commit_seconds = Histogram(
    "gateway_commit_seconds",
    "Time from handing a batch to the database to its commit.",
    ["path"],
    registry=registry,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
batch_messages = Histogram(
    "gateway_batch_messages",
    "Messages in a committed batch.",
    ["path"],
    registry=registry,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
)
for _path in (LIVE, SPOOL):  # there from the beginning, or the first change would be no increase
    commit_seconds.labels(_path)
    batch_messages.labels(_path)
rows = Counter("gateway_rows", "Rows written to telemetry tables.", ["path"], registry=registry)
dead_letters = Counter(
    "gateway_dead_letters", "Dead letters written, by reason.", ["stream", "reason"], registry=registry
)
dead_letters_not_kept = Counter(
    "gateway_dead_letters_not_kept",
    "Dead letters that were only counted: their device, or all that are unknown, had too many within the hour.",
    ["stream"],
    registry=registry,
)
dead_letters_prevail = Gauge(
    "gateway_dead_letters_prevail",
    "1 while more of a stream's messages become dead letters than watchdog.dead_letter_share.",
    ["stream"],
    registry=registry,
)
ignored = Counter(
    "gateway_ignored",
    "Messages ignored by configuration, by reason.",
    ["stream", "reason"],
    registry=registry,
)
flagged = Counter(
    "gateway_flagged",
    "Violations found in readings that are stored all the same, by reason.",
    ["stream", "reason"],
    registry=registry,
)
store_errors = Counter(
    "gateway_store_errors", "Errors of the databases, by verdict.", ["verdict", "sqlstate"], registry=registry
)
held_back = Counter(
    "gateway_held_back",
    "Messages set apart because they fail although the server works, by where they then are.",
    ["where"],
    registry=registry,
)
readings_overwritten = Counter(
    "gateway_readings_overwritten",
    "Readings that met another of the same device and time with other values, of which one was kept.",
    ["stream"],
    registry=registry,
)
message_ids_reused = Counter(
    "gateway_message_ids_reused",
    "Messages with an id that another message had, with another payload.",
    ["stream"],
    registry=registry,
)
spool_corrupt = Counter(
    "gateway_spool_corrupt", "Damaged places found in the spool and quarantined.", registry=registry
)
reconnects = Counter(
    "gateway_mqtt_reconnects", "Connections to the broker made after the first.", registry=registry
)
sessions_lost = Counter(
    "gateway_mqtt_sessions_lost",
    "Sessions of ours that the broker had and has no more.",
    registry=registry,
)
connected = Gauge("gateway_mqtt_connected", "1 while connected and subscribed.", registry=registry)
registry_hits = Counter("gateway_registry_hits", "Messages whose device the cache knew.", registry=registry)
registry_misses = Counter(
    "gateway_registry_misses", "Device look-ups that needed the database.", registry=registry
)

Gauges = Mapping[str, tuple[str, Callable[[], float]]]
"""Name to description and how to read it."""


def spool_gauges(*, records: Callable[[], float], size_bytes: Callable[[], float], max_bytes: int) -> Gauges:
    """The gauges of the disk spool, each read at a scrape."""
    return {
        "gateway_spool_messages": ("Messages on disk, not drained yet.", records),
        "gateway_spool_bytes": ("Bytes on disk, drained messages among them.", size_bytes),
        "gateway_spool_max_bytes": ("Most bytes on disk: spool.max_bytes.", lambda: max_bytes),
    }


def path_gauges(
    *,
    backlog_messages: Callable[[], float],
    backlog_bytes: Callable[[], float],
    held_back: Callable[[], float],
    reading_paused: Callable[[], float],
    registry_entries: Callable[[], float],
    registry_topics: Callable[[], float],
    tasks: Callable[[], float],
) -> Gauges:
    """The gauges of the path, each read at a scrape."""
    return {
        "gateway_backlog_messages": ("Messages held in memory, not yet committed.", backlog_messages),
        "gateway_backlog_bytes": ("Bytes held in memory, not yet committed.", backlog_bytes),
        "gateway_held_back_messages": (
            "Messages set apart that the database refuses although it works, tried again slowly.",
            held_back,
        ),
        "gateway_reading_paused": ("1 while back-pressure keeps the socket unread.", reading_paused),
        "gateway_registry_entries": ("Devices in the cache, known and unknown ones.", registry_entries),
        "gateway_registry_topics": ("Topics of which stream and device are remembered.", registry_topics),
        "gateway_tasks": ("Tasks of the event loop; a number that keeps growing is a leak.", tasks),
    }


class PathCollector(Collector):
    """Reads the books of the path at a scrape."""

    def __init__(
        self, tallies: Mapping[str, Tally], gauges: Gauges, in_flight: Callable[[], Mapping[str, int]]
    ) -> None:
        self._tallies, self._gauges, self._in_flight = tallies, gauges, in_flight

    def collect(self) -> Iterable[Metric]:
        """The conservation counters per stream, and the gauges."""
        yield from self._books()
        for name, (description, read) in self._gauges.items():
            yield GaugeMetricFamily(name, description, value=read())

    def _books(self) -> Iterable[Metric]:
        received = CounterMetricFamily("gateway_messages_received", "Messages received.", labels=["stream"])
        qos0 = CounterMetricFamily("gateway_messages_qos0", "Of those, received at QoS 0.", labels=["stream"])
        settled = CounterMetricFamily(
            "gateway_messages_settled", "Messages settled, by outcome.", labels=["stream", "outcome"]
        )
        flying = GaugeMetricFamily(
            "gateway_messages_in_flight", "Messages received, not settled.", labels=["stream"]
        )
        missing = GaugeMetricFamily(
            "gateway_messages_unaccounted", "Messages the books miss; not 0 is a defect.", labels=["stream"]
        )
        held = self._in_flight()
        for stream, tally in self._tallies.items():
            in_flight = held.get(stream, 0)
            received.add_metric([stream], tally.received)
            qos0.add_metric([stream], tally.qos0)
            flying.add_metric([stream], in_flight)
            missing.add_metric([stream], tally.balance(in_flight))
            for outcome, count in tally.settled.items():
                settled.add_metric([stream, outcome.value], count)
        return received, qos0, settled, flying, missing


class DrainCollector(Collector):
    """How messages ended that had been spooled."""

    def __init__(self, drained: Mapping[str, Tally]) -> None:
        self._drained = drained

    def collect(self) -> Iterable[Metric]:
        """One counter, by stream and outcome."""
        ended = CounterMetricFamily(
            "gateway_spool_drained", "Spooled messages drained, by outcome.", labels=["stream", "outcome"]
        )
        for stream, tally in self._drained.items():
            for outcome, count in tally.settled.items():
                ended.add_metric([stream, outcome.value], count)
        yield ended


class StateCollector(Collector):
    """Which version runs, and whether each component is ready.

    Args:
        ready: component name to whether it is ready, asked at every scrape.
    """

    def __init__(self, version: str, ready: Callable[[], Mapping[str, bool]]) -> None:
        self._version, self._ready = version, ready

    def collect(self) -> Iterable[Metric]:
        """Version and readiness."""
        yield InfoMetricFamily("gateway_build", "What runs.", {"version": self._version})
        ready = GaugeMetricFamily(
            "gateway_component_ready", "1 while the component works.", labels=["component"]
        )
        for component, works in self._ready().items():
            ready.add_metric([component], works)
        yield ready


class _All(Collector):
    def __init__(self, collectors: tuple[Collector, ...]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterable[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


def exposition(*more: Collector) -> bytes:
    """Everything of :data:`registry`, and of ``more``, in Prometheus' text format (:data:`CONTENT_TYPE`)."""
    return generate_latest(_All((registry, *more)))


def total(counter: Counter) -> float:
    """Sum of a counter over all of its labels."""
    return sum(sample.value for sample in _samples(counter, "_total"))


def by_stream(counter: Counter) -> dict[str, dict[str, int]]:
    """A counter labelled by stream and reason: what is not zero."""
    found: dict[str, dict[str, int]] = {}
    for sample in _samples(counter, "_total"):
        if sample.value:
            found.setdefault(sample.labels["stream"], {})[sample.labels["reason"]] = int(sample.value)
    return found


def summary(histogram: Histogram) -> dict[str, float | None]:
    """``count``, and ``mean``, ``p50``, ``p99`` since the start; None while nothing was observed.

    Quantiles are upper bounds: the bucket limit below which that share lies; None beyond the last limit.
    """
    count = next(iter(_samples(histogram, "_count"))).value
    mean = next(iter(_samples(histogram, "_sum"))).value / count if count else None
    return {
        "count": count,
        "mean": mean,
        "p50": _quantile(histogram, 0.5 * count),
        "p99": _quantile(histogram, 0.99 * count),
    }


def _quantile(histogram: Histogram, rank: float) -> float | None:
    limits = ((float(s.labels["le"]), s.value) for s in _samples(histogram, "_bucket"))
    reached = next((limit for limit, below in limits if below >= rank > 0), None)
    return reached if reached != float("inf") else None


def _samples(metric: Counter | Histogram, suffix: str) -> list[Sample]:
    return [
        sample for family in metric.collect() for sample in family.samples if sample.name.endswith(suffix)
    ]
