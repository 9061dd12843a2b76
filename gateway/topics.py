"""Topic templates: which topics belong to a stream, and what their levels say. Pure.

A template is an MQTT topic filter whose levels may carry names::

    tenants/{tenant}/devices/{device}/telemetry     captures one level each
    plant/+/{device}/#                              + any level, a last # the rest
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from gateway.errors import ConfigurationError

_CAPTURE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_LONGEST = 65_535
"""Bytes of UTF-8 that an MQTT string can hold."""


class Template:
    """A parsed topic template; equal when the text is equal.

    Attributes:
        text: as written in the configuration.
        filter: the MQTT topic filter to subscribe to, without any ``$share`` prefix.
        captures: the names that :meth:`match` finds.

    Raises:
        ConfigurationError: the text is no template; says which level and what to write instead.
    """

    __slots__ = ("_pattern", "captures", "filter", "text")

    def __init__(self, text: str) -> None:
        levels = text.split("/")
        names = [_capture(text, level) for level in levels]
        _check(text, levels, names)
        self.text = text
        self.filter = "/".join(
            level if name is None else "+" for level, name in zip(levels, names, strict=True)
        )
        self.captures = frozenset(name for name in names if name is not None)
        self._pattern = _compile(levels, names)

    def match(self, topic: str) -> Mapping[str, str] | None:
        """What the captures are in this topic; None: the topic is not of this template.

        A capture needs a level that is not empty: ``tenants//devices/x/telemetry`` names no tenant, so it
        does not match although the broker delivers it.
        """
        found = self._pattern.fullmatch(topic)
        return MappingProxyType(found.groupdict()) if found else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def _capture(text: str, level: str) -> str | None:
    """The name in a level such as ``{device}``; None: the level is no capture."""
    found = _CAPTURE.fullmatch(level)
    if found is None and ("{" in level or "}" in level):
        raise ConfigurationError(
            f"topic {text!r}: {level!r} is no capture: "
            "braces hold a lower-case name and fill a level, as in {device}"
        )
    return found[1] if found else None


def _check(text: str, levels: list[str], names: list[str | None]) -> None:
    if levels[0] == "$share":
        raise ConfigurationError(
            f"topic {text!r}: write the topic alone and set mqtt.share_group: it adds $share/<group>/"
        )
    if text == "" or "" in levels[1:]:
        # A first level may be empty: fleets publish under /devices/…
        raise ConfigurationError(f"topic {text!r} has an empty level: remove the '/' too many")
    for level in levels:
        if level not in ("+", "#") and ("+" in level or "#" in level):
            raise ConfigurationError(
                f"topic {text!r}: {level!r} mixes a wildcard with text: + and # fill a level"
            )
    if "#" in levels[:-1]:
        raise ConfigurationError(f"topic {text!r}: # stands for the rest and must be the last level")
    named = [name for name in names if name is not None]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"topic {text!r} captures {{{twice[0]}}} twice: give the second another name, or +"
        )
    if "\0" in text or len(text.encode("utf-8", "replace")) > _LONGEST:
        raise ConfigurationError(
            f"topic {text[:60]!r}… is no MQTT topic: it holds NUL or exceeds {_LONGEST} bytes"
        )


def _compile(levels: list[str], names: list[str | None]) -> re.Pattern[str]:
    parts = []
    for level, name in zip(levels, names, strict=True):
        if name is not None:
            parts.append(f"/(?P<{name}>[^/]+)")
        elif level == "+":
            parts.append("/[^/]*")
        elif level == "#":
            parts.append("(?:/.*)?")  # "a/#" matches "a" as well (MQTT 5 §4.7.1.2)
        else:
            parts.append("/" + re.escape(level))
    # "#" alone has no level before it
    body = ".*" if levels == ["#"] else "".join(parts)[1:]
    # $-topics are the broker's own: a leading wildcard does not match them (MQTT 5 §4.7.2)
    guard = r"(?!\$)" if levels[0] in ("+", "#") or names[0] is not None else ""
    return re.compile(guard + body, re.DOTALL)


def overlap(one: str, other: str) -> bool:
    """Whether some topic matches both filters (MQTT 5 §4.7)."""
    first, second = one.split("/"), other.split("/")
    if _wild(first[0]) != _wild(second[0]) and "$" in (first[0][:1], second[0][:1]):
        return False
    for mine, its in zip(first, second, strict=False):
        if "#" in (mine, its):
            return True
        if mine != its and not (_wild(mine) or _wild(its)):
            return False
    longer = max(first, second, key=len)
    # "a/#" matches "a" as well
    return len(first) == len(second) or longer[min(len(first), len(second)) :] == ["#"]


def union(one: str, other: str) -> str:
    """The narrowest filter that matches whatever one of these overlapping filters matches."""
    levels: list[str] = []
    first, second = one.split("/"), other.split("/")
    for mine, its in zip(first, second, strict=False):
        levels.append("#" if "#" in (mine, its) else mine if mine == its else "+")
    if levels[-1] != "#" and len(first) != len(second):
        levels.append("#")
    return "/".join(levels)


def apart(filters: Mapping[str, int]) -> dict[str, int]:
    """Filters of which no two overlap, and which together match whatever these match; each with the highest QoS.

    Brokers may send a copy of a message for each subscription that it matches (MQTT 5 §3.3.4).
    """
    found: dict[str, int] = {}
    for one, qos in filters.items():
        while overlapping := next((other for other in found if overlap(one, other)), None):
            one, qos = union(one, overlapping), max(qos, found.pop(overlapping))  # noqa: PLW2901
        found[one] = qos
    return found


class Beside:
    """Topics that filters of which no two overlap bring beside those that were asked for; see :func:`apart`."""

    def __init__(self, filters: Sequence[str]) -> None:
        self._asked = [Template(one) for one in filters]
        wider = apart(dict.fromkeys(filters, 0)).keys() - set(filters)
        self._wider = [Template(one) for one in wider]

    def holds(self, topic: str) -> bool:
        """Whether the topic is not asked for, and comes all the same."""
        return any(one.match(topic) is not None for one in self._wider) and not any(
            one.match(topic) is not None for one in self._asked
        )


def _wild(level: str) -> bool:
    return level in ("+", "#")
