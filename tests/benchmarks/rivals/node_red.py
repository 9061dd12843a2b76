"""Node-RED, ``mqtt in`` to a function to ``postgresql``: the program that the environment variable NODE_RED_BIN names.

Beside it, or in a ``node_modules`` folder above it, node-red-contrib-postgresql must be installed. A row a message, by
the pool of ten connections that the node has by default.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gateway.tools.bench import written
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import Drained
from gateway.tools.bench.shape import Shape
from gateway.tools.servers.part import Part
from gateway.tools.servers.ports import free_port
from tests.benchmarks.rivals import tables
from tests.benchmarks.rivals.login import login

VARIABLE = "NODE_RED_BIN"
_TABLE = "rival_node_red"
_CREATE = f"CREATE TABLE {_TABLE} (time timestamptz NOT NULL, device text NOT NULL, data jsonb NOT NULL)"
_HYPERTABLE = f"SELECT create_hypertable('{_TABLE}', 'time')"
_INSERT = f"INSERT INTO {_TABLE} (time, device, data) VALUES (to_timestamp($1::float8), $2, $3)"
_FUNCTION = """\
msg.params = [msg.payload.ts / 1000, msg.topic.split("/").pop(), msg.payload.metrics];
return msg;
"""


class NodeRed:
    """One process, without its editor."""

    name = "Node-RED"

    def missing(self) -> str | None:
        """It is run where it is named."""
        return None if os.environ.get(VARIABLE) else f"{VARIABLE} names no program"

    async def drain(self, bench: Bench, kind: Shape, count: int) -> Drained:
        """Until its table has as many rows."""
        count = min(count, tables.MOST)
        client_id = await bench.backlog(kind, count, "node-red")
        statements = [_CREATE, _HYPERTABLE] if await tables.hypertables(bench) else [_CREATE]
        await tables.execute(bench, *statements)
        home = bench.folder / "node-red"
        home.mkdir(exist_ok=True)
        written.write_private(home / "settings.js", f"module.exports = {json.dumps(_settings())};\n")
        written.write_private(home / "flows.json", json.dumps(_flow(bench, client_id)))
        part = Part("Node-RED", bench.folder / "node-red.log")
        return await tables.drain(bench, part, [_program(), "--userDir", home], _TABLE, count)


def _settings() -> dict[str, Any]:
    return {
        "flowFile": "flows.json",
        "uiHost": "127.0.0.1",
        "uiPort": free_port(),
        "httpAdminRoot": False,
        "credentialSecret": False,
    }


def _flow(bench: Bench, client_id: str) -> list[dict[str, Any]]:
    parts = login(bench.installation.timeseries)
    return [
        {"id": "flow", "type": "tab"},
        {
            "id": "broker", "type": "mqtt-broker", "broker": bench.mqtt.host, "port": str(bench.mqtt.port),
            "clientid": client_id, "autoConnect": True, "cleansession": False, "keepalive": "60",
            "protocolVersion": "4",
        },
        {
            "id": "in", "z": "flow", "type": "mqtt in", "broker": "broker", "topic": bench.names.filter, "qos": "1",
            "datatype": "json", "inputs": 0, "wires": [["rows"]],
        },
        {"id": "rows", "z": "flow", "type": "function", "func": _FUNCTION, "outputs": 1, "wires": [["insert"]]},
        {
            "id": "insert", "z": "flow", "type": "postgresql", "postgreSQLConfig": "database", "query": _INSERT,
            "split": False, "rowsPerMsg": 1, "outputs": 1, "wires": [[]],
        },
        {
            "id": "database", "type": "postgreSQLConfig", "host": parts["host"], "port": parts["port"],
            "database": parts["dbname"], "user": parts["user"], "password": parts.get("password", ""), "ssl": False,
            "max": 10,
        },
    ]  # fmt: skip


def _program() -> Path:
    return Path(os.environ[VARIABLE]).absolute()
