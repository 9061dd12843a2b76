"""``gateway bench`` as operators run it: rows counted, everything removed. No time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import GATEWAY, REPOSITORY, Daemon
from tests.support.databases import Databases
from tests.support.provisioned import provision
from tests.support.servers import TIMESCALEDB_ROOT, TIMESERIES_DSN, Mosquitto
from tests.support.waiting import eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.slow]

ENVIRONMENT = {**os.environ, "PYTHONPATH": REPOSITORY}
BASELINES = {"mosquitto_sub", r"psql \copy, binary", r"psql \copy, csv"}
LITTLE = ("--messages", "1500", "--seconds", "0.5", "--rounds", "1", "--devices", "1000")
LEFT = {
    "metadata": ("tenants", "device_types", "devices"),
    "timeseries": ("telemetry", "dead_letters", "processed_messages", "redelivery_ledger"),
}


@pytest.fixture
def installation(start_mosquitto: Callable[..., Mosquitto]) -> Iterator[Callable[..., Daemon]]:
    """``installation(databases, max_queued=…)``: a configured gateway that is not running, and its broker."""
    made: list[Daemon] = []

    def configure(databases: Databases, **broker: Any) -> Daemon:
        made.append(Daemon(start_mosquitto(**broker).port, databases))
        return made[-1]

    yield configure
    for daemon in made:
        daemon.close()


def bench(where: Daemon, *arguments: str) -> dict[str, Any]:
    """The report of a small bench of this installation."""
    return run(where.configuration, *arguments)


def run(configuration: Path, *arguments: str) -> dict[str, Any]:
    """The report of a small bench."""
    return reported(
        [*GATEWAY, "bench", "--config", str(configuration), *LITTLE, "--json", *arguments], ENVIRONMENT
    )


def reported(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The report that a command prints as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def rows(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each scenario's table."""
    return {table["scenario"]: table["rows"] for table in report["tables"]}


def counts(databases: Databases) -> dict[str, int]:
    """Rows of every table in which a bench writes."""
    found = {table: databases.metadata(f"SELECT count(*) FROM {table}")[0][0] for table in LEFT["metadata"]}
    return found | {table: databases.count(table) for table in LEFT["timeseries"]}


def test_an_installation_is_measured_and_left_as_it_was(
    databases: Databases, installation: Callable[..., Daemon]
) -> None:
    """On both engines every row is counted; what others have stays, what the bench made goes."""
    provision(databases, ["mine"])
    databases.timeseries(
        "INSERT INTO telemetry (time, device_id, tenant_id, data) "
        "VALUES (now(), gen_random_uuid(), gen_random_uuid(), '{}')"
    )
    before = counts(databases)
    report = bench(installation(databases), "--seed", "5", "--scenario", "drain", "--scenario", "latency")
    (drained,) = rows(report)["drain"]
    assert (drained["what"], drained["messages"], report["seed"]) == ("gateway", 1500, 5)
    assert [row["probes"] > 0 for row in rows(report)["latency"]] == [True] * 3
    assert counts(databases) == before


def test_the_other_scenarios_end_with_rows_counted(
    postgres_databases: Databases, installation: Callable[..., Daemon]
) -> None:
    """The search for the highest rate, other shapes, the peak of memory, the start: each has its table."""
    others = ("steady", "scale", "memory", "start")
    where = installation(postgres_databases)
    report = bench(where, *(word for name in others for word in ("--scenario", name)))
    assert tuple(rows(report)) == others
    assert [row["asked messages/s"] for row in rows(report)["steady"]][-1] is None
    assert all(row["peak MiB"] > 0 for row in rows(report)["memory"])


def test_a_broker_that_drops_is_taken_as_it_is(
    postgres_databases: Databases, installation: Callable[..., Daemon]
) -> None:
    """The backlog is what such a broker keeps, the report says so, and nothing that would overrun it is run."""
    where = installation(postgres_databases, max_queued=300)
    report = bench(where, "--scenario", "drain", "--scenario", "memory", "--scenario", "latency")
    found = rows(report)
    assert list(found) == ["drain", "latency"]
    assert 300 <= found["drain"][0]["messages"] < 1500
    assert [row["asked messages/s"] for row in found["latency"]] == [100]
    assert "drops the others" in report["notes"][0]


