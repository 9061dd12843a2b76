"""What is wrong with a payload of JSON, and where: found out slowly, for those few that are refused."""

from __future__ import annotations

import collections
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from gateway.decoders import paths
from gateway.errors import MessageError
from gateway.outcomes import Reason

LONGEST_NUMBER = 308
"""Digits; an integer with more may be beyond double precision, and would break every rollup that meets it."""
TOO_DEEP = "nested deeper than validation.max_depth"

_SIGNATURES = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "a zip file"),
    (b"\x78\x01", "zlib"),
    (b"\x78\x5e", "zlib"),
    (b"\x78\x9c", "zlib"),
    (b"\x78\xda", "zlib"),
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_UNMARKED = ((re.compile(rb"\0\0\0[^\0]|[^\0]\0\0\0"), "UTF-32"), (re.compile(rb"\0[^\0]|[^\0]\0"), "UTF-16"))
"""JSON begins with ASCII, by which RFC 4627 §3 tells encodings apart."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Bad:
    """Stands in a tree for a number that is none."""

    def __init__(self, what: str) -> None:
        self.what = what


def explain(payload: bytes) -> MessageError:
    """Why the fast parser refused: its texts name positions, not reasons, and it mistakes some."""
    if not payload.strip():
        return MessageError(Reason.EMPTY, "the payload is empty")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        return MessageError(Reason.NOT_UTF8, _signed(payload) or f"byte {error.start} is no UTF-8")
    if payload.startswith(_BYTE_ORDER_MARK):
        return MessageError(Reason.MALFORMED, "a byte order mark (EF BB BF) before the JSON: send none")
    try:
        tree = json.loads(text, parse_constant=_constant, parse_int=_whole, parse_float=_fraction)
    except RecursionError:
        return MessageError(Reason.TOO_DEEP, TOO_DEEP)
    except json.JSONDecodeError as error:
        return MessageError(Reason.MALFORMED, _wide(payload) or _behind(error) or f"not JSON: {error}")
    return _unstorable(tree)


def _signed(payload: bytes) -> str | None:
    """What the payload is instead of JSON in UTF-8, where its first bytes tell."""
    found = next((name for start, name in _SIGNATURES if payload.startswith(start)), None)
    return None if found is None else f"the payload is {found}: send JSON in UTF-8, not compressed"


def _wide(payload: bytes) -> str | None:
    """Whether each character takes two or four bytes, without a byte order mark; None: they do not."""
    found = next((name for pattern, name in _UNMARKED if pattern.match(payload)), None)
    return None if found is None else f"the payload looks like {found}: send JSON in UTF-8"


def _behind(error: json.JSONDecodeError) -> str | None:
    """What stands behind a whole JSON value; None: that is not what is wrong."""
    if error.msg != "Extra data":
        return None
    rest = error.doc[error.pos :]
    what = "NUL" if not rest.strip("\0") else "another JSON value" if rest[0] in "{[" else repr(rest[:20])
    return f"{len(rest.encode())} bytes after the JSON, from character {error.pos} on: {what}"


def _constant(name: str) -> object:
    return _Bad(f"{name} is no JSON number")


def _whole(digits: str) -> object:
    return _too_long(len(digits)) if _is_beyond(digits) else 0


def _fraction(digits: str) -> object:
    return _Bad(f"{digits[:40]} is beyond double precision") if math.isinf(float(digits)) else 0.0


def _is_beyond(digits: str) -> bool:
    return len(digits) > LONGEST_NUMBER and math.isinf(float(digits))


def _too_long(digits: int) -> _Bad:
    return _Bad(f"a number of {digits} digits is beyond double precision")


def _unstorable(tree: Any) -> MessageError:
    """JSON, but for the fast parser: a number that is none, or text that is none."""
    path, value = paths.first(tree, lambda value: isinstance(value, _Bad))
    if isinstance(value, _Bad):
        return MessageError(Reason.BAD_NUMBER, paths.at_path(path, value.what))
    path, _ = paths.first(tree, _has_surrogate)
    return MessageError(
        Reason.BAD_TEXT, paths.at_path(path, "a lone surrogate in a string: no UTF-8 text can hold it")
    )


def _has_surrogate(value: object) -> bool:
    return any(_SURROGATE.search(text) for text in _texts(value))


def _has_nul(value: object) -> bool:
    return any("\0" in text for text in _texts(value))


def _texts(value: object) -> Iterable[str]:
    """The text that this value itself is, or its keys are."""
    return value if isinstance(value, dict) else (value,) if isinstance(value, str) else ()


def check_keys(payload: bytes) -> None:
    """Msgspec keeps the last of equal keys, so a reading would silently lose the others.

    Raises:
        MessageError: ``duplicate_key``.
    """
    try:
        json.loads(payload, object_pairs_hook=_unique, parse_int=len, parse_float=len)
    except _TwiceError:
        tree = json.loads(payload, object_pairs_hook=paths.Pairs, parse_int=len, parse_float=len)
    else:
        return
    path, pairs = paths.first(
        tree, lambda value: isinstance(value, paths.Pairs) and _twice(value) is not None
    )
    assert isinstance(pairs, paths.Pairs)
    what = f"the key {(_twice(pairs) or '')[:60]!r} stands twice in one object"
    raise MessageError(Reason.DUPLICATE_KEY, paths.at_path(path, what))


class _TwiceError(Exception):
    """Some key stands twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise _TwiceError
    return tree


