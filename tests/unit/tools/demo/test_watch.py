"""What the gateway says of itself."""

from __future__ import annotations

import pytest

from gateway.observability import metrics
from gateway.tools.demo.watch import DaemonWatch, parse, quantile
from gateway.tools.servers.ports import free_port

INFINITE = float("inf")


def test_reads_what_the_gateway_writes() -> None:
    """The text format as the gateway's own metrics module writes it: names, labels, values."""
    labels = {"stream": "of-this-test", "reason": "malformed"}
    metrics.dead_letters.labels(**labels).inc(3)
    samples = parse(metrics.exposition().decode())
    assert ("gateway_dead_letters_total", labels, 3.0) in samples
    assert any(name == "gateway_commit_seconds_bucket" for name, _, _ in samples)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, 0.001), (0.25, 0.0005), (0.75, 0.0015), (1.0, 0.002)],
)
def test_quantiles_lie_straight_within_a_bucket(share: float, expected: float) -> None:
    """As Prometheus' histogram_quantile reckons."""
    assert quantile(share, [(0.001, 50), (0.002, 100), (INFINITE, 100)]) == pytest.approx(expected)


def test_a_quantile_beyond_the_last_limit_is_that_limit() -> None:
    """Nothing is known of values in the infinite bucket but that they are larger."""
    assert quantile(0.99, [(1.0, 10), (INFINITE, 100)]) == 1.0


def test_no_observations_no_quantile() -> None:
    """Before the first commit there is nothing to tell."""
    assert quantile(0.5, [(1.0, 0), (INFINITE, 0)]) is None
    assert quantile(0.5, []) is None


async def test_a_gateway_that_does_not_answer_is_no_error() -> None:
    """The screen goes on, and says so."""
    async with DaemonWatch(free_port()) as watch:
        assert await watch.look() is None
        assert not await watch.ready()
