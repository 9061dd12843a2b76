"""Log lines: where they go, and what never gets into one."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from gateway.observability import events, logs
from gateway.settings import ObservabilitySettings
from tests.support.hostile import NAME, raw

pytestmark = pytest.mark.usefixtures("own_logging")


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_foreign_text_does_nothing_to_a_terminal() -> None:
    """Neither event nor value can move the cursor or forge a line; tracebacks keep their lines, escaped."""
    stream = Terminal()
    logs.configure(ObservabilitySettings(log_format="console"), stream)

    def refuse() -> None:
        raise ValueError(NAME)

    try:
        refuse()
    except ValueError:
        structlog.get_logger("x").exception(f"refused {NAME}", topic=NAME, names=[NAME])
    logging.getLogger("library").warning("said %s", NAME)
    written = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue().replace("\x1b[31mred", ""))
    assert raw(written) == []
    assert "\\u202e" in written
    assert "Traceback" in written
    assert not any(line.startswith("end") for line in written.splitlines() if "Error" not in line)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The events, read as JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(level: str = "info", log_format: str = "auto") -> io.StringIO:
    """Configure logging; returns the stream that gets the lines."""
    stream = io.StringIO()
    logs.configure(
        ObservabilitySettings.model_validate({"log_level": level, "log_format": log_format}), stream
    )
    return stream


def test_an_event_is_one_line_of_json_when_nobody_watches() -> None:
    """Off a terminal every event is one JSON object with name, level, logger and time."""
    stream = configured()
    events.devices_provisioned(tenant="acme", count=3, device_type="pump")
    [line] = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    timestamp = line.pop("timestamp")
    assert line == {
        "event": "devices provisioned",
        "level": "info",
        "logger": "gateway",
        "tenant": "acme",
        "count": 3,
        "device_type": "pump",
    }
    assert timestamp.endswith("Z")


def test_a_terminal_gets_text() -> None:
    """On a terminal the same event is text for people, unless JSON is asked for."""
    terminal = Terminal()
    logs.configure(ObservabilitySettings(), terminal)
    events.registry_purged(reason="reconnected")
    assert "registry purged" in terminal.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(terminal.getvalue())
    asked = Terminal()
    logs.configure(ObservabilitySettings(log_format="json"), asked)
    events.registry_purged(reason="reconnected")
    assert lines(asked)[0]["event"] == "registry purged"


def test_logs_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to the answers of commands."""
    logs.configure(ObservabilitySettings())
    events.registry_purged(reason="reconnected")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "registry purged"


@pytest.mark.parametrize("name", ["aiohttp.server", "alembic.runtime", "asyncio", "paho.mqtt.client"])
def test_libraries_pass_the_same_chain(name: str) -> None:
    """What a library logs comes out like our own events, secrets hidden."""
    stream = configured()
    logging.getLogger(name).warning("connecting to %s", "postgresql://gateway:hunter2@db/x")
    [line] = lines(stream)
    assert (line["logger"], line["level"]) == (name, "warning")
    assert line["event"] == "connecting to postgresql://gateway:***@db/x"


def test_the_least_level_holds_for_all() -> None:
    """Below the level nothing is written, neither ours nor a library's."""
    stream = configured("warning")
    events.registry_purged(reason="reconnected")
    logging.getLogger("aiohttp").info("hello")
    assert stream.getvalue() == ""


def test_configuring_again_replaces() -> None:
    """A second configuration takes over at once, also for loggers made before it."""
    first, second = configured(), configured()
    events.registry_purged(reason="reconnected")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


SECRETS: dict[str, Callable[[structlog.stdlib.BoundLogger], object]] = {
    "a key named password": lambda log: log.info("e", password="hunter2"),
    "a key that ends in token": lambda log: log.info("e", api_token="hunter2"),
    "a secret in a nested mapping": lambda log: log.info("e", mqtt={"auth": [{"client_secret": "hunter2"}]}),
    "a DSN": lambda log: log.info("e", dsn="postgresql://gateway:hunter2@db:5432/x"),
    "a DSN with key words": lambda log: log.info(
        "e", dsn="host=db user=gateway password='hunter2 x' dbname=x"
    ),
    "a URL within a text": lambda log: log.info("cannot reach mqtts://u:hunter2@broker:8883, waiting"),
    "an encoded password in a URL": lambda log: log.info("e", url="postgresql://u:%40hunter2%2F@db/x"),
    "a password with an @ nobody encoded": lambda log: log.info("e", url="postgresql://u:a@hunter2@db/x"),
    "a URL encoded as a whole": lambda log: log.info("e", url="q=postgresql%3A%2F%2Fu%3Ahunter2%40db%2Fx"),
    "a query": lambda log: log.info("e", url="postgresql://db/x?user=u&password=hunter2&sslmode=require"),
    "JSON within a text": lambda log: log.info('refused {"user": "u", "password": "hunter2"}'),
    "an error given as it is": lambda log: log.info("e", error=OSError("postgresql://u:hunter2@db/x")),
}


@pytest.mark.parametrize("case", SECRETS)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_never(case: str, log_format: str) -> None:
    """No secret reaches the log, wherever in an event it hides, in either format."""
    stream = configured(log_format=log_format)
    SECRETS[case](structlog.get_logger("gateway"))
    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_hide_secrets_and_locals(log_format: str) -> None:
    """A traceback tells the error without its secrets, and without the values of local variables."""
    stream = configured(log_format=log_format)

    def fail(payload: str) -> None:
        raise OSError(f"postgresql://u:hunter2@db/{len(payload)}")

    try:
        fail("reading " + "of a device")
    except OSError:
        structlog.get_logger("gateway").exception("failed")
    assert "OSError: postgresql://u:***@db/19" in stream.getvalue()
    assert "reading of a device" not in stream.getvalue()


def test_ordinary_texts_stay_as_they_are() -> None:
    """Hiding secrets leaves what only resembles one: addresses, paths, files that hold a password."""
    stream = configured()
    event = "cannot read /run/secrets/mqtt_password for mqtt://broker:1883 (user@example)"
    events.log.info(event, password_file="/run/secrets/mqtt_password", url="http://127.0.0.1:9108/ready")
    [line] = lines(stream)
    assert line["event"] == event
    assert line["password_file"] == "/run/secrets/mqtt_password"
    assert line["url"] == "http://127.0.0.1:9108/ready"


def test_no_payload_above_debug() -> None:
    """Payloads, and any bytes, are told by their size; only debug shows them."""
    stream = configured("debug")
    events.log.info("odd", payload='{"temperature": 21.5}', topic=b"a/b")
    events.log.debug("odd", payload='{"temperature": 21.5}')
    above, debug = lines(stream)
    assert above["payload"] == "<21 characters>"
    assert above["topic"] == "<3 bytes>"
    assert debug["payload"] == '{"temperature": 21.5}'


def test_warnings_are_log_lines() -> None:
    """A Python warning comes out as an event, so that every line of stderr is JSON."""
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logs.configure(ObservabilitySettings(), stream)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    [line] = lines(stream)
    assert line["logger"] == "py.warnings"
    assert "old ways" in line["event"]


def test_a_dial_that_was_cancelled_is_no_error() -> None:
    """Asyncpg leaves a future behind, which asyncio reports when it is collected; other reports are lines."""
    stream = configured()
    for text in ("unexpected connection_lost() call", "something else"):
        error = ConnectionError(text)
        logging.getLogger("asyncio").error("Future exception was never retrieved", exc_info=error)
    [line] = lines(stream)
    assert "something else" in line["exception"]