def _twice(pairs: paths.Pairs) -> str | None:
    seen = collections.Counter(name for name, _ in pairs).most_common(1)
    return seen[0][0] if seen and seen[0][1] > 1 else None


def check_text(tree: object) -> None:
    """Escapes can smuggle in NUL, which PostgreSQL's text and jsonb cannot hold.

    Raises:
        MessageError: ``bad_text``.
    """
    if _any_nul(tree):
        path, _ = paths.first(tree, _has_nul)
        what = "NUL (\\u0000) in a string: PostgreSQL cannot store it"
        raise MessageError(Reason.BAD_TEXT, paths.at_path(path, what))


def _any_nul(tree: object) -> bool:
    if isinstance(tree, dict):
        return any(_any_nul(key) or _any_nul(value) for key, value in tree.items())
    if isinstance(tree, list):
        return any(map(_any_nul, tree))
    return isinstance(tree, str) and "\0" in tree


def check_numbers(tree: object) -> None:
    """Integers that no double holds would break every rollup that meets them.

    Raises:
        MessageError: ``bad_number``.
    """
    path, value = paths.first(tree, lambda value: type(value) is int and _is_beyond(str(value)))
    if type(value) is int:
        raise MessageError(Reason.BAD_NUMBER, paths.at_path(path, _too_long(len(str(value))).what))


def check_depth(tree: object, most: int) -> None:
    """No object or array in more than so many others.

    Raises:
        MessageError: ``nested_too_deep``.
    """
    level = [tree]
    for _ in range(most):
        level = [inner for value in level for inner in _values(value) if type(inner) in (dict, list)]
    if level:
        raise MessageError(Reason.TOO_DEEP, TOO_DEEP)


def _values(value: Any) -> Iterable[Any]:
    return value.values() if type(value) is dict else value


def check_count(payload: bytes, most: int) -> None:
    """No more values than so many: as many as commas, and one, or opening brackets, that stand in no text.

    Raises:
        MessageError: ``unexpected_shape``.
    """
    # Not by a pattern for texts: where one is not closed, it would be looked for from each quote anew.
    plain = payload.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(plain.split(b'"')[::2])
    count = max(outside.count(b",") + 1, outside.count(b"[") + outside.count(b"{"))
    if count > most:
        what = f"{count} values in one message, more than {most} (validation.max_values)"
        raise MessageError(Reason.BAD_SHAPE, what)
