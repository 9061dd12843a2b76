"""The report for people and for programs."""

from __future__ import annotations

import json
import math

from gateway.tools.bench.report import BenchReport
from gateway.tools.bench.results import Ratio, Table

REPORT = BenchReport(
    machine={"cores": 2},
    versions={"gateway": "1", "database_settings": {"fsync": "on"}},
    installation="here",
    notes=["a note"],
    seed=7,
    seconds=12.34,
    tables=[
        Table(
            "drain", "a title", ("what", "messages/s"), [("gateway", 1234567.8), ("other", math.nan)], ["why"]
        )
    ],
    ratios=[Ratio("gateway ÷ other", 0.6789), Ratio("nothing", math.nan)],
)


def test_people_see_everything() -> None:
    """Machine, versions, seed, notes, figures and ratios; what was not measured is a dash."""
    text = "\n".join(REPORT.lines())
    for said in (
        "cores 2",
        "fsync on",
        "seed      7",
        "a note",
        "1,234,568",
        "(why)",
        "0.68  gateway ÷ other",
    ):
        assert said in text
    assert text.splitlines()[-1].split() == ["-", "nothing"]


def test_programs_get_json() -> None:
    """Strict JSON: what was not measured is null."""
    tree = json.loads(json.dumps(REPORT.as_dict(), allow_nan=False))
    assert tree["tables"][0]["rows"] == [
        {"what": "gateway", "messages/s": 1234567.8},
        {"what": "other", "messages/s": None},
    ]
    assert tree["ratios"] == {"gateway ÷ other": 0.6789, "nothing": None}
    assert (tree["seed"], tree["versions"]["database_settings"]) == (7, {"fsync": "on"})
