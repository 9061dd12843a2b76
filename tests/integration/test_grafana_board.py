"""The board of readings that docker-compose.yml gives to Grafana, its queries run as its role on real databases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def filled(sql: str, tenant: str, device: str) -> str:
    """The query as Grafana sends it."""
    for macro, value in {
        "${tenant}": tenant,
        "${device:sqlstring}": f"'{device}'",
        "$__timeFilter(time)": "time BETWEEN now() - interval '1 h' AND now() + interval '1 h'",
        "$__timeGroup(time, $__interval)": "to_timestamp(floor(extract(epoch FROM time) / 60) * 60)",
    }.items():
        sql = sql.replace(macro, value)
    assert "$" not in sql
    return sql


async def test_the_board_shows_the_readings_of_the_tenant_that_is_asked_for(
    installation: Installation,
) -> None:
    """As the reader: its devices by name, every number, counts and rows; nothing of a tenant beside it."""
    (ours, device), (theirs, _) = (tenant_with_a_device(installation, slug) for slug in ("ours", "theirs"))
    panels = {panel["title"]: panel["targets"][0]["rawSql"] for panel in BOARD["panels"]}
    devices = next(one["query"] for one in BOARD["templating"]["list"] if one["name"] == "device")

    async def ask(name: Name, sql: str, tenant: str) -> list[Any]:
        connection = await installation.connect(name, installation.roles.reader)
        try:
            # Grafana sends both in one message; the driver here has no way to.
            choice, query = filled(sql, tenant, device).split(";")
            await connection.execute(choice)
            return list(map(tuple, await connection.fetch(query)))
        finally:
            await connection.close()

    assert await ask("metadata", devices, ours) == [("S1", device)]
    numbers = [(metric, value) for _, metric, value in await ask("timeseries", panels["Readings"], ours)]
    assert sorted(numbers) == [("n", -2.0), ("t", 1.5), ("t", 2.0)]
    assert sum(count for _, count in await ask("timeseries", panels["Readings of all devices"], ours)) == 2
    assert len(await ask("timeseries", panels["Latest readings"], ours)) == 2
    assert await ask("timeseries", panels["Readings"], theirs) == []
    assert await ask("timeseries", panels["Latest readings"], theirs) == []
    assert sum(count for _, count in await ask("timeseries", panels["Readings of all devices"], theirs)) == 2
