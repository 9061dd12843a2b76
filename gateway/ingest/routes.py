"""From a topic to the stream that takes it and the device it speaks of: one dictionary look-up per message."""

from __future__ import annotations

import itertools
import sys
import uuid
from collections.abc import Collection, Mapping, Sequence

from gateway import decoders, settings, topics
from gateway.decoders import Decode
from gateway.devices.registry import Entry, Registry
from gateway.ingest import fast_path, validation
from gateway.ingest.validation import Check
from gateway.messages import Delivery, Device, DeviceType, FastRow, Message, Share
from gateway.outcomes import Reason, Tally
from gateway.writer import rows
from gateway.writer.layouts import TELEMETRY, StreamTarget

_MAX_TYPES = 10_000
_NO_DEVICE = Device(uuid.UUID(int=0), uuid.UUID(int=0), "", "", DeviceType(uuid.UUID(int=0), "", {}))
_OTHERS_BYTES, _ROUTE_BYTES = 8 * 2**20, 1024
"""Of topics of which no device is known; and what one of them costs beside its bytes, with its registry entry's key."""
_TOPICS_OF_A_DEVICE = 16
"""That are remembered as long as the device is; of more, such as a wildcard of the template makes, the latest."""
_COOL_DOWN = 64
"""Deliveries for which a topic takes the general path before the fast one is tried again: a vain try costs 0.5 µs."""


class Stream:
    """A configured stream, ready to work."""

    def __init__(
        self, options: settings.StreamSettings, decode: Decode, target: StreamTarget = TELEMETRY
    ) -> None:
        self.options, self.decode, self.target = options, decode, target
        self.format = decoders.format_of(options.decoder)
        self.template = topics.Template(options.topic)
        self.tally = Tally()
        self.reserved = settings.ENVELOPE_KEYS.union(options.time_keys) - {fast_path.TIME_KEY}
        """Names that are no metric's where metrics stand beside the time, but for that of the time itself."""


class TopicRoute:
    """All that is known of one topic. Satisfies :class:`gateway.batches.Route`.

    Attributes:
        entry: the device of the topic; None where the payload names it, or where ``ending`` is set.
        fast_device: the device itself while messages may take the fast path; else none.
        ending: why messages of this topic never become readings; None: they may.
        retained: what becomes of retained replays.
        one_reading: no message has more.
        large: so many messages wait for a large one of this topic, or are one: what follows waits behind them.
        layout, table: of the stream's target: how its rows are encoded, and where they go.

    Args:
        tenants: names of those that the registry has, as far as it was asked.
    """

    __slots__ = (
        "_cool_down",
        "_fast_format",
        "_id_property",
        "_tenants",
        "decode",
        "ending",
        "entry",
        "fast_device",
        "id_in_payload",
        "large",
        "layout",
        "message_id_reused",
        "on_conflict",
        "one_reading",
        "provision_type",
        "reserved",
        "retained",
        "serial_number",
        "stream_name",
        "table",
        "tally",
        "tenant",
        "unknown_device",
    )

    def __init__(self, stream: Stream, captures: Mapping[str, str], tenants: Collection[str] = ()) -> None:
        options, self._tenants = stream.options, tenants
        self.stream_name, self.tally, self.decode = options.name, stream.tally, stream.decode
        self.one_reading = stream.format.one_reading
        self.layout, self.table = stream.target.layout, stream.target.table
        self.reserved = stream.reserved
        self.id_in_payload = options.message_id == "payload"
        self._id_property = options.message_id.partition(":")[2]
        self.message_id_reused = options.message_id_reused
        self.on_conflict, self.retained = options.on_conflict, options.retained
        self.unknown_device, self.provision_type = options.unknown_device, options.provision_type
        self.ending = Reason.STREAM_IGNORED if options.kind == "ignore" else None
        tenant = captures.get("tenant", options.tenant)
        # The text is cut out of each topic anew; all routes of a tenant, and their devices, share one.
        self.tenant = None if tenant is None else sys.intern(tenant)
        self.serial_number = captures.get("device")
        self.entry: Entry | None = None
        self.fast_device = _NO_DEVICE
        timed = fast_path.TIME_KEY in options.time_keys
        self._fast_format = stream.format.fast_path and timed and not self._id_property
        self._fast_format &= self.layout is fast_path.LAYOUT
        self._cool_down = self.large = 0

    def take_fast_path(self) -> None:
        """The next messages may take the fast path, when the device is known and the topic is on no detour."""
        device = None if self.entry is None else self.entry.device
        if device is not None and self._fast_format and not (self._cool_down or self.large):
            self.fast_device = device

    def cool_down(self) -> None:
        """Of a delivery's messages some took the general path; where the fast one was tried, the next do too."""
        if self.fast_device.fast_row is not None:
            self._cool_down, self.fast_device = _COOL_DOWN, _NO_DEVICE
        elif self._cool_down:
            self._cool_down -= 1
        self.take_fast_path()

    def wait(self) -> None:
        """A message of this topic waits, as it is large, or for a large one before it."""
        self.large += 1
        self.fast_device = _NO_DEVICE

    def waited(self) -> None:
        """The next of them waits no longer."""
        self.large -= 1
        self.take_fast_path()

    @property
    def share(self) -> Share:
        """See :class:`gateway.batches.Route`: names that a topic only claims make no share of their own."""
        if self.entry is not None and self.entry.known:
            return "device"
        return "tenant" if self.tenant in self._tenants else "stream"

    def own_id(self, message: Message) -> str | None:
        """The id that a user property of the message carries, where the stream says it stands there."""
        if not self._id_property:
            return None
        return next((value for name, value in message.user_properties if name == self._id_property), None)


