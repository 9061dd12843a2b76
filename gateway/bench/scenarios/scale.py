"""``scale``: what a message costs with more devices, more metrics, no timestamps, and a broker that hands over little.

Each backlog begins with one message of every device; the figures begin once those are stored, when the gateway knows
all devices.
"""

from __future__ import annotations

from gateway.bench import drains
from gateway.bench.bench import Bench
from gateway.bench.drains import PROCESS, Drained
from gateway.bench.percentiles import median
from gateway.bench.results import Findings, Ratio, Table
from gateway.bench.rivals.mosquitto_sub import MosquittoSub
from gateway.bench.shape import Shape

_SHARE = 5
"""Of the backlog of ``drain``, one part in so many."""
_WINDOW = 20
"""What mosquitto hands over at once unless it is told otherwise."""
_METRICS = (1, 10, 100)
_NARROW = f"window of {_WINDOW}"
_RIVAL = MosquittoSub(window=_WINDOW)


async def run(bench: Bench) -> Findings:
    """All variants by turns, round by round."""
    runs: dict[str, list[Drained]] = {}
    for _ in range(bench.options.rounds):
        for kind in _shapes(bench):
            bench.tell(f"scale: {kind}")
            runs.setdefault(str(kind), []).append(await _drain(bench, kind))
        bench.tell(f"scale: {_NARROW}")
        runs.setdefault(_NARROW, []).append(await _drain(bench, Shape(), window=_WINDOW))
        if bench.installation.own and _RIVAL.missing() is None:
            runs.setdefault(_RIVAL.name, []).append(
                await _RIVAL.drain(bench, Shape(), _count(bench, Shape()))
            )
    rows = [drains.summary(name, found) for name, found in runs.items()]
    notes = [drains.NOTE, f"{_NARROW}: as from a broker with mosquitto's defaults ({Shape()})"]
    table = Table("scale", "backlogs of other shapes", drains.COLUMNS, rows, notes)
    return Findings([table], _ratios(bench, runs))


def _shapes(bench: Bench) -> list[Shape]:
    most = bench.options.devices
    by_devices = [Shape(devices=count) for count in (1_000, 10_000, most) if count <= most]
    by_metrics = [Shape(metrics=count) for count in _METRICS]
    return list(dict.fromkeys([*by_devices, *by_metrics, Shape(timestamps=False)]))


def _count(bench: Bench, kind: Shape) -> int:
    """Messages beside the first of each device; fewer where they are large."""
    return max(bench.options.messages // _SHARE // max(kind.metrics // 10, 1), 1)


async def _drain(bench: Bench, kind: Shape, window: int | None = None) -> Drained:
    mqtt = {"receive_maximum": window} if window else {}
    count = kind.devices + _count(bench, kind)
    return await drains.drain(bench, kind, count, warm=kind.devices, mqtt=mqtt)


def _ratios(bench: Bench, runs: dict[str, list[Drained]]) -> list[Ratio]:
    few, many = runs[str(Shape())], runs[str(Shape(devices=bench.options.devices))]
    what = f"{bench.options.devices:,} devices ÷ 1,000 devices"
    ratios = [
        Ratio(f"scale, gateway's CPU per message: {what}", _cpu(many) / _cpu(few)),
        Ratio(f"scale, time per message: {what}", _rate(few) / _rate(many)),
    ]
    if _RIVAL.name in runs:
        ratios.append(
            Ratio(
                f"scale, messages/s: gateway, {_NARROW} ÷ {_RIVAL.name}",
                _rate(runs[_NARROW]) / _rate(runs[_RIVAL.name]),
            )
        )
    return ratios


def _cpu(runs: list[Drained]) -> float:
    return median([run.cpu[PROCESS] for run in runs if PROCESS in run.cpu])


def _rate(runs: list[Drained]) -> float:
    return median([run.rate for run in runs])
