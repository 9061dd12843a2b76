"""What can be configured. :func:`load` is the way in; a part gets the section that it needs, never the tree."""

from __future__ import annotations

from gateway.settings.sections import Database, DeadLetters, Mqtt, Tls
from gateway.settings.tree import (
    NO_STREAM,
    Batch,
    Buffer,
    Databases,
    Observability,
    Registry,
    Settings,
    Shutdown,
    Spool,
    Stream,
    Validation,
    Watchdog,
    Writer,
    load,
    options,
    read_file,
)

__all__ = [
    "NO_STREAM",
    "Batch",
    "Buffer",
    "Database",
    "Databases",
    "DeadLetters",
    "Mqtt",
    "Observability",
    "Registry",
    "Settings",
    "Shutdown",
    "Spool",
    "Stream",
    "Tls",
    "Validation",
    "Watchdog",
    "Writer",
    "load",
    "options",
    "read_file",
]
