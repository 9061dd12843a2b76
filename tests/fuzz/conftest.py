"""How long a target is fuzzed, and with which inputs.

A target is a property of hypothesis, run in rounds until its time is over. A round is a number of inputs made from a
seed: the same seed makes the same inputs. GATEWAY_FUZZ_MINUTES is for all targets of a run together; without it each
has ``SHARE`` seconds, and the seeds count from 0, so that what fails is due to the change and not to chance.
GATEWAY_FUZZ_SEED is the first seed of ``make fuzz``. Hypothesis saves failing inputs in ``.hypothesis`` and tries them
first the next time.
"""

from __future__ import annotations

import itertools
import os
import random
import time
import warnings
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis.errors import HypothesisWarning

from tests.support import fuzzing

SHARE = 2.0
"""Seconds."""
_MINUTES = os.environ.get("GATEWAY_FUZZ_MINUTES")
_SEED = os.environ.get("GATEWAY_FUZZ_SEED")

os.environ["RUST_BACKTRACE"] = "0"  # mqtt5 panics on text that is not UTF-8, and a trace takes milliseconds


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a target round by round; a failure tells its seed."""
    if not getattr(pyfuncitem.obj, "is_hypothesis_test", False):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    end = time.monotonic() + _seconds(pyfuncitem.session)
    for seed in _seeds():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", HypothesisWarning)  # of large inputs, when they are printed
                hypothesis.seed(seed)(pyfuncitem.obj)(**arguments)
        except BaseException:
            name = pyfuncitem.path.stem.removeprefix("test_")
            how = f"make fuzz TARGET={name} SEED={seed} MINUTES=1"
            pyfuncitem.add_report_section("call", "how to repeat", how)
            raise
        if time.monotonic() > end:
            break
    return True


def _seeds() -> Iterator[int]:
    if _SEED is not None:
        return itertools.count(int(_SEED))
    return itertools.count(random.randrange(10**9) if _MINUTES else 0)


def _seconds(session: pytest.Session) -> float:
    if not _MINUTES:
        return SHARE
    targets = [
        item for item in session.items if getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    ]
    return 60 * float(_MINUTES) / len(targets)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many inputs were tried."""
    if _MINUTES:
        terminalreporter.section("inputs tried")
        for name, tries in fuzzing.TRIED.items():
            terminalreporter.write_line(f"{tries:>12}  {name}")
