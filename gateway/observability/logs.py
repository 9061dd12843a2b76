"""Where log lines go, and what never gets into one.

One chain for our own events and for the libraries' stdlib logging (aiohttp, alembic, asyncio, paho). Logs go
to stderr: stdout belongs to the answers of commands.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.foreign import visible, visible_lines
from gateway.redaction import HIDDEN, is_secret, redact
from gateway.settings import ObservabilitySettings

_LOOKED_AT, _SHOWN = 2**16, 2**13
"""Characters of a value in which secrets are looked for, and of which it is cut after: so that none is cut in two."""


def configure(settings: ObservabilitySettings, stream: TextIO | None = None) -> None:
    """Set up logging for this process; may be called again.

    Args:
        settings: level and format; ``auto`` is console when the stream is a terminal, JSON otherwise.
        stream: where lines go; stderr by default.
    """
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*_before(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # module-level loggers must follow a later configure()
    )
    output = logging.StreamHandler(stream)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_before(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                hide_payload,
                hide_secrets,
                *_renderers(settings.log_format, stream),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[output], force=True)
    logging.getLogger("asyncio").addFilter(_is_news)
    logging.captureWarnings(capture=True)  # a bare warning on stderr would break a parser of the JSON log


def _is_news(record: logging.LogRecord) -> bool:
    """Whether anything failed: a dial that is cancelled leaves a future of asyncpg behind, which nothing awaits."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, ConnectionError) and str(error) == "unexpected connection_lost() call")


def hide_payload(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Above debug level a payload, or any bytes, is only told by its size."""
    if event.get("level") == "debug":
        return event
    return {key: _size(key, value) for key, value in event.items()}


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Values of secret names, and passwords within texts, however deep."""
    return {key: _hide(key, value) for key, value in event.items()}


def _before() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # here, so that tracebacks pass hide_secrets as well
    ]


def _renderers(log_format: str, stream: TextIO) -> list[Processor]:
    terminal = stream.isatty()
    if log_format == "console" or (log_format == "auto" and terminal):
        # Not rich's tracebacks: they print local variables, and with them payloads and secrets.
        return [
            _visible,
            structlog.dev.ConsoleRenderer(
                colors=terminal and "NO_COLOR" not in os.environ,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    return [_head_first, structlog.processors.JSONRenderer(default=str)]


def _visible(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What devices and servers said does no harm to a terminal; tracebacks keep their lines. JSON escapes by itself."""
    return {key: _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return visible_lines(value) if key in ("exception", "stack") else visible(value)
    return value if value is None or isinstance(value, (bool, int, float)) else visible(str(value))


def _head_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """People read JSON too: time, level and event at the front."""
    head = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return {**head, **event}


def _size(key: str, value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if key == "payload":
        return f"<{len(str(value))} characters>"
    return value


def _hide(key: str, value: Any) -> Any:
    if is_secret(key):
        return HIDDEN
    if isinstance(value, str):
        return _redacted(value)
    if isinstance(value, Mapping):
        return {inner: _hide(str(inner), found) for inner, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hide(key, found) for found in value]
    if isinstance(value, BaseException):
        return _redacted(str(value))
    return value


def _redacted(text: str) -> str:
    """Without secrets, and not without end: topics and payloads that devices send stand in it."""
    shown = redact(text[:_LOOKED_AT])
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}… ({len(text)} characters)"
