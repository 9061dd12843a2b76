"""The annotated configuration file, written from the settings models: ``config/gateway.toml`` is this text.

Every section and option is there. What a working installation must say is set; defaults are commented out,
and so are examples of what has no default.
"""

from __future__ import annotations

import datetime as dt
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from gateway import quantities
from gateway.settings import Settings

_WIDTH = 100

_HEADER = """\
# Configuration of the gateway: every option, its default or an example commented out.
#
#   gateway config check     says whether a file is right, and what is wrong with it
#   gateway config show      shows what is in force, and where each value comes from
#
# The environment overrides this file: GATEWAY__MQTT__HOST is host in [mqtt].
# Durations are seconds, or text with a unit: us ms s min h d. Sizes are bytes, or text: kB MB KiB MiB …
#
# Written by `gateway config sample` from the settings themselves.
"""

MINIMAL: Mapping[str, Any] = {
    "mqtt": {"host": "127.0.0.1", "port": 1883, "client_id": "gateway-1"},
    "databases": {
        "metadata": {"dsn": "postgresql://gateway@127.0.0.1/gateway_metadata"},
        "timeseries": {"dsn": "postgresql://gateway@127.0.0.1/gateway_timeseries"},
    },
    "streams": [
        {
            "name": "telemetry",
            "topic": "tenants/{tenant}/devices/{device}/telemetry",
            "decoder": "json",
            "unknown_device": "dead_letter",
        }
    ],
}
"""A configuration that works; what the sample sets, with some defaults that are chosen first."""


def sample() -> str:
    """The text of the annotated file."""
    return _HEADER + "".join(_tree(Settings, MINIMAL, ()))


def as_written(field: FieldInfo, value: Any) -> Any:
    """A value as people write it: durations and sizes with their unit, paths as text."""
    parser = next((mark.func for mark in _marks(field) if isinstance(mark, BeforeValidator)), None)
    if value is not None and parser is quantities.parse_duration:
        return quantities.format_duration(value)
    if value is not None and parser is quantities.parse_size:
        return quantities.format_size(value)
    if isinstance(value, dt.datetime):
        return quantities.format_moment(value)
    return str(value) if isinstance(value, Path) else value


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section, an optional one, or a list of them; None: it is an option."""
    candidates = (field.annotation, *get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _tree(model: type[BaseModel], given: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """A section's options, then the sections within: TOML wants it in this order."""
    sections = {name: section for name, field in model.model_fields.items() if (section := section_of(field))}
    for name, field in model.model_fields.items():
        if name not in sections:
            yield _option(name, field, given)
    for name, section in sections.items():
        yield from _section(section, model.model_fields[name], given.get(name), (*path, name))


def _section(section: type[BaseModel], field: FieldInfo, given: Any, path: tuple[str, ...]) -> Iterator[str]:
    inner = given[0] if isinstance(given, list) else given or {}
    if any(not section_of(option) for option in section.model_fields.values()):
        yield "\n\n" + _comment(field.description or section.__doc__ or "")
        yield _heading(field, given, ".".join(path))
    yield from _tree(section, inner, path)


def _heading(field: FieldInfo, given: Any, path: str) -> str:
    heading = f"[[{path}]]" if isinstance(given, list) else f"[{path}]"
    optional = field.default is None  # its mere presence would switch something on
    return f"# {heading}\n" if optional and given is None else f"{heading}\n"


def _option(name: str, field: FieldInfo, given: Mapping[str, Any]) -> str:
    about = "\n" + _comment(" ".join((field.description or "", *_limits(field))))
    if name in given:
        return f"{about}{name} = {_toml(given[name])}\n"
    default = as_written(field, field.get_default())
    shown = default if default not in (None, ()) else field.examples[0] if field.examples else ""
    return f"{about}# {name} = {_toml(shown)}\n"


def _limits(field: FieldInfo) -> Iterator[str]:
    """What may be written, as far as the type says it."""
    if get_origin(field.annotation) is Literal:
        yield f"[{' | '.join(map(str, get_args(field.annotation)))}]"
    bounds: list[Any] = [mark.ge for mark in field.metadata if isinstance(mark, Ge)]
    lowest = max(bounds, default=0)
    highest: Any = next((mark.le for mark in field.metadata if isinstance(mark, Le)), None)
    if highest is not None:
        yield f"[{as_written(field, lowest)} … {as_written(field, highest)}]"
    elif lowest > 0:
        yield f"[at least {as_written(field, lowest)}]"
    if field.default in (None, ()):
        yield "[unset by default]"


def _marks(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for inner in get_args(field.annotation):  # of ``Seconds | None``, the marks are on the part
        yield from getattr(inner, "__metadata__", ())


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH))


def _toml(value: Any) -> str:
    """A TOML value; for what occurs in settings its basic strings, numbers and arrays are those of JSON."""
    return json.dumps(value, ensure_ascii=False)
