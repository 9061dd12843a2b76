"""No regular expression of the package takes more than linear time, whatever a device or a server says."""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

import pytest

import gateway

SEARCHING = ("search", "sub", "subn", "finditer", "findall", "split")
BOUNDED = {
    "gateway.decoders.timestamps": 64,
    "gateway.cli": 4096,
    "gateway.tools.demo": 4096,
    "gateway.tools.bench": 4096,
}
"""Characters of the longest text that the patterns of a package meet; others meet what is as long as it likes."""
LONGEST = 10_000
LENGTHS = (18, 22, 64, 200, 700, 2500, LONGEST)
"""Growing, so that what takes exponential time is found before it takes for ever."""
SECONDS = 0.1
"""Of CPU; what is linear takes a hundredth of it, what is quadratic ten times as much."""


_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)


class Pattern(NamedTuple):
    """A pattern, and whether it is looked for in a text or tried at its beginning only."""

    module: str
    name: str
    compiled: re.Pattern[Any]
    searched: bool

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def modules() -> Iterator[str]:
    """All of the package but what only runs as a program."""
    for found in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if not found.name.endswith("__main__"):
            yield found.name


def patterns() -> Iterator[Pattern]:
    """Those that stand in modules by name, alone or in a collection, and those in calls of ``re``."""
    for module in modules():
        loaded = importlib.import_module(module)
        source = Path(str(loaded.__file__)).read_text("utf-8")
        for name, value in vars(loaded).items():
            for number, compiled in enumerate(_compiled(value)):
                used = re.findall(rf"\b{name}\.(\w+)\(", source)
                searched = not used or bool(set(used) & set(SEARCHING))
                if f"{name} = " in source or f"{name}: " in source:
                    yield Pattern(module, f"{name}[{number}]" if number else name, compiled, searched)
        yield from _called(module, ast.parse(source))


def _compiled(value: object) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple | list | frozenset | set):
        for inner in value:
            yield from _compiled(inner)
    elif isinstance(value, dict):
        yield from _compiled([*value.keys(), *value.values()])


def _called(module: str, tree: ast.AST) -> Iterator[Pattern]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr != "compile"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            compiled = re.compile(str(node.args[0].value))
            yield Pattern(module, f"line {node.lineno}", compiled, node.func.attr in SEARCHING)


ALL = list(patterns())


def test_all_patterns_were_found() -> None:
    """Those that this is about are among them."""
    assert {"gateway.redaction._BEFORE", "gateway.decoders.json._FAR_EXPONENTS"} <= set(map(str, ALL))
    assert len(ALL) > 30
    found = {pattern.module for pattern in ALL}
    for module in modules():
        source = Path(str(importlib.import_module(module).__file__)).read_text("utf-8")
        assert "re.compile(" not in source or module in found or "_pattern = _compile" in source, module


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_takes_linear_time(pattern: Pattern) -> None:
    """Texts made of the pattern's own parts, repeated and then spoilt."""
    assert slowest(pattern.compiled, _longest(pattern.module), searched=pattern.searched) is None


@pytest.mark.parametrize(
    "bad",
    [
        r"(a+)+b",
        r"a\w*b\w*c\w*!",
        r"\w%3A%2F%2F[\w.~%-]*?%3A[^\s'\"<>&]+(?=%40)",
        r"(.*\d\d:?\d\d:?)60(.*)",
    ],
)
def test_what_is_slow_is_found(bad: str) -> None:
    """The third was in the log's redaction: one topic of 12 KB cost 42 s; the fourth is in timestamps."""
    assert slowest(re.compile(bad), LONGEST, searched=True) is not None


def test_what_is_slow_when_all_of_a_text_must_match_is_found() -> None:
    """It was in quantities: a setting of 64 KB of blanks, and a sign behind them, took 21 s of CPU."""
    bad = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
    assert slowest(bad, LONGEST, searched=False) is not None


def _longest(module: str) -> int:
    return next((most for name, most in BOUNDED.items() if module.startswith(name)), LONGEST)


