"""What the fleet says, message by message."""

from __future__ import annotations

import collections
import json

import pytest

from gateway import clock, decoders
from gateway.tools.demo import roster
from gateway.tools.demo.fleet import WRONG, Intent, Publication, Script

START_US = clock.now_us()
MANY = 20_000


def script(seed: int = 1, count: int = MANY) -> list[Publication]:
    """That many messages at 400 a second."""
    written = Script(seed)
    return [written.next(n / 400, START_US + n * 2500) for n in range(count)]


@pytest.fixture(scope="module")
def publications() -> list[Publication]:
    """One long run."""
    return script()


def of(publications: list[Publication], intent: Intent) -> list[Publication]:
    """Those of one intent."""
    return [publication for publication in publications if publication.intent is intent]


def test_the_same_seed_says_the_same() -> None:
    """A run can be repeated: topics, payloads and mistakes depend on seed and clock only."""
    assert script(seed=3, count=500) == script(seed=3, count=500)
    assert script(seed=3, count=500) != script(seed=4, count=500)


def test_about_one_in_a_hundred_is_wrong(publications: list[Publication]) -> None:
    """The wrong ones are about 1 %, all kinds alike."""
    counts = collections.Counter(publication.intent for publication in publications)
    assert sum(counts[intent] for intent in WRONG) / MANY == pytest.approx(0.01, rel=0.25)
    assert all(counts[intent] > MANY * 0.001 for intent in WRONG)


def test_every_device_speaks(publications: list[Publication]) -> None:
    """Nobody of the fifty is silent, and nobody else speaks but the ghost."""
    serials = {publication.topic.split("/")[3] for publication in publications}
    assert serials == {member.serial for member in roster.DEVICES} | {roster.GHOST}


def test_readings_are_what_they_seem(publications: list[Publication]) -> None:
    """A message that is meant to be a reading can be decoded, and has its own time."""
    decode = decoders.build("json", decoders.Limits())
    for publication in of(publications, Intent.READING):
        (reading,) = decode(publication.payload)
        assert reading.metrics
        assert reading.time_us is not None


def test_no_device_has_two_readings_at_one_time() -> None:
    """Device and time are the key of a reading, and a second one would be merged: also when no time passes."""
    written = Script(1)
    spoken = [written.next(0, START_US) for _ in range(2000)]
    sound = [publication for publication in spoken if publication.intent is not Intent.BROKEN_JSON]
    keys = {(publication.topic, json.loads(publication.payload)["ts"]) for publication in sound}
    assert len(keys) == len(sound)


def test_wrong_ones_are_wrong_as_intended(publications: list[Publication]) -> None:
    """Each mistake is the one it claims to be."""
    assert all(roster.GHOST in publication.topic for publication in of(publications, Intent.UNKNOWN_DEVICE))
    for publication in of(publications, Intent.OUT_OF_RANGE):
        assert "tenants/verdant/" in publication.topic
        assert json.loads(publication.payload)["metrics"]["temperature"] > 60
    for publication in of(publications, Intent.CLOCK_YEAR_OFF):
        year = int(json.loads(publication.payload)["ts"][:4])
        assert year > clock.to_datetime(START_US).year
    for publication in of(publications, Intent.BROKEN_JSON):
        with pytest.raises(json.JSONDecodeError):
            json.loads(publication.payload)
