"""Messages that become dead letters by the share."""

from __future__ import annotations

from collections.abc import Sequence

from structlog.testing import capture_logs

from gateway.ingest.dead_letter_share import DeadLetterShare
from gateway.observability.health import Health
from gateway.outcomes import Outcome, Tally

MINUTE = 60


class Scene:
    """Two streams, of which one is spooled and drained too, and what is said of them."""

    def __init__(self, limit: float = 0.5) -> None:
        self.live, self.other, self.drained = Tally(), Tally(), Tally()
        self.health = Health()
        tallies = [{"telemetry": self.live, "status": self.other}, {"telemetry": self.drained}]
        self.watch = DeadLetterShare(tallies, self.health.component("dead letters"), limit=limit)
        self.now = 0
        self.watch.look(0)

    def go_on(self, seconds: int, *ends: tuple[Tally, Outcome], every: int = 1) -> None:
        """So many seconds; each message ends again and again."""
        for second in range(seconds):
            self.now += 1
            for tally, outcome in ends if second % every == 0 else ():
                tally.settled[outcome] += 1
            self.watch.look(self.now)

    @property
    def detail(self) -> str:
        """What /ready says; that it is ready all the while."""
        assert self.health.ready
        said = self.health.as_dict()["components"]["dead letters"]["detail"]
        assert isinstance(said, str)
        return said


def events(logged: Sequence[object]) -> list[object]:
    """The names of what was logged, and at which level."""
    return [(line["event"], line["log_level"], line["stream"]) for line in logged if isinstance(line, dict)]


def test_when_every_message_becomes_a_dead_letter_it_is_told_once() -> None:
    """After a minute: one warning, a detail with the numbers and the way out, and ready all the while."""
    scene = Scene()
    with capture_logs() as logged:
        scene.go_on(MINUTE - 1, (scene.live, Outcome.DEAD_LETTERED))
        assert scene.detail == ""
        scene.go_on(5 * MINUTE, (scene.live, Outcome.DEAD_LETTERED))
    assert events(logged) == [("dead letters prevail", "warning", "telemetry")]
    assert "stream telemetry: 60 of the last minute's 60 messages" in scene.detail
    assert "gateway dead-letter list" in scene.detail


def test_a_busy_stream_does_not_hide_another() -> None:
    """Each stream is judged for itself."""
    scene = Scene()
    good = [(scene.other, Outcome.STORED)] * 50
    scene.go_on(2 * MINUTE, (scene.live, Outcome.DEAD_LETTERED), *good)
    assert "stream telemetry" in scene.detail
    assert "stream status" not in scene.detail


def test_half_is_not_more_than_half_and_the_limit_is_the_settings() -> None:
    """A share equal to the limit is not above it; 1 is never exceeded."""
    half = Scene(), [Outcome.STORED, Outcome.DEAD_LETTERED]
    never = Scene(limit=1), [Outcome.DEAD_LETTERED]
    for scene, outcomes in (half, never):
        scene.go_on(2 * MINUTE, *[(scene.live, outcome) for outcome in outcomes])
        assert scene.detail == ""
    strict = Scene(limit=0.4)
    strict.go_on(2 * MINUTE, (strict.live, Outcome.STORED), (strict.live, Outcome.DEAD_LETTERED))
    assert "stream telemetry" in strict.detail


def test_what_is_spooled_is_judged_when_it_is_drained() -> None:
    """Spooled messages say nothing; their ends in the drain do, and what is ignored does not dilute them."""
    scene = Scene()
    scene.go_on(2 * MINUTE, (scene.live, Outcome.SPOOLED), (scene.live, Outcome.IGNORED))
    assert scene.detail == ""
    scene.go_on(2 * MINUTE, (scene.drained, Outcome.DEAD_LETTERED), (scene.live, Outcome.IGNORED))
    assert "stream telemetry" in scene.detail


def test_it_is_over_when_messages_are_good_again_and_not_when_there_are_none() -> None:
    """A fleet that reports every quarter of an hour is not well between two reports."""
    scene = Scene()
    scene.go_on(2 * MINUTE, (scene.live, Outcome.DEAD_LETTERED))
    with capture_logs() as logged:
        scene.go_on(15 * MINUTE)
        assert "stream telemetry" in scene.detail
        assert events(logged) == []
        scene.go_on(2 * MINUTE, (scene.live, Outcome.STORED))
    assert scene.detail == ""
    assert events(logged) == [("dead letters receded", "info", "telemetry")]


def test_what_goes_to_and_fro_about_the_limit_is_told_once() -> None:
    """No line a second of a share that is a little above and a little below."""
    scene = Scene()
    with capture_logs() as logged:
        for _ in range(20):
            scene.go_on(40, (scene.live, Outcome.DEAD_LETTERED), (scene.live, Outcome.STORED))
            scene.go_on(3, (scene.live, Outcome.DEAD_LETTERED))
            scene.go_on(3, (scene.live, Outcome.STORED))
    assert events(logged) == [("dead letters prevail", "warning", "telemetry")]
