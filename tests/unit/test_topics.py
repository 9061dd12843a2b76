"""Topic templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigurationError
from gateway.topics import Template, apart, overlap


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


LEVELS = st.sampled_from(["a", "b", "+", "$x"])
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, "#"] if rest else levels),
    st.lists(LEVELS, min_size=1, max_size=3),
    st.booleans(),
)
TOPICS = st.lists(st.sampled_from(["a", "b", "c", "$x"]), min_size=1, max_size=4).map("/".join)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a broker delivers the topic for this filter."""
    return Template(topic_filter).match(topic) is not None


@given(FILTERS, FILTERS, TOPICS)
def test_filters_that_share_a_topic_overlap(one: str, other: str, topic: str) -> None:
    """Whichever is asked first."""
    assert overlap(one, other) == overlap(other, one)
    if matches(one, topic) and matches(other, topic):
        assert overlap(one, other)


@given(st.dictionaries(FILTERS, st.integers(0, 1), min_size=1, max_size=5), TOPICS)
def test_filters_apart_deliver_each_topic_once(filters: dict[str, int], topic: str) -> None:
    """What any of them matches, exactly one matches now, at no lower QoS; nothing needless is widened."""
    found = apart(filters)
    wanted = [qos for one, qos in filters.items() if matches(one, topic)]
    got = [qos for one, qos in found.items() if matches(one, topic)]
    assert len(got) <= 1
    if wanted:
        assert got[0] >= max(wanted)
    if not any(overlap(one, other) for one in filters for other in filters if one != other):
        assert found == filters


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["tenants/+/devices/+/telemetry", "tenants/#"], ["tenants/#"]),
        (["a/+/c", "a/b/+"], ["a/+/+"]),
        (["a/+", "b/+"], ["a/+", "b/+"]),
        (["a", "a/#"], ["a/#"]),
        (["#", "$SYS/#"], ["#", "$SYS/#"]),
        (["a/b/+", "a/+/c", "+/b/d"], ["+/+/+"]),
    ],
)
def test_overlapping_filters_become_one(filters: list[str], expected: list[str]) -> None:
    """The wider one, or the narrowest that covers both."""
    assert list(apart(dict.fromkeys(filters, 1))) == expected
