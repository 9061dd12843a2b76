"""``gateway demo`` as a user runs it: a process, what it says, its exit code, and what is left of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import sysconfig
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence

import psutil
import pytest

from tests.support.daemon import GATEWAY, REPOSITORY
from tests.support.processes import Process
from tests.support.waiting import eventually

PRODUCTION = {
    "GATEWAY__MQTT__HOST": "production.invalid",
    "GATEWAY__DATABASES__TIMESERIES__DSN": "postgresql://me@production.invalid/precious",
    "PGHOST": "production.invalid",
    "PGDATABASE": "precious",
}
"""What a user's shell may have set; a demo that listened to it would not work here."""
WITHOUT_MOSQUITTO = """
from gateway.cli import main
from gateway.tools.servers import mosquitto
mosquitto.program = lambda: None
main()
"""
NOBODY = 65534
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")
HELD = "It held: nothing lost, nothing twice."

pytestmark = pytest.mark.slow


class Demo(Process):
    """A demo with ``.demo`` in a folder of its own, which is also its home."""

    def __init__(self, *options: str, program: Sequence[str] = GATEWAY, place: str = ".demo") -> None:
        super().__init__("demo")
        self.program = program
        self.options: Sequence[str] = options
        self.place = self.folder / place
        self._began = 0

    def command(self) -> Sequence[str]:
        """The options may be changed between two starts."""
        return [*self.program, "demo", "--folder", str(self.place), *self.options]

    def environment(self) -> Mapping[str, str]:
        """Of a user who works with a production gateway."""
        python_path = os.pathsep.join([REPOSITORY, sysconfig.get_paths()["purelib"]])
        own = {"HOME": str(self.folder), "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"}
        return {**os.environ, **PRODUCTION, **own}

    def is_ready(self) -> bool:
        """Readings flow."""
        return " messages/s  published " in self.said()

    def launch(self) -> None:
        """Start, and wait for nothing."""
        self._began = self.log_size()
        super().launch()

    def said(self) -> str:
        """All its words since it was last started."""
        return self.tail(characters=1_000_000, since=self._began)

    def run(self, *options: str) -> int:
        """From start to end: the exit code."""
        self.options = options or self.options
        self.launch()
        return self.finish()

    def finish(self, number: signal.Signals | None = None) -> int:
        """The exit code, after a signal or by itself; nothing of it runs any more."""
        if number is not None:
            self.signal(number)
        code = self.wait(timeout=120)
        eventually(lambda: not self.left(), what="no process left")
        return code

    def left(self) -> list[list[str]]:
        """Command lines of processes that belong to this demo."""
        return [line for line in command_lines() if any(str(self.place) in word for word in line)]

    def part(self, word: str) -> psutil.Process:
        """The child with this word in its command line."""
        children = psutil.Process(self.pid).children()
        return next(child for child in children if any(word in part for part in child.cmdline()))

    def paste(self, line: str) -> str:
        """What a shell without any settings of a gateway answers to this line, with 0."""
        bare = {name: value for name, value in self.environment().items() if name not in PRODUCTION}
        done = subprocess.run(
            line, shell=True, env=bare, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, f"{line}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def rows(self) -> int:
        """Rows of ``telemetry``, asked as a user may ask."""
        demo = [*self.program, "demo", "--folder", str(self.place), "--serve"]
        return int(self.paste(shlex.join([*demo, "--", "psql", "-Atc", "SELECT count(*) FROM telemetry"])))

    def hints(self, heading: str) -> list[str]:
        """The lines below a heading."""
        said = self.said()
        return [line.strip() for line in said[said.index(heading) :].splitlines()[1:] if line.strip()]


class NobodysDemo(Demo):
    """A demo that an ordinary user runs, who is not even able to write into the repository."""

    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        os.chown(self.folder, NOBODY, NOBODY)
        python = next(filter(self._works, (sys.executable, "/usr/bin/python3")), None)
        self.program = [python, "-m", "gateway"] if python else []

    def _works(self, python: str) -> bool:
        command = [python, "-c", "import gateway.cli, asyncpg, pydantic"]
        with contextlib.suppress(OSError):
            done = subprocess.run(
                command, user=NOBODY, env=self.environment(), cwd="/", capture_output=True, check=False
            )
            return done.returncode == 0
        return False

    def _user(self) -> int:
        return NOBODY


class TerminalDemo(Demo):
    """A demo on a terminal of 100 columns and 30 lines; the log holds what it draws, without escapes."""

    def launch(self) -> None:
        """Start, and copy what comes into the log."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environment = {**self.environment(), "TERM": "xterm-256color"}
        self._process = subprocess.Popen(
            self.command(), stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
        )
        os.close(its)
        threading.Thread(target=self._copy, args=[ours]).start()

    def is_ready(self) -> bool:
        """Readings are on the screen."""
        return "CLI-001" in self.said()

    def _copy(self, terminal: int) -> None:
        # An OSError is how a terminal ends.
        with (
            os.fdopen(terminal, "rb", buffering=0) as drawn,
            self.log.open("ab", buffering=0) as log,
            contextlib.suppress(OSError),
        ):
            while part := drawn.read(65536):
                log.write(ESCAPES.sub("", part.decode("utf-8", "replace")).encode())


def command_lines() -> Iterator[list[str]]:
    """Of all processes on this machine that tell it."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            yield process.cmdline()


@pytest.fixture(scope="module")
def ran() -> Iterator[Demo]:
    """A demo that ran for eight seconds and ended with exit code 0 and nothing left."""
    with Demo() as made:
        assert made.run("--seconds", "8") == 0, made.said()
        yield made


@pytest.fixture
def finished(ran: Demo) -> Iterator[Demo]:
    """A demo that has ended; a test may run it again."""
    yield ran
    if ran.running:
        ran.kill()


def test_ends_with_balanced_books(finished: Demo) -> None:
    """What was published is received, and each message is a row or the dead letter that was intended."""
    said = finished.said()
    assert HELD in said
    assert "✗" not in said
    law = r"^received (\d+) = stored (\d+) \+ duplicate 0 \+ spooled 0 \+ dead_lettered (\d+) "
    found = re.search(law, said, re.MULTILINE)
    assert found
    received, stored, dead_lettered = map(int, found.groups())
    assert received == stored + dead_lettered
    assert 1600 < received <= 3200
    assert 0.003 < dead_lettered / received < 0.03


def test_touches_nothing_but_its_folder(finished: Demo) -> None:
    """Home and working folder are as they were."""
    assert {path.name for path in finished.folder.iterdir()} == {".demo", finished.log.name}


def test_what_it_says_to_try_next_works(finished: Demo) -> None:
    """Each line that it ends with can be pasted when nothing runs any more, and leaves nothing behind."""
    psql, dead_letters, devices, serve = finished.hints("Try next")[:4]
    assert "(5 rows)" in finished.paste(psql)
    assert re.search(
        "unknown_device|malformed|out_of_range|timestamp_in_future", finished.paste(dead_letters)
    )
    assert "MOT-001" in finished.paste(devices)
    assert finished.left() == []
    assert serve.split("#")[0].strip().endswith("--serve")


def test_what_it_says_while_only_servers_run_works(finished: Demo) -> None:
    """So does each line that ``--serve`` shows, in another terminal; then Ctrl-C ends it well."""
    finished.options = ["--serve"]
    finished.launch()
    eventually(lambda: "device list" in finished.hints("Paste into another terminal")[-1], timeout=60)
    psql, dead_letters, devices = finished.hints("Paste into another terminal")
    assert "(1 row)" in finished.paste(f"{psql} -c 'SELECT count(*) FROM telemetry'")
    assert finished.paste(dead_letters)
    assert "acme" in finished.paste(devices)
    assert finished.finish(signal.SIGINT) == 0


def test_a_second_run_goes_on_where_the_first_ended(finished: Demo) -> None:
    """What is there stays there, and the books are about the new messages only."""
    before = finished.rows()
    assert finished.run("--seconds", "2") == 0, finished.said()
    assert finished.rows() > before > 0


def test_two_demos_do_not_share_a_folder(finished: Demo) -> None:
    """The second is refused in words and disturbs nothing; SIGTERM, too, leads to the proof."""
    finished.options = []
    finished.start()
    second = subprocess.run(
        finished.command(),
        env=finished.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 3
    assert "another demo runs" in second.stderr
    assert finished.rows() > 0
    assert finished.finish(signal.SIGTERM) == 0
    assert HELD in finished.said()


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("--config", "the gateway ended"),
        ("/postgres", "PostgreSQL ended"),
        ("mosquitto.conf", "mosquitto ended"),
    ],
)
def test_the_end_of_a_part_is_the_end_of_all(finished: Demo, word: str, named: str) -> None:
    """When a part dies the demo says which, with its last words and no traceback, and stops the others."""
    finished.options = []
    finished.start()
    if word == "mosquitto.conf" and "✓ amqtt" in finished.said():
        word, named = "amqtt.yaml", "amqtt ended"
    finished.part(word).kill()
    assert finished.finish() == 1
    assert f"{named} by itself" in finished.said()
    assert "Traceback" not in finished.said()