def slowest(pattern: re.Pattern[Any], longest: int, *, searched: bool) -> str | None:
    """A text for which it takes too long, in words; None: there is none."""
    for before, pump, behind in _attacks(pattern):
        for length in LENGTHS:
            room = min(length, longest) - len(before) - len(behind)
            text = (before + pump * max(1, room // len(pump)) + behind)[-longest:]
            given = text.encode("utf-8", "replace") if isinstance(pattern.pattern, bytes) else text
            # Thrice: other work of the machine, and what Python collects meanwhile, is in it too.
            if all(_seconds(pattern, given, searched=searched) > SECONDS for _ in range(3)):
                return f"{before!r} + {pump!r} * n + {behind!r}: {len(text)} characters"
    return None


def _seconds(pattern: re.Pattern[Any], text: Any, *, searched: bool) -> float:
    """Of CPU."""
    began = time.thread_time()
    if searched:
        for _ in pattern.finditer(text):
            pass
    else:
        pattern.match(text)
        pattern.fullmatch(text)
    return time.thread_time() - began


def _attacks(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    """What comes before, what is repeated, and what spoils it."""
    raw = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    tree = _parser.parse(
        raw, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
    )
    pieces = list(dict.fromkeys(piece for piece in _pieces(tree) if piece))
    whole = _sample(tree)
    pumps = list(dict.fromkeys([*pieces, whole, *map("".join, itertools.pairwise(pieces))]))[:12]
    for pump in filter(None, pumps):
        yield from (("", pump, ""), (whole, pump, "\n"), ("", pump, "\0"))
    parts = list(tree)
    for at, part in enumerate(parts):  # two parts side by side that take the same, and nothing that ends them
        yield _sample(parts[:at]), _sample([part]) or " ", "\0"


def _pieces(tree: Iterable[Any]) -> Iterator[str]:
    """A sample of each part, and of each of its beginnings."""
    parts = list(tree)
    for at, part in enumerate(parts):
        if part[0] is not _constants.LITERAL:
            yield _sample(parts[:at])
            yield _sample([part])
        for inner in _inside(part):
            yield from _pieces(inner)


def _inside(part: Any) -> Iterator[Any]:
    kind, value = part
    if kind in _REPEATS:
        yield value[2]
    elif kind is _constants.SUBPATTERN:
        yield value[-1]
    elif kind is _constants.ATOMIC_GROUP:
        yield value
    elif kind is _constants.BRANCH:
        yield from value[1]


def _sample(tree: Iterable[Any]) -> str:
    """A short text that it matches, near enough."""
    return "".join(_of(kind, value) for kind, value in tree)


def _of(kind: Any, value: Any) -> str:
    if kind is _constants.LITERAL:
        return chr(value)
    if kind is _constants.IN:
        return _member(value)
    if kind is _constants.BRANCH:
        return _sample(value[1][0])
    if kind in _REPEATS:
        return _sample(value[2]) * max(int(value[0]), 1)
    if kind in (_constants.SUBPATTERN, _constants.ATOMIC_GROUP):
        return _sample(value[-1] if kind is _constants.SUBPATTERN else value)
    return "a" if kind in (_constants.ANY, _constants.NOT_LITERAL) else ""


def _member(ranges: Any) -> str:
    """A character of a set."""
    negated = ranges[0][0] is _constants.NEGATE
    for candidate in "a1 -_:/%.~@=\"'\0é":
        if negated != any(_holds(one, candidate) for one in ranges):
            return candidate
    found = next((low for kind, low in ranges if kind is _constants.LITERAL), None)
    return chr(found) if found is not None else "a"


def _holds(one: Any, character: str) -> bool:
    kind, value = one[0], one[1]
    if kind is _constants.LITERAL:
        return bool(value == ord(character))
    if kind is _constants.RANGE:
        return bool(value[0] <= ord(character) <= value[1])
    if kind is _constants.CATEGORY:
        letter = str(value).rpartition("_")[2][0].lower()  # CATEGORY_NOT_SPACE
        return ("NOT" in str(value)) != (re.fullmatch(f"\\{letter}", character) is not None)
    return False
