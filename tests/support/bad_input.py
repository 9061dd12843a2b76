"""Everything that devices send and nobody asked for, with the end that each is promised."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import dataclass
from typing import Any

DAY_MS = 86_400_000
KEPT = 2**20
"""``dead_letters.max_payload_bytes`` by default, of a payload."""
NOW_MS = int(time.time() * 1000) - 60_000
"""The time of all readings here: a minute ago, so that none is in the future."""


@dataclass(frozen=True)
class Case:
    """One payload and its end.

    Attributes:
        reason: of the dead letter that it becomes; None: it is stored.
        rows: how many rows a stored one makes.
        data: what its row holds, JSON, where that is worth a look.
        time_ms: the time under which it is stored, where the payload says it in another form.
        topic: other than the device's own.
    """

    name: str
    payload: bytes
    reason: str | None = None
    rows: int = 1
    data: str | None = None
    time_ms: int | None = None
    topic: str | None = None


def timed(metrics: str, ts: Any = NOW_MS) -> bytes:
    """A reading with these metrics, JSON text, as they are."""
    return f'{{"ts": {json.dumps(ts)}, "metrics": {{{metrics}}}}}'.encode()


def stamped(ts: Any) -> bytes:
    """A reading with this timestamp."""
    return timed('"n": 7', ts)


def iso(ms: int, zone: str = "Z") -> str:
    """RFC 3339 of these milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}{zone}"


MANY = json.dumps([{"ts": NOW_MS - number, "n": number} for number in range(10_000)]).encode()
TOO_MANY = json.dumps([{"ts": NOW_MS - number, "n": number} for number in range(10_001)]).encode()
SCRIPTS = '"température": "21 °C, 気温 🌡"'

CASES = [
    # no text at all
    Case("empty", b"", "empty_payload"),
    Case("blank", b" \n", "empty_payload"),
    Case("not UTF-8", b'{"ts": 1, "metrics": {"a": "\xff\xfe"}}', "not_utf8"),
    Case("10 MB", b'{"note": "' + b"x" * 10_000_000 + b'"}', "payload_too_large"),
    # no JSON
    Case("truncated", timed('"n": 7')[:-1], "malformed"),
    Case("garbage behind", timed('"n": 7') + b"}", "malformed"),
    Case("NaN", timed('"n": NaN'), "bad_number"),
    Case("Infinity", timed('"n": -Infinity'), "bad_number"),
    Case("1e400", timed('"n": 1e400'), "bad_number"),
    Case("400 digits", timed('"n": ' + "9" * 400), "bad_number"),
    # JSON, but
    Case("deep array", b"[" * 10_000 + b"]" * 10_000, "nested_too_deep"),
    Case("deep object", timed('"n": ' + '{"a":' * 10_000 + "1" + "}" * 10_000), "nested_too_deep"),
    Case("duplicate key", timed('"n": 1, "n": 2'), "duplicate_key"),
    Case("duplicate key above", b'{"metrics": {"n": 1}, "metrics": {"n": 2}}', "duplicate_key"),
    Case("NUL", timed('"n": "a\\u0000b"'), "bad_text"),
    Case("NUL in a key", timed('"a\\u0000b": 1'), "bad_text"),
    Case("lone surrogate", timed('"n": "\\ud800"'), "bad_text"),
    Case("bare number", b"21.5", "unexpected_shape"),
    Case("bare text", b'"hello"', "unexpected_shape"),
    Case("null", b"null", "unexpected_shape"),
    Case("no reading", b"[]", "unexpected_shape"),
    Case("no metrics", b'{"ts": 1700000000000, "metrics": {}}', "unexpected_shape"),
    Case("metrics in a list", b'{"metrics": [{"n": 7}]}', "unexpected_shape"),
    Case("metrics a number", b'{"metrics": 5}', "unexpected_shape"),
    Case("metrics in values", json.dumps({"ts": NOW_MS, "values": {"n": 7}}).encode(), "unexpected_shape"),
    Case("900 kB of 1e308", timed(f'"n": [{", ".join(["1e308"] * 129_000)}]'), "unexpected_shape"),
    Case("gzip", gzip.compress(timed('"n": 7')), "not_utf8"),
    Case("UTF-16", timed('"n": 7').decode().encode("utf-16"), "not_utf8"),
    Case("a byte order mark", b"\xef\xbb\xbf" + timed('"n": 7'), "malformed"),
    Case("NUL behind", timed('"n": 7') + b"\0", "malformed"),
    Case("10 001 readings", TOO_MANY, "unexpected_shape"),
    Case("another's serial number", b'{"serial_number": "SOMEBODY", "metrics": {"n": 1}}', "device_mismatch"),
    # who
    Case("unknown tenant", stamped(NOW_MS), "unknown_tenant", topic="tenants/nobody/devices/X/telemetry"),
    Case("unknown device", stamped(NOW_MS), "unknown_device", topic="tenants/acme/devices/GHOST/telemetry"),
    Case("disabled device", stamped(NOW_MS), "device_disabled", topic="tenants/acme/devices/OFF/telemetry"),
    # when
    Case("a year ahead", stamped(NOW_MS + 365 * DAY_MS), "timestamp_in_future"),
    Case("1970", stamped(5_000), "timestamp_too_old"),
    Case("ms since boot", stamped(32_400_000), "timestamp_too_old"),
    Case("date-time in digits", stamped(202611241200), "bad_timestamp"),
    Case("date-time in text of digits", stamped("20261124120000"), "bad_timestamp"),
    Case("a date alone", stamped(iso(NOW_MS)[:10]), "bad_timestamp"),
    Case("naive", stamped(iso(NOW_MS, "")), "bad_timestamp"),
    Case("no time", stamped("yesterday"), "bad_timestamp"),
    Case("a time of another kind", stamped({"at": 1}), "bad_timestamp"),
    Case("beyond the year 9999", stamped(10**21), "bad_timestamp"),
    # stored, faithfully
    Case("2^63 and more", timed(f'"n": {2**63 + 1}'), data=f'{{"n": {2**63 + 1}}}'),
    Case("beyond 2^53", timed(f'"n": {2**53 + 1}'), data=f'{{"n": {2**53 + 1}}}'),
    Case("10 000 readings", MANY, rows=10_000),
    Case("other scripts", timed(SCRIPTS), data=f"{{{SCRIPTS}}}"),
    Case("null metric", timed('"n": null'), data='{"n": null}'),
    Case("an empty key", timed('"": 5, "temperature": 1'), data='{"": 5, "temperature": 1}'),
    Case("an empty key, flat", b'{"": 5, "temperature": 1}', data='{"": 5, "temperature": 1}'),
    Case("a null time and another", b'{"ts": null, "time": %d, "n": 7}' % NOW_MS, time_ms=NOW_MS),
    Case("no timestamp", b'{"metrics": {"n": 7}}', data='{"n": 7}'),
    Case("epoch s", stamped(NOW_MS // 1000), time_ms=NOW_MS // 1000 * 1000),
    Case("epoch ms", stamped(NOW_MS), time_ms=NOW_MS),
    Case("epoch µs", stamped(NOW_MS * 1000), time_ms=NOW_MS),
    Case("epoch ns", stamped(NOW_MS * 1_000_000), time_ms=NOW_MS),
    Case("epoch ms as text", stamped(str(NOW_MS)), time_ms=NOW_MS),
    Case("RFC 3339", stamped(iso(NOW_MS)), time_ms=NOW_MS),
    Case("RFC 3339 with a zone", stamped(iso(NOW_MS + 2 * 3_600_000, "+02:00")), time_ms=NOW_MS),
]
