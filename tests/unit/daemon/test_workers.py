"""Parts of the supervisor of several workers that need no worker."""

from __future__ import annotations

import functools
import os
import subprocess

from gateway.daemon.workers import _die_with_parent, _groups
from gateway.settings import StreamSettings


def test_a_worker_whose_supervisor_died_first_does_not_begin() -> None:
    """The kernel tells of a death after it was asked to; of an earlier one nothing would ever come."""
    assert begun_by(os.getppid()) == b""
    assert begun_by(os.getpid()) == b"begun\n"


def begun_by(supervisor: int) -> bytes:
    """What a child of ours says which takes this process for its parent."""
    check = functools.partial(_die_with_parent, supervisor)
    return subprocess.run(["echo", "begun"], preexec_fn=check, stdout=subprocess.PIPE, check=False).stdout


def test_streams_that_overlap_go_to_one_worker() -> None:
    """Two workers would both take a message that matches both; in each group the order of the configuration stays."""
    topics = {
        "a": "x/{tenant}/{device}",
        "b": "y/{tenant}/{device}",
        "c": "x/acme/#",
        "d": "z/{tenant}/{device}",
    }
    streams = [StreamSettings(name=name, topic=topic, tenant="t") for name, topic in topics.items()]
    assert [[stream.name for stream in group] for group in _groups(streams)] == [["a", "c"], ["b"], ["d"]]
