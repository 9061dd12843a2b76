"""Streams divided among workers."""

from __future__ import annotations

from gateway.settings import Stream
from gateway.workers import _groups


def test_streams_that_overlap_go_to_one_worker() -> None:
    """Two workers would both take a message that matches both; in each group the order of the configuration stays."""
    topics = {
        "a": "x/{tenant}/{device}",
        "b": "y/{tenant}/{device}",
        "c": "x/acme/#",
        "d": "z/{tenant}/{device}",
    }
    streams = [Stream(name=name, topic=topic, tenant="t") for name, topic in topics.items()]
    assert [[stream.name for stream in group] for group in _groups(streams)] == [["a", "c"], ["b"], ["d"]]
