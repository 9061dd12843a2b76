"""From a topic to the stream that takes it and the device it speaks of."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.ingest.routes import Preparation, Routes
from gateway.messages import Field, Reading
from gateway.outcomes import Reason
from gateway.settings import NO_STREAM
from tests.support.batching import a_device, a_type, published, settings_for
from tests.support.flow import Flow


def routes_of(*streams: dict[str, Any], **sections: Any) -> Routes:
    """The routes of these streams."""
    return Flow(settings_for(None, *streams, **sections)).path.routes


async def test_the_topic_says_tenant_and_device() -> None:
    """One entry of the registry a device, whichever topic names it."""
    routes = routes_of({}, {"name": "other", "topic": "o/{tenant}/{device}/#", "on_conflict": "keep"})
    route, other = routes.find("t/acme/S-1"), routes.find("o/acme/S-1/x/y")
    assert (route.stream_name, route.tenant, route.serial_number) == ("telemetry", "acme", "S-1")
    assert (other.stream_name, other.on_conflict) == ("other", "keep")
    assert route.entry is not None
    assert route.entry is other.entry
    assert route.entry is not routes.find("t/acme/S-2").entry
    assert route.entry is not routes.find("t/globex/S-1").entry


async def test_the_routes_of_a_tenant_share_its_name() -> None:
    """It is cut out of each topic: 100 000 copies of a short one took 5 MiB, and as many of the registry's."""
    routes = routes_of()
    route, other = routes.find("t/acme/S-1"), routes.find("t/acme/S-2")
    assert route.tenant == "acme"
    assert route.tenant is other.tenant
    assert route.entry is not None
    assert route.entry.tenant is route.tenant


async def test_a_topic_is_matched_once() -> None:
    """Then it is remembered; as soon as its device is known, it is one look-up in a dictionary."""
    routes = routes_of()
    route = routes.find("t/acme/S-1")
    assert routes.find("t/acme/S-1") is route
    assert routes.known == {}
    assert route.entry is not None
    route.entry.learn(a_device("S-1"))
    assert routes.find("t/acme/S-1") is route
    assert routes.known == {"t/acme/S-1": route}


async def test_the_first_stream_that_matches_takes_it() -> None:
    """In the order of the configuration."""
    routes = routes_of(
        {"name": "special", "topic": "t/{tenant}/S-1"}, {}, {"name": "rest", "topic": "#", "tenant": "acme"}
    )
    found = [routes.find(topic).stream_name for topic in ("t/acme/S-1", "t/acme/S-2", "x")]
    assert found == ["special", "telemetry", "rest"]


async def test_who_is_not_plain_goes_the_full_way_for_a_while() -> None:
    """A topic's messages are alike: to try the fast path with each delivery would be in vain."""
    routes = routes_of()
    route, device = routes.find("t/acme/S-1"), a_device("S-1")
    Preparation(settings_for(None).validation)(device)
    assert route.entry is not None
    ways = []
    for known in (False, *[True] * 131):
        if known and route.entry.device is None:
            route.entry.learn(device)
        route.cool_down()
        ways.append(route.fast_device is device)
    assert [n for n, short in enumerate(ways) if short] == [1, 66, 131], (
        "as soon as it is known, then now and then"
    )


async def test_where_the_topic_names_no_device_the_payload_must() -> None:
    """The tenant is the stream's, or the topic's."""
    route = routes_of({"topic": "all/#", "tenant": "acme"}).find("all/x")
    assert (route.tenant, route.serial_number, route.entry, route.ending) == ("acme", None, None, None)


async def test_a_topic_goes_before_the_streams_tenant() -> None:
    """A template that names the tenant needs no default; where both are given the topic counts."""
    route = routes_of({"topic": "t/{tenant}/{device}", "tenant": "default"}).find("t/acme/S-1")
    assert route.tenant == "acme"


@pytest.mark.parametrize(
    ("topic", "ending"),
    [
        ("a/b/c", None),
        ("a/x/y", Reason.STREAM_IGNORED),
        ("elsewhere", Reason.NO_STREAM),
        ("a//c", Reason.NO_STREAM),
    ],
)
async def test_what_only_a_common_filter_brings_is_ignored(topic: str, ending: Reason | None) -> None:
    """Streams that overlap in part are subscribed to as a/+/+; what no stream asked for is no dead letter."""
    routes = routes_of(
        {"name": "one", "topic": "a/{device}/c", "tenant": "acme"},
        {"name": "two", "topic": "a/b/{device}", "tenant": "acme"},
    )
    assert routes.find(topic).ending is ending


@pytest.mark.parametrize("topic", ["stray", "$SYS/broker/uptime", "t//S-1", "t/acme/", "t/acme/S-1/more", ""])
async def test_what_matches_no_stream_is_stray(topic: str) -> None:
    """It has books of its own, and an end that says why."""
    routes = routes_of()
    route = routes.find(topic)
    assert (route.ending, route.stream_name, route.entry) == (Reason.NO_STREAM, NO_STREAM, None)
    assert route.tenant is None
    assert routes.tallies[NO_STREAM] is route.tally


