"""What can be read off the metrics by ourselves."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.observability import events, metrics


def a_histogram() -> Histogram:
    """One with limits 1, 10 and 100."""
    return Histogram("h", "A histogram.", buckets=(1, 10, 100), registry=CollectorRegistry())


def test_a_histogram_without_observations_claims_nothing() -> None:
    """Before the first batch there is no mean and no quantile, rather than a nought that looks fast."""
    assert metrics.summary(a_histogram()) == {"count": 0, "mean": None, "p50": None, "p99": None}


def test_quantiles_are_upper_bounds() -> None:
    """A quantile is the limit of the bucket that it falls into."""
    histogram = a_histogram()
    for value in [0.5] * 98 + [9, 50]:
        histogram.observe(value)
    assert metrics.summary(histogram) == {"count": 100, "mean": 1.08, "p50": 1, "p99": 10}


def test_a_quantile_beyond_the_last_limit_is_not_claimed() -> None:
    """What lies beyond all buckets has no upper bound."""
    histogram = a_histogram()
    histogram.observe(1000)
    assert metrics.summary(histogram)["p50"] is None


def test_a_total_is_over_all_labels() -> None:
    """The figure shown to people is the sum over all label values."""
    counter = Counter("c", "A counter.", ["reason"], registry=CollectorRegistry())
    counter.labels("a").inc(2)
    counter.labels("b").inc(3)
    assert metrics.total(counter) == 5


def test_live_and_drained_batches_are_told_apart() -> None:
    """A slow drain does not look like slow commits of live messages."""
    before = [metrics.summary(metrics.commit_seconds.labels(path))["count"] for path in ("live", "spool")]
    events.batch_stored(path="spool", messages=1, rows=1, seconds=30)
    after = [metrics.summary(metrics.commit_seconds.labels(path))["count"] for path in ("live", "spool")]
    assert [
        new - old for new, old in zip(after, before, strict=True) if new is not None and old is not None
    ] == [0, 1]
    assert 'gateway_commit_seconds_count{path="live"}' in metrics.exposition().decode()
