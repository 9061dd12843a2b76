"""Payload formats: one file and one line here each."""

from __future__ import annotations

from gateway.decoders import json
from gateway.decoders.base import Decode, Factory, Limits
from gateway.errors import ConfigurationError

_FORMATS: dict[str, Factory] = {
    "json": json.decoder,
}


def build(name: str, limits: Limits) -> Decode:
    """The decoder of this name.

    Raises:
        ConfigurationError: there is none; the text names those that there are.
    """
    if name not in _FORMATS:
        raise ConfigurationError(f"no decoder {name!r}: there are {', '.join(sorted(_FORMATS))}")
    return _FORMATS[name](limits)


__all__ = ["Decode", "Limits", "build"]
