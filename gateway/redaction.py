"""Keep secrets out of what people read: logs, error texts, ``gateway config show``.

A last net, not a licence: nothing should hand a secret to a log at all. It rather hides too much.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

HIDDEN = "***"
_SHORTEST = 8
"""Of a password of plain letters and digits: a shorter one may be a word of any text, and the patterns find it."""
_known: dict[str, None] = {}

_SECRET_KEY = re.compile(
    r"(password|passwd|pwd|secret|token|api_?key|private_?key|credential|authorization)s?$", re.I
)

# To the last @ of the word: a password may hold an @, : or / that was not encoded. Words, and the last @ in them, are
# looked for apart: a pattern that does both tries each beginning with each end.
_WORD = re.compile(r"[^\s'\"<>]+")
_BEFORE = re.compile(r"\w://[^\s:/@'\"<>]*+:")
_ENCODED_WORD = re.compile(r"[^\s'\"<>&]+")
_BEFORE_ENCODED = re.compile(r"\w%3A%2F%2F(?:[\w.~-]|%(?!3A))*+%3A", re.I)
_IN_PAIR = re.compile(
    r"(?P<kept>(?:password|passwd|pwd|secret|token|api_?key)[\"']?\s*(?:=|(?<=[\"']):|(?<=[\"']\s):)\s*)"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s&;,'\"]+)",
    re.I,
)


def know(secret: str) -> None:
    """Hide this secret wherever it stands, in any of the forms in which texts have it."""
    if len(secret) < 3 or (len(secret) < _SHORTEST and secret.isalnum()):
        return
    forms = {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    _known.update(dict.fromkeys(forms))


def is_secret(name: str) -> bool:
    """Whether a value so named is secret as a whole: ``password``, ``api_token``; not ``password_file``."""
    return _SECRET_KEY.search(name) is not None


def redact(text: str) -> str:
    """The text without passwords: known ones, and in URLs, URL-encoded URLs, ``password=…`` and ``"password": "…"``."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _WORD.sub(lambda word: _without_password(word[0], _BEFORE, "@"), text)
    if "%2f%2f" in (lowered := text.lower()) and "%40" in lowered:
        text = _ENCODED_WORD.sub(lambda word: _without_password(word[0], _BEFORE_ENCODED, "%40"), text)
    return _IN_PAIR.sub(rf"\g<kept>{HIDDEN}", text)


def _without_password(word: str, before: re.Pattern[str], end: str) -> str:
    """The word without what stands between a URL's user, as far as ``before`` finds it, and the last ``end``."""
    last = word.rfind(end)
    found = next((one for one in before.finditer(word, 0, max(last, 0)) if one.end() < last), None)
    return word if found is None else f"{word[: found.end()]}{HIDDEN}{word[last:]}"
