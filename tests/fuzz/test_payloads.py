"""Payloads: every decoder, and the two ways of native JSON."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import decoders
from gateway.decoders import Limits
from gateway.errors import MessageError
from gateway.messages import Reading
from tests.support.bad_input import CASES
from tests.support.batching import NOW_US
from tests.support.fuzzing import LARGEST, attempt, fuzzed, more_payloads, spoiled
from tests.unit.decoders.test_cases import PAYLOADS, kinds
from tests.unit.ingest.test_plain import ALL_WAYS, FULL

NOW_MS = NOW_US // 1000
LOOP_SECONDS = 0.05
"""How long one message may hold the event loop."""
SAMPLES = [
    *(path.read_bytes() for path in PAYLOADS),
    *(case.payload for case in CASES if len(case.payload) <= LARGEST),
    *more_payloads(),
    FULL,
]
TOKENS = [
    *b'{ } [ ] , : " \\ \0 - . e E 0 9 1e308 1e309 -1e400 0.1 \xff \xc3 \xed\xa0\x80 \xef\xbb\xbf {"a": {"a":{ '
    b'\\u0000 \\ud800 \\u003a null true NaN Infinity "ts" "ts": "time": "metrics" "metrics":{ "metadata":{"a":1}, '
    b'"message_id":1, "serial_number":"S-1", "level":5, "n":7, {"a":1}, [1], 123456789012345678901, 1, "a",'.split(),
    b" ", b"\n", b'"ts":%d,' % NOW_MS, b'"ts":"2026-11-24T12:00:00Z",', b"a://", b"\x1f\x8b",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(decoders._FORMATS))
@fuzzed
@given(payload=st.data())
def test_decoders(name: str, payload: st.DataObject) -> None:
    """Readings or a refusal with a reason, whatever comes; JSON means what Python's parser says it means."""
    raw = payload.draw(spoiled(SAMPLES, TOKENS))
    decode = decoders.build(name, Limits())
    found = attempt(f"payloads {name}", lambda: decode(raw), MessageError, seconds=LOOP_SECONDS)
    if isinstance(found, MessageError):
        assert found.reason
        assert found.detail
        return
    assert isinstance(found, list)
    assert found
    assert all(reading.metrics for reading in found)
    if name == "json":
        _compare(json.loads(raw), found)


def _compare(tree: Any, readings: list[Reading]) -> None:
    """Every metric stands in the payload, as Python reads it."""
    trees = tree if isinstance(tree, list) else [tree]
    assert len(trees) == len(readings)
    for said, reading in zip(trees, readings, strict=True):
        metrics = said["metrics"] if "metrics" in said else {name: said[name] for name in reading.metrics}
        assert metrics == reading.metrics
        assert kinds(metrics) == kinds(reading.metrics)


PLAIN = [FULL, *(b'{"ts":%d,"metrics":%s}' % (NOW_MS, metrics) for metrics in (
    b"{}", b'{"level":5.5}', b'{"level":5,"n":7}', b'{"n": 0.5}', b'{"on":true,"text":"x"}', b'{"any":[1]}',
    b'{"level":null,"stranger":1}', b'{"a b":1e22}', b'{"n":9223372036854775808}', b'{"level":-1e300}',
))]  # fmt: skip


@fuzzed
@given(spoiled(PLAIN, TOKENS) | spoiled(SAMPLES, TOKENS))
def test_two_ways(payload: bytes) -> None:
    """For devices of every type the fast path of a message has the row of the general path, or none."""
    for ways in ALL_WAYS:
        short = attempt("payloads fast path", functools.partial(ways.plain, payload), seconds=LOOP_SECONDS)
        full = attempt(
            "payloads general path", functools.partial(ways.general, payload), seconds=LOOP_SECONDS
        )
        if short is not None:
            assert full == short
