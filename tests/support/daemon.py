"""The gateway's daemon as a process of its own, and its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.databases import Databases
from tests.support.plan import TELEMETRY
from tests.support.processes import Process
from tests.support.waiting import eventually, free_port

REPOSITORY = str(Path(__file__).parents[2])
GATEWAY = [sys.executable, "-m", "gateway"]


class Daemon(Process):
    """``gateway run`` with a configuration of its own; every start has the same client id.

    Args:
        port: the broker's.
        settings: sections over the usual ones: ``{"mqtt": {"protocol": "3.1.1"}, "batch": {…}}``;
            ``streams`` is replaced as a whole.

    Attributes:
        host: where its health is asked for.
        prefix: put before its command, to run it elsewhere.
        arguments: put behind its command.
        variables: put into its environment.
    """

    def __init__(
        self,
        port: int,
        databases: Databases,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str = "gateway",
    ) -> None:
        super().__init__(name)
        self.host, self.port = "127.0.0.1", free_port()
        self.prefix: Sequence[str] = ()
        self.arguments: Sequence[str] = ()
        self.variables: Mapping[str, str] = {}
        self.client_id = f"gateway-{self.port}"
        self.configuration = self.folder / "gateway.toml"
        self.settings = _merged(self._usual(port, databases), settings or {})
        self.configure()

    def configure(self, settings: Mapping[str, Any] | None = None) -> None:
        """Write the configuration, with further sections; it counts from the next start."""
        self.settings = _merged(self.settings, settings or {})
        self.configuration.write_text(to_toml(self.settings), "utf-8")

    @property
    def has_spool(self) -> bool:
        """Whether it is configured."""
        return "folder" in self.settings.get("spool", {})

    def command(self) -> Sequence[str]:
        """The daemon in the foreground."""
        return [*self.prefix, *GATEWAY, "run", "--config", str(self.configuration), *self.arguments]

    def environment(self) -> Mapping[str, str]:
        """Ours: the tests' own was scrubbed."""
        return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": REPOSITORY, **self.variables}

    def is_ready(self) -> bool:
        """``/ready`` says 200."""
        return self.ready()[0] == 200

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Status code and body of ``/ready``."""
        return self._get("/ready")

    def status(self) -> dict[str, Any]:
        """The body of ``/status``."""
        return self._get("/status")[1]

    def component(self, name: str) -> dict[str, Any]:
        """State, detail and last error of one component, as ``/ready`` tells."""
        found: dict[str, Any] = self.ready()[1]["components"][name]
        return found

    def total(self) -> dict[str, int]:
        """The books of all streams together."""
        found: dict[str, int] = self.status()["total"]
        return found

    def settle(self, messages: int, *, timeout: float = 60) -> dict[str, int]:
        """The books, once that many messages were received and all are settled."""

        def settled() -> dict[str, int] | None:
            books = self.total()
            return books if books["received"] >= messages and not books["in_flight"] else None

        found = eventually(settled, timeout=timeout, every=0.1, what=f"{messages} messages settled")
        assert found is not None
        return found

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a ``gateway`` command with this daemon's configuration."""
        return gateway(*arguments, config=self.configuration, check=check)

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.port}{path}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)

    def _usual(self, port: int, databases: Databases) -> dict[str, Any]:
        return {
            "mqtt": {"host": "127.0.0.1", "port": port, "client_id": self.client_id, "reconnect_max": "1s"},
            "databases": {
                "metadata": {"dsn": databases.metadata_dsn},
                "timeseries": {"dsn": databases.timeseries_dsn},
            },
            "streams": [{"name": "telemetry", "topic": TELEMETRY}],
            "writer": {"retry_max": "1s", "standing_retry": "1s"},
            "observability": {"port": self.port, "log_format": "json"},
        }


def gateway(*arguments: str, config: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a ``gateway`` command as a user would; with ``check``, it must end with 0."""
    environment = {
        **os.environ,
        "GATEWAY_CONFIG": str(config),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "PYTHONPATH": REPOSITORY,
    }
    done = subprocess.run(
        [*GATEWAY, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert done.returncode == 0 or not check, f"{arguments} ended with {done.returncode}:\n{done.stderr}"
    return done


def _merged(usual: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {**usual, **other}
    for name in usual.keys() & other.keys():
        if isinstance(usual[name], Mapping) and isinstance(other[name], Mapping):
            both[name] = _merged(usual[name], other[name])
    return both


def to_toml(settings: Mapping[str, Any]) -> str:
    """Settings as TOML, each section in one line."""
    return "".join(f"{name} = {_value(section)}\n" for name, section in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)
