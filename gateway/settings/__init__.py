"""What can be configured. :func:`load` is the way in; a part gets the section that it needs, never the tree."""

from __future__ import annotations

from gateway.settings.sections import DatabaseSettings, DeadLettersSettings, MqttSettings, TlsSettings
from gateway.settings.tree import (
    ENVELOPE_KEYS,
    NO_STREAM,
    BatchSettings,
    BufferSettings,
    DatabasesSettings,
    ObservabilitySettings,
    RegistrySettings,
    Settings,
    ShutdownSettings,
    SpoolSettings,
    StreamSettings,
    ValidationSettings,
    WatchdogSettings,
    WriterSettings,
    load,
    options,
    read_file,
)

__all__ = [
    "ENVELOPE_KEYS",
    "NO_STREAM",
    "BatchSettings",
    "BufferSettings",
    "DatabaseSettings",
    "DatabasesSettings",
    "DeadLettersSettings",
    "MqttSettings",
    "ObservabilitySettings",
    "RegistrySettings",
    "Settings",
    "ShutdownSettings",
    "SpoolSettings",
    "StreamSettings",
    "TlsSettings",
    "ValidationSettings",
    "WatchdogSettings",
    "WriterSettings",
    "load",
    "options",
    "read_file",
]
