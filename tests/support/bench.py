"""``make bench``: ``gateway bench`` on the best database that this machine has for tests.

TimescaleDB where GATEWAY_TEST_TIMESERIES_DSN names a server, or GATEWAY_TEST_TIMESCALEDB_ROOT a folder with one; else
the embedded PostgreSQL, which the bench starts itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from gateway.tools.bench import servers
from tests.support.daemon import GATEWAY
from tests.support.servers import TIMESCALEDB_ROOT, TIMESERIES_DSN, Timescale


@contextlib.contextmanager
def server() -> Iterator[str | None]:
    """A superuser's DSN; None: the bench starts a server itself."""
    if dsn := os.environ.get(TIMESERIES_DSN):
        yield dsn
    elif os.environ.get(TIMESCALEDB_ROOT):
        with Timescale(durable=True, settings=servers.tuning()) as started:
            yield started.start().dsn()
    else:
        yield None


def main(arguments: Sequence[str]) -> int:
    """The bench's exit code."""
    with server() as dsn:
        where = [] if dsn is None else ["--superuser-dsn", dsn]
        return subprocess.run(
            [*GATEWAY, "bench", "--own-servers", *where, *arguments], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
