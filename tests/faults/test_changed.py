"""What changes between two lives of the daemon: its client id, its streams, the number of its workers.

Messages wait in the session that the earlier life had, and nothing is published until the later one has its own: what
comes in between is in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults.conftest import ALL, MakeCell
from tests.support.fault_cell import FaultCell
from tests.support.waiting import eventually

pytestmark = pytest.mark.mosquitto

COUNT = 20_000 if ALL else 2000
NARROWED = {"name": "plant", "topic": "tenants/acme/devices/{device}/telemetry", "tenant": "acme"}
WIDE = {"name": "all", "topic": "tenants/{tenant}/#", "kind": "ignore"}
OTHER = {"name": "other", "topic": "others/{tenant}/{device}"}


def changed(
    cell: FaultCell, settings: dict[str, Any], *, arguments: Sequence[str] = (), ends: str = ""
) -> None:
    """The daemon stops, messages collect, it starts with other settings; then more come.

    Args:
        ends: the session of this client id is read empty by command, as the daemon says.
    """
    assert cell.daemon.stop() == 0
    publish(cell)
    cell.daemon.configure(settings)
    cell.daemon.arguments = arguments
    cell.daemon.start()
    eventually(cell.daemon.is_ready, timeout=30, what="ready")
    if ends:
        told = lambda: cell.logged("mqtt session left", client_id=ends)  # noqa: E731
        (line, *_) = eventually(told, what=f"the session of {ends} is named")
        cell.daemon.cli(*line["remedy"].split()[1:])
    cell.quiet(cell.messages)
    publish(cell)
    cell.quiet(cell.messages)


def publish(cell: FaultCell) -> None:
    """Some more messages, all of which the broker has."""
    cell.publish(count=COUNT)
    cell.published(early=False)


def test_streams(make_cell: MakeCell) -> None:
    """A stream is narrowed and renamed, one that is ignored stands behind it, then all is as before."""
    cell = make_cell("stream narrowed and renamed, and back")
    before = list(cell.daemon.settings["streams"])
    cell.begin()
    for streams in ([NARROWED], [NARROWED, WIDE], before):
        changed(cell, {"streams": streams})
    cell.prove()


def test_client_id(make_cell: MakeCell) -> None:
    """Another client id, and the first again: what lay in the session of the other is stored, and once."""
    cell = make_cell("client id changed, and back")
    first, second = cell.daemon.client_id, f"{cell.daemon.client_id}-b"
    cell.begin()
    for now, then in ((second, first), (first, second)):
        cell.daemon.client_id = now
        changed(cell, {"mqtt": {"client_id": now}}, ends=then)
    cell.prove()


@pytest.mark.combinations(2)
def test_workers(make_cell: MakeCell) -> None:
    """One process, two workers, and one again: what lay in the sessions of the others is stored, and once."""
    cell = make_cell("workers 1, 2, 1")
    two = ["--workers", "2"]
    if cell.combination.protocol == "3.1.1":  # MQTT 3.1.1 has no shared subscriptions
        cell.daemon.configure({"streams": [*cell.daemon.settings["streams"], OTHER]})
        two += ["--divide", "streams"]
    cell.begin()
    for arguments in (two, []):
        changed(cell, {}, arguments=arguments)
    cell.prove()
