"""Text that a terminal or a table library would obey, and what must never reach a terminal."""

from __future__ import annotations

import re

MARKUP = "[/b] [link=https://evil.example]pump[/link] [red]"
"""Must come out as it is."""
CONTROLS = (
    "\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\x85\u202e\u2066\u200f\u061c\u200b\u2028\u2029\ufeff"
    "\U000e0041\ue000\r\n\tend"
)
"""Must come out escaped."""
NAME = f"Pump {MARKUP} {CONTROLS}"

_RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\ud800-\uf8ff\U000e0000-\U000e0fff]"
)
"""Of what a command printed; newline and tab are ours."""


def raw(output: str) -> list[str]:
    """What of an output a terminal would obey."""
    return _RAW.findall(output)
