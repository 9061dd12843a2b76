"""What processes use."""

from __future__ import annotations

import os
import subprocess
import sys

from gateway.tools.bench import usage
from tests.support.waiting import eventually

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
MEGABYTES = "import sys\nhoard = b'x' * (64 * 2**20)\ndel hoard\nprint(flush=True)\nsys.stdin.read()\n"


def test_cpu_of_descendants_counts() -> None:
    """What a child burnt stays with its parent, also after it has ended."""
    before = usage.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", BURN.format(seconds=0.3)], check=True)
    assert usage.cpu_seconds(os.getpid()) - before >= 0.25


def test_the_peak_is_remembered() -> None:
    """Memory that was given back still counts."""
    with subprocess.Popen(
        [sys.executable, "-c", MEGABYTES], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert usage.peak_bytes(process.pid) > 64 * 2**20
        process.communicate()


def test_a_meter_divides_among_messages() -> None:
    """µs per message, of those processes that can be seen."""
    meter = usage.Meter({"we": os.getpid(), "elsewhere": None})
    assert list(meter.read()) == ["we"]
    assert usage.micros_per_message({"we": 1.0}, {"we": 1.5}, 1000) == {"we": 500.0}


def test_a_process_of_another_name_is_not_taken_for_it() -> None:
    """A backend of a server elsewhere may have the id of a process here."""
    assert usage.parent_of(os.getpid(), "postgres") is None


def test_a_process_is_found_by_its_child() -> None:
    """As a server by a backend of its own."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        assert eventually(lambda: usage.parent_of(child.pid, "cat")) == os.getpid()
