"""Layouts: how readings lie in their tables. A module or folder each; ``base`` says what it must have."""

from __future__ import annotations

from gateway.writer.layouts.base import Layout, StreamTarget
from gateway.writer.layouts.document import DOCUMENT

TELEMETRY = StreamTarget("telemetry", DOCUMENT)
"""Where readings go that no stream sends elsewhere."""

__all__ = ["DOCUMENT", "TELEMETRY", "Layout", "StreamTarget"]
