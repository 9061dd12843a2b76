"""Scratch names, and what they must not meet."""

from __future__ import annotations

import pytest

from gateway.errors import UsageError
from gateway.settings import StreamSettings
from gateway.tools.bench import shape
from gateway.tools.bench.scratch import Names
from gateway.topics import Template


def test_each_bench_has_a_name_of_its_own() -> None:
    """Two benches at once do not meet."""
    assert Names().name != Names().name


@pytest.mark.parametrize(
    "name", ["acme", "gateway-bench-", "gateway-bench-12345678x", "%", "gateway-bench-ABCDEF01"]
)
def test_what_no_bench_made_is_not_removed(name: str) -> None:
    """A tenant of the operator's cannot be named."""
    with pytest.raises(UsageError, match="not of a bench"):
        Names(name)


def test_the_stream_takes_the_topics() -> None:
    """Subscription, stream and topics fit each other; the tenant is the scratch tenant."""
    names = Names()
    assert Template(names.stream.topic).match(names.prefix + shape.serial(3)) == {
        "tenant": names.name,
        "device": shape.serial(3),
    }
    assert names.filter == Template(names.stream.topic).filter


@pytest.mark.parametrize(
    ("topic", "meets"), [("#", True), ("+/{tenant}/{device}", True), ("tenants/#", False)]
)
def test_a_stream_that_takes_every_topic_is_noticed(topic: str, meets: bool) -> None:
    """Else the running gateway would take the bench's messages too."""
    streams = [StreamSettings(name="all", topic=topic, tenant="acme")]
    if not meets:
        Names().check_streams(streams)
        return
    with pytest.raises(UsageError, match="stream all"):
        Names().check_streams(streams)
