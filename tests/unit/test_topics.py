"""Topic templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigurationError
from gateway.topics import Template


@pytest.mark.parametrize(
    ("text", "subscription", "captures"),
    [
        (
            "tenants/{tenant}/devices/{device}/telemetry",
            "tenants/+/devices/+/telemetry",
            {"tenant", "device"},
        ),
        ("plant/+/{device}/#", "plant/+/+/#", {"device"}),
        ("{site}/x", "+/x", {"site"}),
        ("#", "#", set()),
        ("+", "+", set()),
        ("/devices/{device}/controls/+", "/devices/+/controls/+", {"device"}),
        ("$SYS/broker/uptime", "$SYS/broker/uptime", set()),
        ("größe/{device}", "größe/+", {"device"}),
    ],
)
def test_a_template_subscribes_to_its_filter(text: str, subscription: str, captures: set[str]) -> None:
    """Captures become + in the filter; names are known before any message comes."""
    template = Template(text)
    assert subscription == template.filter
    assert captures == template.captures
    assert text == template.text


@pytest.mark.parametrize(
    ("text", "topic", "found"),
    [
        ("t/{tenant}/d/{device}", "t/acme/d/SN 1", {"tenant": "acme", "device": "SN 1"}),
        ("t/{tenant}/d/{device}", "t/acme/d/SN/1", None),
        ("t/{tenant}/d/{device}", "t/acme/d", None),
        ("t/{tenant}", "t/", None),
        ("t/{tenant}", "T/acme", None),
        ("t/+", "t/", {}),
        ("t/#", "t", {}),
        ("t/#", "t/", {}),
        ("t/#", "t/a/b", {}),
        ("t/#", "to/a", None),
        ("{device}/#", "x", {"device": "x"}),
        ("#", "a/b", {}),
        ("#", "$SYS/uptime", None),
        ("+/uptime", "$SYS/uptime", None),
        ("{device}/uptime", "$SYS/uptime", None),
        ("$SYS/#", "$SYS/uptime", {}),
        ("/d/{device}", "/d/x", {"device": "x"}),
        ("/d/{device}", "d/x", None),
        ("a.b/{device}", "axb/x", None),
        ("t/{device}", "t/line\nbreak", {"device": "line\nbreak"}),
        ("t/{device}", "t/pump\N{DEGREE SIGN}", {"device": "pump\N{DEGREE SIGN}"}),
    ],
)
def test_matching(text: str, topic: str, found: dict[str, str] | None) -> None:
    """A capture takes one level that is not empty; wildcards follow MQTT 5 §4.7."""
    assert found == Template(text).match(topic)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty level"),
        ("a//b", "empty level"),
        ("a/", "empty level"),
        ("a/#/b", "must be the last"),
        ("{device}/{device}", "captures {device} twice"),
        ("a/dev-{device}", "fill a level"),
        ("a/{device/x}", "no capture"),
        ("a/{Device}", "lower-case"),
        ("a/{}", "no capture"),
        ("a/b+", "mixes a wildcard"),
        ("a/b#", "mixes a wildcard"),
        ("$share/g/a", "mqtt.share_group"),
        ("a/\0", "NUL"),
        ("a/" + "x" * 70_000, "65535"),
    ],
)
def test_a_wrong_template_is_refused(text: str, says: str) -> None:
    """What is wrong is said in words an operator can act upon."""
    with pytest.raises(ConfigurationError) as caught:
        Template(text)
    assert says in str(caught.value)


LEVEL = st.text(
    st.characters(exclude_characters="/+#{}$\0", exclude_categories=["Cs"]), min_size=1, max_size=5
)


def naive_match(pattern: list[str], topic: list[str]) -> bool:
    """MQTT 5 §4.7, level by level."""
    if pattern == ["#"]:
        return True
    if not pattern or not topic:
        return not pattern and not topic
    return pattern[0] in ("+", topic[0]) and naive_match(pattern[1:], topic[1:])


@given(
    st.lists(LEVEL | st.just("+"), min_size=1, max_size=4),
    st.booleans(),
    st.lists(LEVEL, min_size=1, max_size=5),
)
def test_wildcards_agree_with_the_standard(levels: list[str], rest: bool, topic: list[str]) -> None:
    """Whatever the broker delivers for a filter, the template matches, and nothing else."""
    pattern = [*levels, "#"] if rest else levels
    assert naive_match(pattern, topic) == (Template("/".join(pattern)).match("/".join(topic)) is not None)


@given(st.lists(LEVEL, min_size=2, max_size=2))
def test_equality_is_of_the_text(levels: list[str]) -> None:
    """Templates can be dictionary keys."""
    one, other = (Template(level) for level in levels)
    assert (levels[0] == levels[1]) == (one == other)
    assert one == Template(levels[0])
    assert hash(one) == hash(Template(levels[0]))
