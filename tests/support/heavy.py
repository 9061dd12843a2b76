"""Payloads of 1 MiB that cost most of what a device can send: numbers, keys, nesting, text, mistakes at the end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

SIZE = 2**20
_VALUES = 49_900
"""As many as the default of ``validation.max_values`` lets pass."""


def payloads(now_ms: int | None = None) -> dict[str, bytes]:
    """By what they are made of; equal at each call, but for the time in them."""
    now = int(time.time() * 1000) if now_ms is None else now_ms
    numbers = random.Random(1)

    def digits(count: int) -> Callable[[int], bytes]:
        return lambda _: b"%d" % numbers.randrange(10 ** (count - 1), 10**count)

    head = b'{"ts":%d,"metrics":{' % now
    array, objects, text = head + b'"a":[', head, head + b'"a":"'

    def listed(item: Callable[[int], bytes], most: int = SIZE, tail: bytes = b"") -> bytes:
        return _filled(array, item, tail + b"]}}", most)

    def timed(item: Callable[[int], bytes], most: int = _VALUES, tail: bytes = b"") -> bytes:
        return _filled(objects, item, tail + b"}}", most)

    def readings(item: Callable[[int], bytes], most: int = 10_000, tail: bytes = b"") -> bytes:
        return _filled(b"[", item, tail + b"]", most)

    def stamped(index: int) -> bytes:
        return b'{"ts":"2026-11-20T12:00:00.%06dZ","metrics":{"t":1,"u":2,"v":3}}' % index

    return {
        "integers of 300 digits": listed(digits(300)),
        "integers of 20 digits": listed(digits(20)),
        "an integer of 1 MB": array + b"1" * (SIZE - 100) + b"]}}",
        "fractions of 300 digits": listed(lambda i: b"0." + digits(300)(i)),
        "far exponents": listed(lambda _: b"1e308"),
        "long and far": listed(lambda i: digits(20)(i) + b".5e99"),
        "keys": timed(lambda i: b'"%x":1' % i),
        "keys without end": timed(lambda i: b'"%x":1' % i, most=10**6),
        "a key twice": timed(lambda i: b'"%x":1' % i, tail=b',"0":1'),
        "escaped keys": timed(lambda i: b'"%x\\u003a":1' % i),
        "objects": listed(lambda _: b"{}", most=_VALUES),
        "objects with a key": listed(lambda _: b'{"a":1}', most=_VALUES),
        "nests": listed(lambda _: b"[" * 29 + b"]" * 29),
        "a deep nest": b"[" * (SIZE // 2) + b"]" * (SIZE // 2),
        "a deep nest, open": b'{"a":' * (SIZE // 5),
        "escapes": text + b"\\n" * (SIZE // 2 - 100) + b'"}}',
        "a NUL at the end": listed(lambda _: b'"ab\\n"', most=_VALUES, tail=b',"\\u0000"'),
        "commas in text": listed(lambda _: b'",,,,,"', most=_VALUES),
        "text that is not closed": b'["' + b'\\",' * (SIZE // 3 - 10),
        "a time of many sixties": text[:-5]
        + b'}, "ts":"2026-11-20T'
        + b"12:00:60\\n" * (SIZE // 10 - 20)
        + b'x"}',
        "not UTF-8 at the end": text + b"x" * (SIZE - 100) + b'\xff"}}',
        "cut off": timed(lambda i: b'"%x":1' % i)[:-1],
        "NaN at the end": listed(lambda _: b"{}", most=_VALUES, tail=b",NaN"),
        "readings": readings(lambda i: b'{"ts":%d,"metrics":{"t":1,"u":2,"v":3,"w":4}}' % (now + i)),
        "readings with texts as times": readings(stamped),
        "readings of leap seconds": readings(
            lambda i: b'{"ts":"2016-12-31T23:59:60.%03dZ","metrics":{"t":1,"u":2}}' % (i % 1000)
        ),
        "readings of ever other names": readings(lambda i: b'{"%030x":1,"%029xq":2}' % (i, i)),
        "readings, the last one bad": readings(
            lambda i: b'{"ts":%d,"t":1}' % (now + i), most=9_999, tail=b",1"
        ),
        "a time of 1 MB": b'{"ts":"2026-11-20T12:00:00' + b"6" * (SIZE - 100) + b'","metrics":{"t":1}}',
        "a time of 1 MB, hour 24": b'{"ts":"2026-11-20T' + b" 24:00" * (SIZE // 6 - 20) + b'","t":1}',
        "UTF-16": text.decode().encode("utf-16-le") + b"x\0" * (SIZE // 2 - 100),
        "another value behind": b'{"t":1}' * (SIZE // 7),
    }


def _filled(head: bytes, item: Callable[[int], bytes], tail: bytes, most: int) -> bytes:
    """Head, as many items as fit, tail."""
    parts: list[bytes] = []
    size = len(head) + len(tail)
    while len(parts) < most and size + len(made := item(len(parts))) + 1 <= SIZE:
        parts.append(made)
        size += len(made) + 1
    return head + b",".join(parts) + tail
