"""Dead letters in an operator's hands: list, show, mend the cause, replay."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Scene
from tests.support.bad_input import NOW_MS, timed
from tests.support.databases import Databases
from tests.support.plan import TELEMETRY
from tests.support.provisioned import provision
from tests.support.wire import Wire

pytestmark = pytest.mark.mosquitto

NOT_UTF8 = b'{"n": "\xff"}'
GHOSTS = ["GHOST-1", "GHOST-2"]


@pytest.fixture
def scene(databases: Databases, make_scene: Callable[..., Scene]) -> Scene:
    """A ready daemon that has met two devices nobody entered, three readings each, and one payload of no text."""
    scene = make_scene(databases)
    provision(databases, ["KNOWN"])
    scene.daemon.start()
    with Wire(scene.broker.port) as wire:
        for ghost in GHOSTS:
            for number in range(3):
                wire.publish(TELEMETRY.format(tenant="acme", device=ghost), timed('"n": 1', NOW_MS + number))
        wire.publish(TELEMETRY.format(tenant="acme", device="KNOWN"), NOT_UTF8)
    scene.daemon.settle(7)
    return scene


def ask(scene: Scene, *arguments: str, check: bool = True) -> Any:
    """What a ``dead-letter`` command prints as JSON."""
    return json.loads(scene.daemon.cli("dead-letter", *arguments, "--json", check=check).stdout)


def test_list_and_show_tell_all(scene: Scene) -> None:
    """Reason, topic and the original bytes are there, for people and as JSON; filters hold what they say."""
    assert len(ask(scene, "list")) == 7
    assert len(ask(scene, "list", "--limit", "2")) == 2
    assert len(ask(scene, "list", "--reason", "unknown_device")) == 6
    assert len(ask(scene, "list", "--device", GHOSTS[0], "--since", "10min")) == 3
    assert ask(scene, "list", "--stream", "another") == []
    (letter,) = ask(scene, "list", "--reason", "not_utf8")
    shown = ask(scene, "show", letter["id"])
    assert base64.b64decode(shown["payload_base64"]) == NOT_UTF8
    assert (shown["topic"], shown["reason"]) == (TELEMETRY.format(tenant="acme", device="KNOWN"), "not_utf8")
    assert "not_utf8" in scene.daemon.cli("dead-letter", "list").stdout
    assert letter["id"] in scene.daemon.cli("dead-letter", "show", letter["id"]).stdout


def test_their_share_is_watched(scene: Scene) -> None:
    """A component says of each stream whether most of its messages become dead letters; it is ready for all that."""
    assert scene.daemon.status()["components"]["dead letters"]["state"] == "ready"


def test_replay_stores_what_can_be_stored_now(scene: Scene) -> None:
    """Once the device is entered its dead letters become readings, once however often; others stay."""
    again = ask(scene, "replay", "--reason", "unknown_device", check=False)
    assert again == {"replayed": 6, "stored": 0, "failed_again": 6}
    provision(scene.databases, GHOSTS[:1], kind="found")
    done = ask(scene, "replay", "--device", GHOSTS[0])
    assert done == {"replayed": 3, "stored": 3, "failed_again": 0}
    assert scene.stored() == 3
    assert ask(scene, "replay", "--device", GHOSTS[0])["replayed"] == 0
    assert scene.stored() == 3
    assert len(ask(scene, "list")) == 4
    assert len(ask(scene, "list", "--replayed")) == 7


def test_one_that_fails_again_is_told(scene: Scene) -> None:
    """A replay that could not store all of it ends with 1 and leaves the dead letter as it was."""
    (letter,) = ask(scene, "list", "--reason", "not_utf8")
    done = scene.daemon.cli("dead-letter", "replay", letter["id"], check=False)
    assert done.returncode == 1
    assert "1 failed again" in done.stdout
    assert ask(scene, "show", letter["id"])["payload_base64"] == base64.b64encode(NOT_UTF8).decode()
    assert scene.stored() == 0


def test_an_unknown_id_is_a_plain_error(scene: Scene) -> None:
    """No such dead letter: 2, saying where to look, without a traceback."""
    done = scene.daemon.cli("dead-letter", "show", "00000000-0000-0000-0000-000000000000", check=False)
    assert done.returncode == 2
    assert "gateway dead-letter list" in done.stderr
    assert "Traceback" not in done.stderr
