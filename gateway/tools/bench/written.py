"""Settings as another process reads them: nothing left out, secrets in clear. For files that only we can read."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from gateway.quantities import format_moment


def plain(value: Any) -> Any:
    """A section, or a value in it, as JSON and TOML can hold it; what is unset is left out."""
    if isinstance(value, BaseModel):
        return {name: plain(inner) for name, inner in value if inner is not None}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, dt.datetime):
        return format_moment(value)
    return str(value) if isinstance(value, Path) else value


def toml(settings: BaseModel) -> str:
    """The whole tree as TOML, a section a line."""
    return "".join(f"{name} = {_toml(section)}\n" for name, section in plain(settings).items())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def write_private(path: Path, text: str) -> Path:
    """Write a file that only we can read, whatever was there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path
