"""What fuzz targets share: bounds on what an input may cost, and a strategy that spoils good inputs."""

from __future__ import annotations

import base64
import json
import os
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, AnyStr, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

T = TypeVar("T")
ROUND = 50
"""Inputs."""
fuzzed = settings(
    max_examples=ROUND,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""Marks a target: a round of it. No phase that traces lines, for times are measured."""
LARGEST = 2**16
"""Bytes, or characters, of an input."""
CPU_SECONDS = 0.25
"""For an input of at most ``LARGEST`` bytes, at a pace of 1: what takes more grows with more than the length."""
MEMORY_BYTES = 2**24
"""Likewise: a tree of small Python objects takes some fifty times the bytes of its text."""
TRIED: Counter[str] = Counter()
"""Inputs so far, by target."""
_QUICK_SECONDS = 0.0005
"""In less time nobody makes so many objects."""
_COUNT, _COUNT_SECONDS = 300_000, 0.01
_ATTEMPTS = 5
"""An input is slow when it is slow each time: now and then caches are cold, and machines busy."""
_REPEATED = (1, 1, 2, 33, 101, 1001, 5001, LARGEST)


def attempt(
    target: str, call: Callable[[], T], *documented: type[Exception], seconds: float = CPU_SECONDS
) -> T | Exception:
    """What comes of this call, or the documented error; any other error is raised.

    Args:
        target: under which it is counted.
        call: may be repeated.
        seconds: of CPU that it may take.

    Raises:
        AssertionError: it takes more time or memory than it may.
    """
    TRIED[target] += 1
    found, took = _timed(call, documented)
    for _ in range(_ATTEMPTS):
        if took <= seconds:
            break
        took = min(took, _timed(call, documented)[1] / _pace())
    assert took <= seconds, f"{took:.3f} s of CPU"
    peak = _peak_bytes(call, documented) if took > _QUICK_SECONDS else 0
    assert peak <= MEMORY_BYTES, f"{peak / 2**20:.1f} MiB"
    return found


def _pace() -> float:
    """How many times slower than the machine on which bounds were chosen this one is just now; at least 1."""
    started, count = time.thread_time(), 0
    while count < _COUNT:
        count += 1
    return max(1.0, (time.thread_time() - started) / _COUNT_SECONDS)


def _timed(call: Callable[[], T], documented: tuple[type[Exception], ...]) -> tuple[T | Exception, float]:
    started = time.thread_time()
    found = _outcome(call, documented)
    return found, time.thread_time() - started


def _peak_bytes(call: Callable[[], object], documented: tuple[type[Exception], ...]) -> int:
    tracemalloc.start()
    try:
        _outcome(call, documented)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _outcome(call: Callable[[], T], documented: tuple[type[Exception], ...]) -> T | Exception:
    try:
        return call()
    except documented as error:
        return error


_STRANGE: dict[type, Any] = {str: st.text(max_size=6), bytes: st.binary(max_size=6)}


@st.composite
def spoiled(draw: st.DrawFn, samples: Sequence[AnyStr], tokens: Sequence[AnyStr]) -> AnyStr:
    """A sample with pieces cut out, put in, and repeated; mostly a few, sometimes tens of thousands of times.

    Args:
        tokens: what has a meaning to the parser, to be put in.
    """
    text = draw(st.sampled_from(samples))
    strange = _STRANGE[type(text)]
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, min(len(text), start + 30)))
        piece = draw(st.sampled_from(["own", "token", "other", "nothing", "any"]))
        if piece == "own":
            put = text[start:stop]
        elif piece == "token":
            put = draw(st.sampled_from(tokens))
        elif piece == "other":
            other = draw(st.sampled_from(samples))
            at = draw(st.integers(0, len(other)))
            put = other[at : at + draw(st.integers(0, 60))]
        elif piece == "any":
            put = draw(strange)
        else:
            put = text[:0]
        most = LARGEST // max(1, len(put))
        put *= min(most, draw(st.sampled_from(_REPEATED)))
        text = text[:start] + put + text[stop:]
    return text[:LARGEST]


def more_payloads() -> list[bytes]:
    """Payloads of the folder ``GATEWAY_FUZZ_CORPUS``: JSON lines with ``payload_utf8`` or ``payload_base64``.

    Only where somebody names one: neither the product nor ``make test`` reads it.
    """
    folder = os.environ.get("GATEWAY_FUZZ_CORPUS")
    files = sorted(Path(folder).glob("*.jsonl")) if folder else []
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    return [
        row["payload_utf8"].encode() if "payload_utf8" in row else base64.b64decode(row["payload_base64"])
        for row in rows
    ]