def test_one_row_too_many_fails_the_run(
    postgres_databases: Databases, installation: Callable[..., Daemon]
) -> None:
    """A figure is worth nothing when rows do not match messages: exit code 1, with both counts."""
    postgres_databases.timeseries("CREATE SEQUENCE inserts")  # however many COPYs there are, one adds a row
    postgres_databases.timeseries(
        """CREATE FUNCTION one_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('inserts') = 1 THEN
               INSERT INTO telemetry (time, device_id, tenant_id, data)
               SELECT time + interval '1 us', device_id, tenant_id, data FROM new LIMIT 1;
             END IF; RETURN NULL; END $$"""
    )
    postgres_databases.timeseries(
        "CREATE TRIGGER one_more AFTER INSERT ON telemetry REFERENCING NEW TABLE AS new "
        "FOR EACH STATEMENT EXECUTE FUNCTION one_more()"
    )
    where = installation(postgres_databases)
    done = where.cli("bench", *LITTLE, "--scenario", "drain", check=False)
    assert done.returncode == 1
    assert "1500 messages published, but 1501 rows found" in done.stderr
    assert set(counts(postgres_databases).values()) == {0}


def test_what_a_killed_bench_left_can_be_removed(
    postgres_databases: Databases, installation: Callable[..., Daemon]
) -> None:
    """By its name, and by no other name."""
    name = "gateway-bench-0123abcd"
    provision(postgres_databases, ["left"], tenant=name)
    provision(postgres_databases, ["mine"])
    where = installation(postgres_databases)
    assert where.cli("bench", "--remove", "acme", check=False).returncode == 2
    where.cli("bench", "--remove", name)
    assert [row[0] for row in postgres_databases.metadata("SELECT slug FROM tenants")] == ["acme"]
    assert [row[0] for row in postgres_databases.metadata("SELECT serial_number FROM devices")] == ["mine"]


def test_a_bench_that_is_stopped_removes_everything(
    postgres_databases: Databases, installation: Callable[..., Daemon]
) -> None:
    """SIGTERM in the midst of a load: exit code 1, and nothing is left."""
    where = installation(postgres_databases)
    command = [*GATEWAY, "bench", "--config", str(where.configuration), "--messages", "300000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as running:
        eventually(lambda: counts(postgres_databases)["devices"] > 1000, timeout=60)
        running.terminate()
        _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "everything that the bench made is removed" in said
    assert set(counts(postgres_databases).values()) == {0}


def test_the_writer_may_not_bench(postgres_databases: Databases, installation: Callable[..., Daemon]) -> None:
    """Who may not enter tenants is told as whom to connect: exit code 2."""
    postgres_databases.metadata("DROP ROLE IF EXISTS bench_nobody")
    postgres_databases.metadata("CREATE ROLE bench_nobody LOGIN")
    postgres_databases.metadata("GRANT SELECT ON ALL TABLES IN SCHEMA public TO bench_nobody")
    postgres_databases.timeseries("GRANT SELECT, DELETE ON redelivery_ledger TO bench_nobody")
    done = installation(postgres_databases).cli("bench", *LITTLE, "--db-user", "bench_nobody", check=False)
    assert (done.returncode, "--db-user gateway_owner" in done.stderr) == (2, True)


def test_this_machine_is_measured_with_servers_of_its_own(tmp_path: Path) -> None:
    """No configuration, no server needed; broker and database alone run in the same bench; nothing is left behind."""
    arguments = ("--own-servers", "--folder", str(tmp_path), "--scenario", "drain")
    report = run(tmp_path / "there-is-none.toml", *arguments)
    drained = {row["what"]: row for row in rows(report)["drain"]}
    assert drained.keys() == {"gateway", *BASELINES}
    assert all(row["messages"] == 1500 for row in drained.values())
    assert "drain, messages/s: gateway ÷ mosquitto_sub" in report["ratios"]
    assert list(tmp_path.iterdir()) == []


def test_rivals_take_part_in_make_bench(tmp_path: Path) -> None:
    """Beside what the wheel has; a rival whose program is not there is named, with what to set."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks",
        *LITTLE,
        "--scenario",
        "drain",
        "--folder",
        str(tmp_path),
    ]
    unset = {"TELEGRAF_BIN": "", "NODE_RED_BIN": "", TIMESCALEDB_ROOT: "", TIMESERIES_DSN: ""}
    report = reported([*command, "--json"], {**ENVIRONMENT, **unset})
    (drain,) = report["tables"]
    assert {row["what"] for row in drain["rows"]} == {"gateway", "plain bridge", *BASELINES}
    assert any("Telegraf: TELEGRAF_BIN names no program" in note for note in drain["notes"])
    assert "drain, messages/s: gateway ÷ plain bridge" in report["ratios"]
    assert list(tmp_path.iterdir()) == []