class Routes:
    """The streams in their order, and the routes of the topics seen."""

    def __init__(
        self, streams: Sequence[Stream], registry: Registry, *, max_topics: int, longest_topic: int = 65_535
    ) -> None:
        self._streams, self._registry, self._max_topics = streams, registry, max_topics
        self._longest = longest_topic
        self._stray = _stray_stream()
        self._beside = topics.Beside([stream.template.filter for stream in streams])
        self.known: dict[str, TopicRoute] = {}
        """Of devices of the registry, by topic; :meth:`of` looks here first."""
        self._others: dict[str, TopicRoute] = {}
        self._others_bytes = 0

    def __len__(self) -> int:
        """Topics that are remembered."""
        return len(self.known) + len(self._others)

    @property
    def tallies(self) -> dict[str, Tally]:
        """The books, by stream."""
        return {stream.options.name: stream.tally for stream in (*self._streams, self._stray)}

    def of(self, delivery: Delivery) -> list[TopicRoute]:
        """The route of each message of a delivery; all are entered into the books as received."""
        known, find = self.known, self.find
        routes = [known.get(message.topic) or find(message.topic) for message in delivery.messages]
        for message, route in zip(delivery.messages, routes, strict=True):
            route.tally.received += 1
            if message.packet_id is None:
                route.tally.qos0 += 1
        return routes

    def find(self, topic: str) -> TopicRoute:
        """The route of a topic of which no device is known yet; room is made by forgetting the oldest.

        Topics of unknown devices have few bytes: a client that may publish can make as many as it likes. A topic
        counts among the devices' when its device is known, and not too many others are this device's.
        """
        route = self._others.get(topic)
        if route is None:
            route = self._make(topic)
            return route if len(topic) > self._longest else self._remember(topic, route)
        entry = route.entry
        if entry is not None and entry.device is not None and entry.topics < _TOPICS_OF_A_DEVICE:
            self._forget([topic])
            self._admit(topic, route, entry)
        return route

    def _remember(self, topic: str, route: TopicRoute) -> TopicRoute:
        if self._others_bytes > _OTHERS_BYTES:
            self._forget(list(itertools.islice(self._others, len(self._others) // 8 + 1)))
        self._others[topic] = route
        self._others_bytes += len(topic) + _ROUTE_BYTES
        return route

    def _admit(self, topic: str, route: TopicRoute, entry: Entry) -> None:
        """Among those of devices."""
        if len(self.known) >= self._max_topics:
            for old in list(itertools.islice(self.known, self._max_topics // 8)):
                left = self.known.pop(old).entry
                assert left is not None
                left.topics -= 1
        self.known[topic] = route
        entry.topics += 1

    def _forget(self, topics: Sequence[str]) -> None:
        for topic in topics:
            del self._others[topic]
            self._others_bytes -= len(topic) + _ROUTE_BYTES

    def _make(self, topic: str) -> TopicRoute:
        for stream in self._streams:
            captures = stream.template.match(topic)
            if captures is not None:
                # A message with a topic beyond the bound is refused: nothing is made of it but a dead letter.
                route = TopicRoute(
                    stream, captures if len(topic) <= self._longest else {}, self._registry.tenants
                )
                if route.ending is None and route.serial_number is not None:
                    route.entry = self.entry(route, route.serial_number)
                return route
        route = TopicRoute(self._stray, {})
        route.ending = Reason.STREAM_IGNORED if self._beside.holds(topic) else Reason.NO_STREAM
        return route

    def entry(self, route: TopicRoute, serial_number: str) -> Entry:
        """The registry's entry of this device of the route's tenant."""
        return self._registry.entry(route.tenant or "", serial_number, route.provision_type)


def _stray_stream() -> Stream:
    options = settings.StreamSettings(name=settings.NO_STREAM, topic="#", kind="ignore")
    return Stream(options, lambda _payload: [])


class Preparation:
    """Gives a device what its readings need: encoded columns, and what all of its type share."""

    def __init__(self, rules: settings.ValidationSettings) -> None:
        self._rules = rules
        self._types: dict[int, tuple[DeviceType, Check | None, FastRow | None]] = {}

    def __call__(self, device: Device) -> None:
        """Prepare this device."""
        known = self._types.get(id(device.type))
        if known is None:
            if len(self._types) >= _MAX_TYPES:
                self._types.clear()
            # The type is kept beside what is made for it: its id() must not come to mean another.
            check, fast_row = (
                validation.field_check(device.type),
                fast_path.fast_row(device.type, self._rules),
            )
            known = self._types[id(device.type)] = device.type, check, fast_row
        _, device.check, device.fast_row = known
        device.columns = rows.device_columns(device)
