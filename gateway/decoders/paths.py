"""Where in a decoded payload something stands, as people write it: ``[3].metrics.temperature``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Path = tuple[str | int, ...]

_PLAIN_NAME = re.compile(r"\w[\w-]{0,59}")
_LONGEST = 120


class Pairs(list[tuple[str, object]]):
    """An object of which equal keys are kept, as ``json.loads`` gives it to ``object_pairs_hook``."""


def spell(path: Path) -> str:
    """The path as text, bounded in length; empty for the whole payload."""
    text = "".join(
        f"[{step}]"
        if isinstance(step, int)
        else f".{step if _PLAIN_NAME.fullmatch(step) else repr(step[:60])}"
        for step in path
    )
    text = text.removeprefix(".")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


def at_path(path: Path, what: str) -> str:
    """What is wrong, with where it is."""
    return f"{spell(path)}: {what}" if path else what


def first(tree: object, wrong: Callable[[object], bool]) -> tuple[Path, object]:
    """The first value for which this holds, and its path; the whole where there is none.

    Without recursion: payloads may be nested deeper than Python calls.
    """
    root: _Node = (None, "", tree)
    stack = [root]
    while stack:
        node = stack.pop()
        if wrong(node[2]):
            return _path(node), node[2]
        stack.extend([(node, step, value) for step, value in _inside(node[2])][::-1])
    return (), tree


_Node = tuple["_Node | None", str | int, object]
"""Where it is in, under which key or index, and the value."""


def _inside(value: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(value, Pairs):
        return value
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _path(node: _Node) -> Path:
    steps: list[str | int] = []
    while node[0] is not None:
        steps.append(node[1])
        node = node[0]
    return tuple(reversed(steps))
