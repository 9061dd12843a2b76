"""Durations and sizes as people write them: ``"20s"``, ``"64MiB"``."""

from __future__ import annotations

import re

_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def parse_duration(value: object) -> object:
    """Text to seconds; what is no text is left to the caller's own check.

    Raises:
        ValueError: the text is no duration.
    """
    return _parse(value, _DURATIONS, "20s") if isinstance(value, str) else value


def parse_size(value: object) -> object:
    """Text to whole bytes; what is no text is left to the caller's own check.

    Raises:
        ValueError: the text is no size.
    """
    return int(_parse(value, _SIZES, "64MiB")) if isinstance(value, str) else value


def format_duration(seconds: float) -> str:
    """Exact text in the largest unit that needs no fraction: ``5ms``, ``10min``."""
    return _format(seconds, _DURATIONS, "s")


def format_size(size: int) -> str:
    """Exact text in the largest unit that needs no fraction: ``64MiB``."""
    return _format(size, _SIZES, "B")


def _parse(text: str, units: dict[str, float], example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    factors = {"": 1.0} | {unit.lower(): factor for unit, factor in units.items()}
    if match is None or match[2].lower() not in factors:
        raise ValueError(
            f"{text!r} is no quantity: write for example {example!r} (units: {', '.join(units)})"
        )
    return float(match[1]) * factors[match[2].lower()]


def _format(value: float, units: dict[str, float], zero: str) -> str:
    exact = [f"{round(value / factor)}{unit}" for unit, factor in units.items() if _whole(value / factor)]
    return exact[-1] if exact else f"{value:g}{zero}"


def _whole(value: float) -> bool:
    return round(value) >= 1 and abs(value - round(value)) < 1e-9 * value
