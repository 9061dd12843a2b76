r"""``psql \copy`` of the very rows that the gateway has stored, into the same table: what the database can take.

One connection, one transaction; no index or constraint is left out.
"""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path
from urllib.parse import quote

from gateway import settings
from gateway.errors import GatewayError, StartError
from gateway.tools.bench import written
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import Drained
from gateway.tools.bench.usage import micros_per_message
from gateway.tools.servers import postgres
from gateway.tools.servers.part import Part
from gateway.tools.servers.programs import find_program

FORMATS = ("binary", "csv")
_COLUMNS = "time, device_id, tenant_id, data, metadata"
_ALL = f"(SELECT {_COLUMNS} FROM telemetry)"  # noqa: S608 - our own words
_TOOK = re.compile(r"^Time: ([0-9.]+) ms", re.MULTILINE)


class Copying:
    """Copies out once, and in as often as is wished."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._psql = psql()
        self._dsn = _with_passfile(bench.installation.timeseries, bench.folder)

    def missing(self) -> str | None:
        """It comes with PostgreSQL's clients."""
        return None if self._psql else "psql is not on the PATH: install the package 'postgresql-client'"

    async def export(self, count: int) -> None:
        """Keep the rows that are there now, of the last drain, in files.

        Raises:
            GatewayError: they are not as many.
        """
        await self._bench.sight.all(count, self._bench.patience(count))
        for form in FORMATS:
            await self._run(rf"\copy {_ALL} TO '{self._file(form)}' (FORMAT {form})", count)

    async def copy(self, form: str, count: int) -> Drained:
        """Copy the rows of the files into the empty table."""
        await self._bench.scratch.empty()
        meter = self._bench.meter()
        before = meter.read()
        rows = f"telemetry ({_COLUMNS})"
        seconds = await self._run(rf"\copy {rows} FROM '{self._file(form)}' (FORMAT {form})", count)
        cpu = micros_per_message(before, meter.read(), count)
        await self._bench.sight.all(count, self._bench.patience(count))
        return Drained(messages=count, rate=count / seconds, to_first=math.nan, wall=seconds, cpu=cpu)

    def _file(self, form: str) -> Path:
        return self._bench.folder / f"rows.{form}"

    async def _run(self, command: str, count: int) -> float:
        """Seconds that psql says it took."""
        assert self._psql is not None
        part = Part("psql", self._bench.folder / "psql.log")
        options = ["--no-psqlrc", "--set=ON_ERROR_STOP=1", "-c", r"\timing on", "-c", command]
        await part.start([self._psql, self._dsn, *options])
        await self._bench.watching(part.finish(self._bench.patience(count)))
        took = _TOOK.search(part.log.read_text("utf-8"))
        if took is None:
            raise GatewayError(f"psql does not say how long it took: {part.log.read_text('utf-8')}")
        return float(took[1]) / 1000


def psql() -> Path | None:
    """The program, of the embedded PostgreSQL or on the PATH."""
    with contextlib.suppress(StartError):
        return postgres.binaries() / "psql"
    return find_program("psql")


def _with_passfile(database: settings.DatabaseSettings, folder: Path) -> str:
    """A DSN that libpq can use alone."""
    address = database.dsn.get_secret_value()
    password = database.secret()
    if password is None:
        return address
    file = written.write_private(folder / "pgpass", f"*:*:*:*:{password}\n")
    return f"{address}{'&' if '?' in address else '?'}passfile={quote(str(file))}"
