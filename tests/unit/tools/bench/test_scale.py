"""What ``scale`` makes of its runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.tools.bench.drains import PROCESS
from gateway.tools.bench.scenarios import scale
from gateway.tools.bench.shape import Shape


@pytest.mark.parametrize(("cpu", "told"), [(2.0, {"CPU": 1.5, "time": 2.0}), (0.0, {"time": 2.0})])
def test_a_run_too_short_for_its_cpu_to_be_seen_gives_no_ratio_of_it(cpu: float, told: Any) -> None:
    """The system counts in hundredths of a second; the other ratio is told all the same."""
    few = SimpleNamespace(cpu={PROCESS: cpu}, rate=100.0)
    many = SimpleNamespace(cpu={PROCESS: 3.0}, rate=50.0)
    bench: Any = SimpleNamespace(options=SimpleNamespace(devices=5000))
    runs: Any = {str(Shape()): [few], str(Shape(devices=5000)): [many]}
    found = {("CPU" if "CPU" in one.name else "time"): one.value for one in scale._ratios(bench, runs)}
    assert found == told


def test_the_other_forms_of_native_json_are_compared_with_that_of_timestamps_and_metrics() -> None:
    """Without timestamps, flat, and both."""
    bench: Any = SimpleNamespace(options=SimpleNamespace(devices=5000))
    base, form = SimpleNamespace(cpu={}, rate=100.0), SimpleNamespace(cpu={}, rate=80.0)
    runs: Any = {str(Shape()): [base], str(Shape(devices=5000)): [base], str(Shape(flat=True)): [form]}
    found = {one.name: one.value for one in scale._ratios(bench, runs)}
    assert found[f"scale, messages/s: {Shape(flat=True)} ÷ {Shape()}"] == 0.8
