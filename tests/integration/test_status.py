"""``gateway status`` against a server that runs in a loop of its own, as the daemon does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from gateway import errors
from gateway.cli import status as status_command
from gateway.observability import ask, metrics
from gateway.observability.server import Server
from gateway.observability.status import StatusReport
from gateway.settings import ObservabilitySettings
from tests.support.minimal import MINIMAL
from tests.support.reports import a_report
from tests.support.waiting import free_port


def gateway_status(*arguments: str) -> Result:
    """Run the command."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(status_command.status)
    return CliRunner().invoke(app, arguments)


@contextlib.contextmanager
def answering(report: StatusReport) -> Iterator[int]:
    """A server of this report in a thread; yields its port."""
    port, started, loop = free_port(), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = Server(ObservabilitySettings(port=port), report)
        await server.open()
        started.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def a_ready_report(**numbers: int) -> StatusReport:
    """A report of a daemon whose one component works."""
    report = a_report(**numbers)
    report.health.component("broker").waiting("nothing listens at 127.0.0.1:1883")
    report.health.component("broker").ready("127.0.0.1:1883")
    return report


def test_the_equation_comes_first() -> None:
    """People see the equation first, then components with their last error, then figures."""
    with answering(a_ready_report()) as port:
        result = gateway_status("--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    terms, numbers = (" ".join(line.split()) for line in lines[:2])
    assert terms == "received = stored + duplicate + spooled + dead_lettered + ignored + in_flight"
    assert numbers == "telemetry 10 = 5 + 1 + 0 + 2 + 0 + 2 holds"
    places = [lines.index("ready"), next(i for i, line in enumerate(lines) if line.startswith("version"))]
    assert places == sorted(places)
    assert any("last error" in line and "nothing listens" in line for line in lines)
    assert any("backlog bytes" in line and "230" in line for line in lines)


def test_books_that_do_not_balance_are_exit_1() -> None:
    """A script can tell that messages are unaccounted for."""
    with answering(a_ready_report(received=11)) as port:
        result = gateway_status("--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "DOES NOT HOLD: 1 unaccounted for" in result.stdout


def test_not_ready_is_exit_1() -> None:
    """A script can tell that messages do not flow, and people see why."""
    report = a_report()
    report.health.component("broker").waiting("nothing listens at 127.0.0.1:1883")
    with answering(report) as port:
        result = gateway_status("--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "NOT READY" in result.stdout
    assert "nothing listens at 127.0.0.1:1883" in result.stdout


def test_json_is_what_the_daemon_says() -> None:
    """--json prints all of /status."""
    with answering(a_ready_report()) as port:
        result = gateway_status("--json", "--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert (said["balanced"], said["total"]["received"]) == (True, 10)


def test_the_address_is_that_of_the_configuration(tmp_path: Path) -> None:
    """Without --url the configured daemon is asked; one that listens everywhere is asked on loopback."""
    with answering(a_ready_report()) as port:
        file = tmp_path / "gateway.toml"
        more = f'\n[observability]\nlisten = "0.0.0.0"\nport = {port}\n'
        file.write_text(MINIMAL + more)
        assert gateway_status("--config", str(file)).exit_code == 0


def refusal(*arguments: str) -> str:
    """The text with which the command refuses; a UsageError ends as exit 2."""
    result = gateway_status(*arguments)
    assert isinstance(result.exception, errors.UsageError)
    return str(result.exception)


def test_nobody_there_is_a_clear_text() -> None:
    """A daemon that does not run is no traceback."""
    assert "is it running" in refusal("--url", f"http://127.0.0.1:{free_port()}")


def test_somebody_else_there_is_a_clear_text() -> None:
    """Something else on that port is told apart from a daemon that does not run."""
    with answering(a_ready_report()) as port:
        assert "no gateway" in refusal("--url", f"http://127.0.0.1:{port}/live")
    assert "no gateway" in refusal("--url", "nonsense")


def test_somebody_who_never_answers_is_a_clear_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung daemon is told apart too, after a bounded wait."""
    monkeypatch.setattr(ask.ask, "__kwdefaults__", {"timeout": 0.2})
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "does not answer within 0.2 s" in refusal(
            "--url", f"http://127.0.0.1:{silent.getsockname()[1]}"
        )


def test_not_reachable_is_exit_2() -> None:
    """From the shell: exit 2, one line on standard error, nothing on standard output."""
    command = [sys.executable, "-m", "gateway", "status", "--url", f"http://127.0.0.1:{free_port()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_port_zero_cannot_be_asked(tmp_path: Path) -> None:
    """A daemon configured to open no port is not looked for."""
    file = tmp_path / "gateway.toml"
    file.write_text(MINIMAL + "\n[observability]\nport = 0\n")
    assert "observability.port is 0" in refusal("--config", str(file))


def test_pace_and_dead_letters_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last message came, how many a second, and dead letters by their reasons, the most frequent first."""
    counted = {"telemetry": {"malformed": 3, "unknown_device": 5}}
    monkeypatch.setattr(metrics, "by_stream", lambda _: counted)
    with answering(a_ready_report()) as port:
        text = gateway_status("--url", f"http://127.0.0.1:{port}").stdout
        said = json.loads(gateway_status("--url", f"http://127.0.0.1:{port}", "--json").stdout)
    assert "last message 0 s ago; a second, over the last 10 s: " in text
    assert "dead letters, telemetry: 5 unknown_device, 3 malformed" in text
    assert said["dead_letters"] == counted
    assert set(said["rates"]) == {"received", "stored", "dead_lettered"}


@pytest.mark.parametrize("as_json", [False, True], ids=("text", "json"))
def test_a_watch_in_a_pipe_prints_lines(as_json: bool) -> None:
    """One line a second, at once, without escape sequences: what reads the pipe sees each as it comes."""
    command = [sys.executable, "-m", "gateway", "status", "--watch", *(["--json"] if as_json else [])]
    with answering(a_ready_report()) as port:
        asked = [*command, "--url", f"http://127.0.0.1:{port}"]
        with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            lines = [watching.stdout.readline() for _ in range(2)]
            watching.terminate()
    for line in lines:
        assert "\x1b" not in line
        if as_json:
            assert json.loads(line)["total"]["received"] == 10
        else:
            assert "Z ready; received 10 = stored 5 + " in line