def test_a_killed_demo_is_no_hindrance(finished: Demo) -> None:
    """SIGKILL leaves no server behind, and the next run works; ``--fresh`` forgets all earlier ones."""
    finished.options = []
    finished.start()
    before = finished.rows()
    assert finished.finish(signal.SIGKILL) == -signal.SIGKILL
    assert finished.run("--seconds", "2", "--fresh") == 0, finished.said()
    assert 0 < finished.rows() < before


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--seconds", "0"], 2, "--seconds"),
        (["--serve", "--", "no-such-command"], 2, "no-such-command"),
        (["psql"], 2, "--serve"),
    ],
)
def test_a_users_mistake_is_told_in_words(finished: Demo, options: list[str], code: int, named: str) -> None:
    """No traceback, and an exit code that says whose mistake it was."""
    assert finished.run(*options) == code
    assert named in finished.said()
    assert "Traceback" not in finished.said()


def test_a_terminal_shows_it_live_until_ctrl_c() -> None:
    """The screen is drawn and redrawn, its commands work in another terminal, and Ctrl-C leads to the proof."""
    with TerminalDemo() as demo:
        demo.start()
        assert "every message is accounted for" in demo.said()
        eventually(lambda: re.search("[▂▃▄▅▆▇█]{3}", demo.said()), what="curves")
        assert demo.rows() > 0
        assert demo.finish(signal.SIGINT) == 0
        eventually(lambda: HELD in demo.said(), what="the proof on the terminal")


def test_without_mosquitto_amqtt_will_do() -> None:
    """A machine that has only Python."""
    with Demo(program=[sys.executable, "-c", WITHOUT_MOSQUITTO]) as demo:
        assert demo.run("--seconds", "4") == 0, demo.said()
        assert "✓ amqtt" in demo.said()
        assert HELD in demo.said()


def test_a_path_too_long_for_a_socket_will_do() -> None:
    """PostgreSQL is then reached by a loopback port, with a password; odd characters in the path do not matter."""
    with Demo(place=f'{"long" * 30}, "odd" {{100%}}/.demo') as demo:
        assert demo.run("--seconds", "2") == 0, demo.said()
        assert demo.rows() > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs all the others")
def test_an_ordinary_user_can_run_it() -> None:
    """Nothing of it needs root."""
    with NobodysDemo("--seconds", "2") as demo:
        if not demo.program:
            pytest.skip("no interpreter here that user nobody may run with our packages")
        assert demo.run() == 0, demo.said()
        assert HELD in demo.said()
        assert {demo.place.stat().st_uid, (demo.place / "postgres").stat().st_uid} == {NOBODY}
