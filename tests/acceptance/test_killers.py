"""A message that ends the daemon each time it is taken: set apart, and the rest goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.ingest.intake import Intake
from gateway.writer.copy import Writer
from tests.support.daemon import REPOSITORY, Daemon
from tests.support.databases import Databases
from tests.support.plan import TELEMETRY
from tests.support.provisioned import provision
from tests.support.servers import Mosquitto
from tests.support.waiting import eventually
from tests.support.wire import Wire

KILL = """
import os
from {method.__module__} import {owner.__name__} as owner
taken = owner.{method.__name__}
def killed(self, first, *rest):
    if b"kill" in {looked_at}:
        os.kill(os.getpid(), 9)
    return taken(self, first, *rest)
async def killed_later(self, first, *rest):
    if b"kill" in {looked_at}:
        os.kill(os.getpid(), 9)
    return await taken(self, first, *rest)
owner.{method.__name__} = {killer}
"""
WHERE = {
    "in the loop": (
        KILL.format(
            owner=Intake, method=Intake.fast_rows, killer="killed",
            looked_at="b''.join(message.payload for message in first.messages if not message.retain)",
        ),
        10,
    ),
    "in the writer": (
        KILL.format(
            owner=Writer, method=Writer.write, killer="killed_later",
            looked_at="b''.join(first.batch.rows)",
        ),
        5000,
    ),
}  # fmt: skip
GOOD = 40


@pytest.mark.mosquitto
@pytest.mark.parametrize("where", WHERE)
def test_a_message_that_ends_the_daemon_is_set_apart(
    postgres_databases: Databases, mosquitto_broker: Mosquitto, tmp_path: Path, where: str
) -> None:
    """Three ends, then it is a dead letter, unread; the others are stored once each, the broker has nothing left."""
    provision(postgres_databases, ["A"])
    code, size = WHERE[where]
    (tmp_path / "sitecustomize.py").write_text(code)
    killer = b'{"ts": 1764160000999, "kill": "' + b"x" * size + b'"}'
    with Daemon(
        mosquitto_broker.port, postgres_databases, {"spool": {"folder": tmp_path / "spool"}}
    ) as daemon:
        daemon.start()
        daemon.stop()
        topic = TELEMETRY.format(tenant="acme", device="A")
        with Wire(mosquitto_broker.port) as wire:
            for n in range(GOOD):
                wire.publish(topic, b'{"ts": %d, "n": %d}' % (1764160000000 + n, n))
                if n == GOOD // 2:
                    wire.publish(topic, killer)
        daemon.variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
        for _ in range(3):
            daemon.launch()
            assert daemon.wait() == -9
        daemon.start()
        eventually(lambda: postgres_databases.count("dead_letters") == 1, timeout=20)
        books = daemon.settle(1)
        assert daemon.stop() == 0
    assert postgres_databases.count("telemetry") == GOOD
    letters = postgres_databases.timeseries("SELECT reason, payload FROM dead_letters")
    assert letters == [("set_apart", killer)]
    assert books["in_flight"] == 0
