"""``drain``: a backlog waits in a persistent session, the gateway starts; and so do all rivals that can do that.

The gateway and its rivals take turns, round by round.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.tools.bench import drains
from gateway.tools.bench.baselines.copying import FORMATS, Copying
from gateway.tools.bench.baselines.mosquitto_sub import MosquittoSub
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import Drained
from gateway.tools.bench.percentiles import median
from gateway.tools.bench.results import Findings, Ratio, Table
from gateway.tools.bench.rivals import Rival
from gateway.tools.bench.shape import Shape

GATEWAY = "gateway"


async def run(bench: Bench, rivals: Sequence[Rival] = ()) -> Findings:
    """All rounds, with these rivals beside what broker and database can do by themselves."""
    contest = _Contest(bench, (MosquittoSub(), *rivals))
    for number in range(bench.options.rounds):
        await contest.round(number)
    rows = [drains.summary(name, runs) for name, runs in contest.runs.items()]
    table = Table("drain", f"backlog drained ({contest.kind})", drains.COLUMNS, rows, contest.notes())
    return Findings([table], _ratios(contest.runs))


class _Contest:
    """The gateway against the others.

    Attributes:
        runs: of each, by name.
    """

    def __init__(self, bench: Bench, rivals: Sequence[Rival]) -> None:
        self._bench = bench
        self.kind = Shape()
        self.runs: dict[str, list[Drained]] = {}
        self._copying = Copying(bench)
        own = bench.installation.own
        self._rivals = [rival for rival in rivals if own and rival.missing() is None]
        self._missing = {rival.name: rival.missing() for rival in rivals if rival not in self._rivals}

    async def round(self, number: int) -> None:
        """Everybody once."""
        bench, count = self._bench, self._bench.options.messages
        bench.tell(f"drain: round {number + 1} of {bench.options.rounds}: gateway")
        self._enter(GATEWAY, await drains.drain(bench, self.kind, count))
        if bench.installation.own and self._copying.missing() is None:
            await self._copy(count)
        for rival in self._rivals:
            bench.tell(f"drain: round {number + 1} of {bench.options.rounds}: {rival.name}")
            self._enter(rival.name, await rival.drain(bench, self.kind, count))

    async def _copy(self, count: int) -> None:
        await self._copying.export(count)
        for form in FORMATS:
            name = _copy_name(form)
            self._bench.tell(f"drain: {name}")
            self._enter(name, await self._copying.copy(form, count))

    def _enter(self, name: str, drained: Drained) -> None:
        self.runs.setdefault(name, []).append(drained)

    def notes(self) -> list[str]:
        """What must be known of the figures."""
        if not self._bench.installation.own:
            return [drains.NOTE, "rivals run beside servers of the bench's own only"]
        missing = {**self._missing, "psql": self._copying.missing()}
        return [drains.NOTE, *(f"not run: {name}: {why}" for name, why in missing.items() if why)]


def _copy_name(form: str) -> str:
    return rf"psql \copy, {form}"


def _ratios(runs: dict[str, list[Drained]]) -> list[Ratio]:
    """The gateway divided by each of the others."""
    rates = {name: median([run.rate for run in found]) for name, found in runs.items()}
    ours = rates.pop(GATEWAY)
    return [Ratio(f"drain, messages/s: gateway ÷ {name}", ours / rate) for name, rate in rates.items()]
