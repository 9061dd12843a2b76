"""What is wrong with the settings, in plain words."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pydantic

from gateway.errors import ConfigurationError

_PLAIN_WORDS = {
    "missing": "is required and not given",
    "extra_forbidden": "there is no such option; `gateway config sample` shows all",
}


def explain(error: pydantic.ValidationError, path: Path | None) -> str:
    """One line a mistake; values are not repeated, they may be secrets."""
    lines = [f"{path or 'environment'}: {error.error_count()} mistake(s)"]
    for found in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in found["loc"]) or "settings"
        text = _PLAIN_WORDS.get(found["type"], found["msg"].removeprefix("Value error, "))
        lines.append(f"  {where}: {text}")
    return "\n".join(lines)


def refuse_unknown_sections(known: Collection[str]) -> None:
    """A mistyped section in the environment would be overlooked: pydantic looks for the names it knows.

    Raises:
        ConfigurationError: naming the variable, and the sections there are.
    """
    for name in sorted(os.environ):
        section = name.lower().removeprefix("gateway__").split("__")[0]
        if name.lower().startswith("gateway__") and section not in known:
            raise ConfigurationError(
                f"environment: {name}: there is no section {section!r}; there are {', '.join(known)}"
            )
