"""``scale``: what a message costs with more devices or metrics, in other forms of JSON, and within a small window.

Each backlog begins with one message of every device; the figures begin once those are stored, when the gateway knows
all devices.
"""

from __future__ import annotations

from gateway.tools.bench import drains
from gateway.tools.bench.baselines.mosquitto_sub import MosquittoSub
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import PROCESS, Drained
from gateway.tools.bench.percentiles import median
from gateway.tools.bench.results import Findings, Ratio, Table
from gateway.tools.bench.shape import Shape

_SHARE = 5
"""Of the backlog of ``drain``, one part in so many."""
_WINDOW = 20
"""What mosquitto hands over at once unless it is told otherwise."""
_METRICS = (1, 10, 100)
_FORMS = (Shape(timestamps=False), Shape(flat=True), Shape(timestamps=False, flat=True))
"""Of native JSON, beside that with timestamps and metrics in an object."""
_NARROW = f"broker with a window of {_WINDOW}"
_RIVAL = MosquittoSub()
_NARROW_RIVAL = f"{_RIVAL.name}, {_NARROW}"


async def run(bench: Bench) -> Findings:
    """All variants by turns, round by round."""
    runs: dict[str, list[Drained]] = {}
    for _ in range(bench.options.rounds):
        for kind in _shapes(bench):
            bench.tell(f"scale: {kind}")
            runs.setdefault(str(kind), []).append(await _drain(bench, kind))
        if bench.installation.own:
            await _narrow(bench, runs)
    rows = [drains.summary(name, found) for name, found in runs.items()]
    notes = [
        drains.NOTE,
        f"{_NARROW}: mosquitto's default; mosquitto 2.0.11 lets an MQTT 5 client overrule it",
    ]
    table = Table("scale", "backlogs of other shapes", drains.COLUMNS, rows, notes)
    return Findings([table], _ratios(bench, runs))


async def _narrow(bench: Bench, runs: dict[str, list[Drained]]) -> None:
    """The gateway and its rival at a broker that hands over little at once."""
    bench.tell(f"scale: {_NARROW}")
    async with bench.narrow_broker(_WINDOW):
        runs.setdefault(_NARROW, []).append(await _drain(bench, Shape()))
        if _RIVAL.missing() is None:
            drained = await _RIVAL.drain(bench, Shape(), _count(bench, Shape()))
            runs.setdefault(_NARROW_RIVAL, []).append(drained)


def _shapes(bench: Bench) -> list[Shape]:
    most = bench.options.devices
    by_devices = [Shape(devices=count) for count in (1_000, 10_000, most) if count <= most]
    by_metrics = [Shape(metrics=count) for count in _METRICS]
    return list(dict.fromkeys([*by_devices, *by_metrics, *_FORMS]))


def _count(bench: Bench, kind: Shape) -> int:
    """Messages beside the first of each device; fewer where they are large."""
    return max(bench.options.messages // _SHARE // max(kind.metrics // 10, 1), 1)


async def _drain(bench: Bench, kind: Shape) -> Drained:
    count = kind.devices + _count(bench, kind)
    return await drains.drain(bench, kind, count, warm=kind.devices)


def _ratios(bench: Bench, runs: dict[str, list[Drained]]) -> list[Ratio]:
    few, many = runs[str(Shape())], runs[str(Shape(devices=bench.options.devices))]
    what = f"{bench.options.devices:,} devices ÷ 1,000 devices"
    ratios = [Ratio(f"scale, time per message: {what}", _rate(few) / _rate(many))]
    if cpu := _cpu(few):  # the system counts in hundredths of a second: a short run may have used none
        ratios.insert(0, Ratio(f"scale, gateway's CPU per message: {what}", _cpu(many) / cpu))
    ratios += [
        Ratio(f"scale, messages/s: {kind} ÷ {Shape()}", _rate(runs[str(kind)]) / _rate(few))
        for kind in _FORMS
        if str(kind) in runs
    ]
    if _NARROW_RIVAL in runs:
        narrow = _rate(runs[_NARROW]) / _rate(runs[_NARROW_RIVAL])
        ratios.append(Ratio(f"scale, messages/s, {_NARROW}: gateway ÷ {_RIVAL.name}", narrow))
    return ratios


def _cpu(runs: list[Drained]) -> float:
    return median([run.cpu[PROCESS] for run in runs if PROCESS in run.cpu])


def _rate(runs: list[Drained]) -> float:
    return median([run.rate for run in runs])