async def test_an_ignored_stream_asks_nobody() -> None:
    """Its devices need not be known."""
    route = routes_of({"kind": "ignore"}).find("t/acme/S-1")
    assert (route.ending, route.entry) == (Reason.STREAM_IGNORED, None)


async def test_every_stream_has_books() -> None:
    """One tally a stream, shared by all of its topics."""
    routes = routes_of({}, {"name": "other", "topic": "o/{tenant}"})
    assert set(routes.tallies) == {"telemetry", "other", NO_STREAM}
    assert routes.find("t/a/b").tally is routes.find("t/a/c").tally is routes.tallies["telemetry"]


async def test_the_oldest_topics_make_room() -> None:
    """Memory is bounded however many topics there are; what comes again is matched again, to the same device."""
    routes = routes_of(registry={"max_entries": 100})
    for n in range(1000):
        device(routes, f"t/acme/S-{n}")
    assert len(routes.known) <= 100
    assert "t/acme/S-999" in routes.known
    entry = routes.find("t/acme/S-999").entry
    routes.known.clear()
    assert routes.find("t/acme/S-999").entry is entry


def device(routes: Routes, topic: str) -> None:
    """Its device is known, and a message of it comes."""
    route = routes.find(topic)
    assert route.entry is not None
    route.entry.learn(route.entry.device or a_device(route.serial_number or ""))
    routes._registry._admit(route.entry)
    routes.find(topic)


async def test_a_topic_that_is_too_long_is_remembered_by_nobody() -> None:
    """Its stream takes it, for the books; neither route nor device is kept."""
    routes = routes_of()
    route = routes.find(f"t/acme/{'x' * 2000}")
    assert (route.stream_name, route.serial_number, route.entry) == ("telemetry", None, None)
    assert (len(routes), len(routes._registry)) == (0, 0)


async def test_topics_of_nobody_make_room_by_their_bytes() -> None:
    """And those of devices stay: of a device as many as it may have."""
    routes = routes_of({"topic": "t/{tenant}/{device}/#"})
    for n in range(3):
        device(routes, f"t/acme/S-{n}/x")
    first, long = routes.find("stray/0"), "x" * 1000
    for n in range(20_000):
        routes.find(f"stray/{n}/{long}")
        routes.find(f"t/acme/ghost-{n}/{long}")
        device(routes, f"t/acme/S-0/{n}/{long}")
    assert len(routes.known) <= 2 + 16
    assert len(routes) * 1000 < 2 * 8 * 2**20
    assert len(routes._registry) * 512 < 2 * 8 * 2**20
    assert routes.find("stray/0") is not first
    assert routes.find("stray/0").tally is first.tally


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("payload", None),
        ("property:id", "in a property"),
        ("property:none", None),
        ("property:x:y", "z"),
        ("off", None),
    ],
)
async def test_where_a_message_carries_its_id(where: str, found: str | None) -> None:
    """In the payload, in the user property that the stream names, or nobody looks."""
    route = routes_of({"message_id": where}).find("t/acme/S-1")
    properties = [("other", "x"), ("id", "in a property"), ("id", "a second"), ("x:y", "z")]
    assert route.id_in_payload == (where == "payload")
    assert route.own_id(published("t/acme/S-1", b"", user_properties=properties)) == found


def test_devices_of_a_type_share_its_check() -> None:
    """Made once a type; a type that was changed is another object, with a check of its own."""
    prepare, kind = Preparation(settings_for(None).validation), a_type(Field("x", "int", required=True))
    one, other, later = a_device("A"), a_device("B"), a_device("C")
    one.type = other.type = kind
    later.type = a_type(Field("x", "int"))
    for device in (one, other, later):
        device.columns = b""
        prepare(device)
    assert one.check is other.check
    assert one.check is not None
    assert one.check(Reading({})) == {"x": Reason.MISSING_FIELD}
    assert later.check is not None
    assert later.check(Reading({})) is None
    assert one.id.bytes in one.columns
    assert one.tenant_id.bytes in one.columns
    plain = a_device("D")
    prepare(plain)
    assert plain.check is None


async def test_only_what_the_registry_knows_has_a_share_of_dead_letters() -> None:
    """A device, also while it is looked up again, or disabled; names that are claimed share a tenant's or stream's."""
    routes = routes_of({}, {"name": "all", "topic": "all/{tenant}"})
    topics = ("t/acme/A", "t/acme/B", "t/acme/C", "t/ghost/A", "all/acme", "all/ghost", "stray")
    found = {topic: routes.find(topic) for topic in topics}
    assert {route.share for route in found.values()} == {"stream"}
    routes._registry.tenants.add("acme")
    known, disabled = found["t/acme/A"].entry, found["t/acme/B"].entry
    assert known is not None
    assert disabled is not None
    known.learn(a_device("A"))
    disabled.refusal = Reason.DEVICE_DISABLED
    for _ in range(2):
        assert [route.share for route in found.values()] == [
            "device", "device", "tenant", "stream", "tenant", "stream", "stream",
        ]  # fmt: skip
        known.forget()
