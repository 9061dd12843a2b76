"""Topic templates, times, quantities, and foreign text on its way to logs and terminals."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from gateway import clock, quantities
from gateway.decoders import timestamps
from gateway.errors import ConfigurationError, MessageError
from gateway.foreign import visible, visible_json
from gateway.redaction import redact
from gateway.topics import Template, apart, overlap
from tests.support.fuzzing import attempt, fuzzed, spoiled
from tests.support.hostile import raw

TEMPLATES = [
    "tenants/{tenant}/devices/{device}/telemetry",
    "plant/+/{device}/#",
    "#",
    "+/+/+",
    "/devices/{device}",
    "$SYS/#",
]
TOPICS = ["tenants/acme/devices/S-1/telemetry", "plant/a/b/c/d", "a", "/", "//", "$SYS/x", "plant/x/y"]
ORACLE_LEVELS = 300
"""paho's own matching, which is compared with, calls itself for each level of a topic."""
TOPIC_TOKENS = [
    "/",
    "+",
    "#",
    "{",
    "}",
    "{device}",
    "{a}",
    "$",
    "$share/g/",
    "\0",
    "\n",
    "\udcff",
    "é",
    "(.*)+",
    "[",
    "a/",
    "+/",
    "a",
]


@fuzzed
@given(spoiled(TEMPLATES, TOPIC_TOKENS), spoiled(TOPICS, TOPIC_TOKENS))
def test_topic_templates(text: str, topic: str) -> None:
    """A template or a refusal; it matches what its filter matches, but for captures that are empty."""
    template = attempt("templates", lambda: Template(text), ConfigurationError)
    if not isinstance(template, Template):
        return
    found = attempt("topics", lambda: template.match(topic))
    assert found is None or isinstance(found, Mapping)
    if topic.count("/") > ORACLE_LEVELS:
        return
    matches = topic_matches_sub(template.filter, topic)
    if found is None:
        assert not matches or template.captures
    else:
        assert matches
        assert all(value and "/" not in value and value in topic for value in found.values())
        assert set(found) == template.captures
    assert overlap(template.filter, template.filter)
    assert apart({template.filter: 1}) == {template.filter: 1}


MOMENTS = [
    "2026-11-24T12:00:00Z", "2026-11-24 12:00:00.123456+02:00", "20261124120000", "1795521600", "1795521600000.5",
    "2026-W48-2T12:00", "2016-12-31T23:59:60Z", "2026-11-24T24:00:00Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
]  # fmt: skip
MOMENT_TOKENS = [
    *"0123456789-+:.TZW ,_e",
    "60",
    "24",
    "9" * 400,
    "\0",
    "٣",
    "\udcff",
    "1e308",
    "+23:59",
    "24:00:00",
    ":60",
]
ZONES = st.sampled_from([None, zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("Pacific/Kiritimati")])


@fuzzed
@given(spoiled(MOMENTS, MOMENT_TOKENS) | st.floats() | st.integers(-(10**40), 10**40), ZONES)
def test_times(value: object, zone: zoneinfo.ZoneInfo | None) -> None:
    """A moment of the years 1 to 9999, which reads the same when it is written again; or a refusal."""
    found = attempt("times", lambda: timestamps.parse(value, zone), MessageError)
    if isinstance(found, int):
        assert timestamps.parse(clock.to_datetime(found).isoformat()) == found


@fuzzed
@given(
    spoiled(
        ["20s", "5ms", "1.5min", "64MiB", "7 d", "0", "2000-01-01", *MOMENTS],
        [*MOMENT_TOKENS, "ms", "MiB", "kB", "d"],
    )
)
def test_quantities(text: str) -> None:
    """A quantity, or how to write one."""
    seconds = attempt("quantities", lambda: quantities.parse_duration(text), ValueError)
    if isinstance(seconds, float) and seconds < 10**9:
        again = quantities.parse_duration(quantities.format_duration(seconds))
        assert abs(again - seconds) <= 1e-6  # type: ignore[operator]
    size = attempt("quantities", lambda: quantities.parse_size(text), ValueError)
    if isinstance(size, int):
        assert quantities.parse_size(quantities.format_size(size)) == size or size >= 2**53
    attempt("quantities", lambda: quantities.format_moment(quantities.parse_moment(text)), ValueError)


LONGEST = 2**13
FOREIGN = [
    "Pump 1",
    "postgresql://u:p@h/d",
    'password="x"',
    "a%3A%2F%2Fb%3Ac%40d",
    "a://b:c@d",
    '{"ts": 5, "token": "x"}',
]
FOREIGN_TOKENS = [
    "\x1b[31m", "\x9b", "\u202e", "\udcff", "\0", "\n", "\r", "://", "@", ":", "a%3A%2F%2F", "%3A", "%40", "password=",
    "'", '"',
    "token: ", "api_key", "secret", "a", " ", "\u2028", "\U000e0041",
]  # fmt: skip


@fuzzed
@given(spoiled(FOREIGN, FOREIGN_TOKENS).map(lambda text: text[:LONGEST]))
def test_foreign_text(text: str) -> None:
    """It becomes visible on one line, and JSON stays the same JSON."""
    shown = attempt("foreign text", lambda: visible(text))
    assert isinstance(shown, str)
    assert raw(shown) == []
    attempt("foreign JSON", lambda: visible_json(text))


PASSWORDS = st.text(st.characters(exclude_characters="'\"<>", exclude_categories=["Z", "C"])).map(
    lambda text: f"Zq7{text}Kx9"
)


@fuzzed
@given(spoiled(FOREIGN, FOREIGN_TOKENS), PASSWORDS)
def test_redaction(text: str, password: str) -> None:
    """What the log does to every text is done in bounded time; the password of a URL is hidden, whatever is around."""
    attempt("redaction", lambda: redact(text))
    shown = redact(f"{text} postgresql://u:{password}@h/d {text}")
    assert "Zq7" not in shown
    assert "Kx9" not in shown
    quoted = quote(f"a://b:{password}@c", safe="")
    assert "Kx9" not in redact(f"{text} {quoted} {text}")
    assert "Kx9" not in redact(
        f"{text} password={password.replace(';', '').replace('&', '').replace(',', '')} "
    )
