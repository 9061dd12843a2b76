"""The board of readings that docker-compose.yml gives to Grafana, its queries run as its role on real databases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.storage.revisions import Name
from tests.support.installation import Installation
from tests.support.sql import execute, scalar

BOARD = json.loads(
    (Path(__file__).parents[2] / "config" / "grafana" / "dashboards" / "readings.json").read_text("utf-8")
)


def tenant_with_a_device(installation: Installation, slug: str) -> tuple[str, str]:
    """A tenant, its device ``S1``, and two readings of it; the ids of both."""
    registry = installation.superuser_dsn("metadata")
    tenant = scalar(registry, "INSERT INTO tenants (slug) VALUES ($1) RETURNING id::text", slug)
    kind = scalar(
        registry, f"INSERT INTO device_types (tenant_id, name) VALUES ('{tenant}', 'k') RETURNING id::text"
    )
    columns = "INSERT INTO devices (tenant_id, device_type_id, serial_number) VALUES"
    device = scalar(registry, f"{columns} ('{tenant}', '{kind}', 'S1') RETURNING id::text")
    execute(
        installation.superuser_dsn("timeseries"),
        f"INSERT INTO telemetry (time, device_id, tenant_id, data) VALUES (now(), '{device}', '{tenant}', "
        f"""'{{"t": 1.5, "n": -2, "state": "on"}}'), (now() - interval '1 s', '{device}', '{tenant}', '{{"t": 2}}')""",
    )
    return tenant, device


def filled(sql: str, device: str) -> str:
    """The query as Grafana sends it."""
    for macro, value in {
        "${device:sqlstring}": f"'{device}'",
        "$__timeFrom()": "now() - interval '1 h'",
        "$__timeTo()": "now() + interval '1 h'",
        "$__timeGroup(time, $__interval)": "to_timestamp(floor(extract(epoch FROM time) / 60) * 60)",
    }.items():
        sql = sql.replace(macro, value)
    assert "$" not in sql
    return sql


async def test_the_board_shows_the_readings_of_the_bound_tenant(installation: Installation) -> None:
    """As the reader: its devices by name, every number, counts and rows; nothing of a tenant beside it."""
    (tenant, ours), (_, theirs) = (tenant_with_a_device(installation, slug) for slug in ("ours", "theirs"))
    await installation.bind(installation.roles.reader, UUID(tenant))
    panels = {panel["title"]: panel["targets"][0]["rawSql"] for panel in BOARD["panels"]}
    devices = next(one["query"] for one in BOARD["templating"]["list"] if one["name"] == "device")

    async def ask(name: Name, sql: str, device: str = ours) -> list[Any]:
        connection = await installation.connect(name, installation.roles.reader)
        try:
            return list(map(tuple, await connection.fetch(filled(sql, device))))
        finally:
            await connection.close()

    assert await ask("metadata", devices) == [("S1", ours)]
    numbers = [(metric, value) for _, metric, value in await ask("timeseries", panels["Readings"])]
    assert sorted(numbers) == [("n", -2.0), ("t", 1.5), ("t", 2.0)]
    assert sum(count for _, count in await ask("timeseries", panels["Readings of all devices"])) == 2
    assert len(await ask("timeseries", panels["Latest readings"])) == 2
    assert await ask("timeseries", panels["Readings"], theirs) == []
    assert await ask("timeseries", panels["Latest readings"], theirs) == []
