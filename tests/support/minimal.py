"""A configuration that works: what the annotated sample sets."""

from __future__ import annotations

from pathlib import Path

MINIMAL = """
[mqtt]
host = "127.0.0.1"
port = 1883
client_id = "gateway-1"

[databases.metadata]
dsn = "postgresql://gateway@127.0.0.1/gateway_metadata"

[databases.timeseries]
dsn = "postgresql://gateway@127.0.0.1/gateway_timeseries"

[[streams]]
name = "telemetry"
topic = "tenants/{tenant}/devices/{device}/telemetry"   # {device} is the serial number
decoder = "json"
unknown_device = "dead_letter"                            # or "provision" with a device type, or "ignore"
"""


def with_more(file: Path, text: str) -> Path:
    """The same file with more of it."""
    file.write_text(file.read_text() + text)
    return file
