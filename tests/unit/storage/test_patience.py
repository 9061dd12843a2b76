"""Patience with servers that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
import structlog

from gateway import errors
from gateway.observability.health import Component, ComponentState
from gateway.storage.retry import Retrying
from tests.support.waiting import eventually_async

TRANSIENT = errors.TransientError("timeseries: connection refused", None)
OTHER = errors.TransientError("timeseries: no answer in time", None)
STANDING = errors.StandingError("timeseries: a table is missing: run `gateway db upgrade`", "42P01")


class Attempts:
    """Fails with these errors, one a try, then works."""

    def __init__(self, failures: Iterable[BaseException]) -> None:
        self._failures = list(failures)
        self.made = 0
        self.states: list[tuple[ComponentState, str]] = []
        self.component = Component("timeseries")

    async def __call__(self) -> None:
        """One try."""
        self.states.append((self.component.state, self.component.detail))
        self.made += 1
        if self._failures:
            raise self._failures.pop(0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which take no time."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr("gateway.storage.retry.asyncio.sleep", sleep)
    return found


def patient(attempts: Attempts) -> Retrying:
    """Waits from 1 to 8 seconds, or 30 for what must be mended."""
    return Retrying(attempts.component, shortest=1, longest=8, standing=30)


@pytest.mark.usefixtures("waits")
async def test_it_tries_until_it_works() -> None:
    """However often it fails; then the component is ready."""
    attempts = Attempts([TRANSIENT] * 20)
    await patient(attempts).until_done(attempts)
    assert attempts.made == 21
    assert attempts.component.state is ComponentState.READY
    assert attempts.component.last_error == str(TRANSIENT)


async def test_waits_double_with_jitter_up_to_a_bound(waits: list[float]) -> None:
    """Many who lost one server must not return as one, nor ask all the time."""
    attempts = Attempts([TRANSIENT] * 6)
    await patient(attempts).until_done(attempts)
    bounds = [1, 2, 4, 8, 8, 8]
    assert len(waits) == 6
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))


async def test_what_must_be_mended_is_tried_slowly(waits: list[float]) -> None:
    """And begins no back-off of its own."""
    attempts = Attempts([STANDING, STANDING, TRANSIENT])
    await patient(attempts).until_done(attempts)
    assert waits[:2] == [30, 30]
    assert waits[2] <= 1


async def test_each_task_begins_with_the_shortest_wait(waits: list[float]) -> None:
    """What was waited for another thing does not count."""
    attempts = Attempts([TRANSIENT] * 4)
    one = patient(attempts)
    await one.until_done(attempts)
    attempts._failures = [TRANSIENT]
    await one.until_done(attempts)
    assert waits[-1] <= 1


@pytest.mark.usefixtures("waits")
async def test_the_state_is_true_meanwhile() -> None:
    """Waiting for what should come back, failed for what somebody must mend, each with its text."""
    attempts = Attempts([TRANSIENT, STANDING, OTHER])
    await patient(attempts).until_done(attempts)
    assert attempts.states == [
        (ComponentState.STARTING, ""),
        (ComponentState.WAITING, str(TRANSIENT)),
        (ComponentState.FAILED, str(STANDING)),
        (ComponentState.WAITING, str(OTHER)),
    ]


@pytest.mark.usefixtures("waits")
async def test_the_log_says_what_is_new() -> None:
    """One line when something new is wrong, one when it is over; the tries between are for debuggers."""
    attempts = Attempts([TRANSIENT, TRANSIENT, TRANSIENT, STANDING, STANDING])
    with structlog.testing.capture_logs() as lines:
        await patient(attempts).until_done(attempts)
        await patient(attempts).until_done(attempts)
    assert [(line["log_level"], line["event"]) for line in lines if line["log_level"] != "debug"] == [
        ("warning", "store failed"),
        ("error", "store failed"),
        ("info", "store recovered"),
    ]


async def test_one_that_goes_on_does_not_speak_for_one_that_waits() -> None:
    """While one connection cannot write, another that can makes nothing ready, and the log says it once."""
    component = Component("timeseries")
    shared = Retrying(component, shortest=0.01, longest=0.01, standing=0.01)
    stuck, fine = Attempts([STANDING] * 1000), Attempts([])
    with structlog.testing.capture_logs() as lines:
        waiting = asyncio.create_task(shared.until_done(stuck))
        for tries in range(1, 10):
            await eventually_async(lambda tries=tries: stuck.made >= tries)  # type: ignore[misc]
            await shared.until_done(fine)
            assert (component.state, component.detail) == (ComponentState.FAILED, str(STANDING))
        stuck._failures.clear()
        await asyncio.wait_for(waiting, 5)
    assert component.state is ComponentState.READY
    told = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert told == ["store failed", "store recovered"]


@pytest.mark.usefixtures("waits")
async def test_a_secret_that_cannot_be_read_now_is_waited_for() -> None:
    """A password file that is being replaced must not end a daemon that runs."""
    attempts = Attempts([errors.ConfigurationError("cannot read /run/secrets/password: No such file")])
    await asyncio.wait_for(patient(attempts).until_done(attempts), 5)
    assert attempts.made == 2
    assert attempts.component.last_error == "cannot read /run/secrets/password: No such file"


@pytest.mark.usefixtures("waits")
async def test_a_defect_is_no_trouble_with_a_server() -> None:
    """Errors of our own pass: to try again would hide them."""
    attempts = Attempts([ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        await patient(attempts).until_done(attempts)
