"""Payload formats: one file and one line here each."""

from __future__ import annotations

from gateway.decoders import json
from gateway.decoders.base import Decode, Format, Limits
from gateway.errors import ConfigurationError

_FORMATS: dict[str, Format] = {
    "json": Format(json.decoder, fast_path=True),
}


def build(name: str, limits: Limits) -> Decode:
    """The decoder of this name; see :func:`format_of`."""
    return format_of(name).make(limits)


def format_of(name: str) -> Format:
    """The format of this name.

    Raises:
        ConfigurationError: there is none; the text names those that there are.
    """
    if name not in _FORMATS:
        raise ConfigurationError(f"no decoder {name!r}: there are {', '.join(sorted(_FORMATS))}")
    return _FORMATS[name]


__all__ = ["Decode", "Format", "Limits", "build", "format_of"]
