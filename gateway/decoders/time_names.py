"""Names under which devices send the time of a reading: one that is not configured is told, and not taken for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OF = (
    "utc|gmt|unix|epoch|event|device|sensor|sample|measurement|message|source|gps|record|reading|observation"
)
_UNIT = "utc|unix|epoch|iso|iso8601|seconds|sec|milliseconds|millis|msec|ms|micros|usec|us|nanos|ns"
_NAME = re.compile(
    rf"[@_$]?(?:(?:{_OF})[-_. ]?)?(?:time[-_ ]?stamp|date[-_ ]?time|time|ts|tst)(?:[-_. ]?(?:{_UNIT})|[-_]s)?"
    r"|(?:measured|recorded|sampled|observed|created|sent|received|reported)[-_ ]?at|(?:unix[-_ ]?)?epoch"
)
_LONGEST, _MOST = 40, 4096
_others: set[str] = set()
"""Names seen that mean no time: devices send the same keys again and again. Bounded in number and length."""


def unused(tree: Mapping[str, Any]) -> str | None:
    """The first key that is surely meant as the time, and holds what may be one: a number or text."""
    return None if _others.issuperset(tree) else _look(tree)


def _look(tree: Mapping[str, Any]) -> str | None:
    for name, value in tree.items():
        if len(name) > _LONGEST:
            continue
        if not _NAME.fullmatch(name.lower()):
            if len(_others) >= _MOST:
                _others.clear()
            _others.add(name)
        elif type(value) in (int, float, str):
            return name
    return None
