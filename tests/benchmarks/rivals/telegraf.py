"""Telegraf, ``mqtt_consumer`` to ``postgresql``: the program that the environment variable TELEGRAF_BIN names.

Its own defaults but for what the comparison needs: QoS 1 and a session that lasts. It makes its table itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from gateway.tools.bench import written
from gateway.tools.bench.bench import Bench
from gateway.tools.bench.drains import Drained
from gateway.tools.bench.shape import Shape
from gateway.tools.servers.part import Part
from tests.benchmarks.rivals import tables
from tests.benchmarks.rivals.login import login

VARIABLE = "TELEGRAF_BIN"
_TABLE = "rival_telegraf"
_CONFIGURATION = """\
[agent]
  flush_interval = "1s"
  omit_hostname = true
  quiet = true

[[inputs.mqtt_consumer]]
  servers = ["tcp://{host}:{port}"]
  topics = [{filter}]
  client_id = {client_id}
  qos = 1
  persistent_session = true
  data_format = "json"
  json_time_key = "ts"
  json_time_format = "unix_ms"
  name_override = "{table}"
  topic_tag = ""
  [[inputs.mqtt_consumer.topic_parsing]]
    topic = "+/+/+"
    tags = "_/tenant/device"

[[outputs.postgresql]]
  connection = {connection}
  create_templates = [{templates}]
"""
_CREATE = "CREATE TABLE {{ .table }} ({{ .columns }})"
_HYPERTABLE = "SELECT create_hypertable({{ .table|quoteLiteral }}, 'time')"


class Telegraf:
    """One process."""

    name = "Telegraf"

    def missing(self) -> str | None:
        """It is run where it is named."""
        return None if os.environ.get(VARIABLE) else f"{VARIABLE} names no program"

    async def drain(self, bench: Bench, kind: Shape, count: int) -> Drained:
        """Until its table has as many rows."""
        count = min(count, tables.MOST)
        client_id = await bench.backlog(kind, count, "telegraf")
        text = _CONFIGURATION.format(
            host=bench.mqtt.host,
            port=bench.mqtt.port,
            filter=json.dumps(bench.names.filter),
            client_id=json.dumps(client_id),
            connection=json.dumps(_connection(bench)),
            table=_TABLE,
            templates=await _templates(bench),
        )
        file = written.write_private(bench.folder / "telegraf.conf", text)
        part = Part("Telegraf", bench.folder / "telegraf.log")
        return await tables.drain(bench, part, [_program(), "--config", file], _TABLE, count)


def _connection(bench: Bench) -> str:
    parts = login(bench.installation.timeseries)
    return " ".join(f"{name}={value}" for name, value in parts.items())


async def _templates(bench: Bench) -> str:
    wanted = [_CREATE, _HYPERTABLE] if await tables.hypertables(bench) else [_CREATE]
    return ", ".join(map(json.dumps, wanted))


def _program() -> Path:
    return Path(os.environ[VARIABLE]).absolute()
