"""The settings in force, option by option, with where each value comes from; secrets hidden."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from gateway.redaction import HIDDEN, is_secret
from gateway.settings import Settings, dsn_text, load, read_file
from gateway.settings.sample import as_written


class Origin(enum.StrEnum):
    """Where a value comes from; the later wins."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


class Option(msgspec.Struct, frozen=True):
    """One option in force.

    Attributes:
        name: with its sections: ``mqtt.host``, ``streams.0.topic``.
        value: as people write it; secrets hidden.
    """

    name: str
    value: Any
    origin: Origin


def effective(file: Path | None) -> list[Option]:
    """All options as the daemon would see them, in the order of the annotated file.

    Raises:
        ConfigurationError: the settings are wrong.
    """
    loaded = load(file)
    given = _origins(read_file(file), Origin.FILE)
    return list(
        _options(loaded, _over(_origins(EnvSettingsSource(Settings)(), Origin.ENVIRONMENT), given), ())
    )


def _origins(tree: Any, origin: Origin) -> Any:
    """The same tree with the origin in the place of every value."""
    if isinstance(tree, Mapping):
        return {name: _origins(inner, origin) for name, inner in tree.items()}
    if isinstance(tree, list):
        return {str(place): _origins(inner, origin) for place, inner in enumerate(tree)} | {_LIST: origin}
    return origin


_LIST = ""
"""Marks a list in a tree of origins: lists replace each other as a whole, sections are merged."""


def _over(upper: Any, lower: Any) -> Any:
    if not isinstance(upper, dict) or not isinstance(lower, dict) or _LIST in upper:
        return upper
    return lower | {name: _over(inner, lower.get(name)) for name, inner in upper.items()}


def _options(section: BaseModel, origins: Any, path: tuple[str, ...]) -> Iterator[Option]:
    for name, field in type(section).model_fields.items():
        yield from _values(getattr(section, name), field, _within(origins, name), (*path, name))


def _values(value: Any, field: FieldInfo, origins: Any, path: tuple[str, ...]) -> Iterator[Option]:
    if isinstance(value, BaseModel):
        yield from _options(value, origins, path)
    elif isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        for place, item in enumerate(value):
            yield from _options(item, _within(origins, str(place)), (*path, str(place)))
    else:
        found = origins.get(_LIST, Origin.DEFAULT) if isinstance(origins, dict) else origins
        yield Option(".".join(path), _shown(path[-1], field, value), found)


def _within(origins: Any, name: str) -> Any:
    return origins.get(name, Origin.DEFAULT) if isinstance(origins, dict) else Origin.DEFAULT


def _shown(name: str, field: FieldInfo, value: Any) -> Any:
    if isinstance(value, SecretStr):
        dsn = None if is_secret(name) else dsn_text.split(value.get_secret_value())
        return HIDDEN if dsn is None else dsn.shown()
    return as_written(field, value)
