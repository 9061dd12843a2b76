"""What is shipped beside the code works with it: broker, unit, containers, alerts, dashboard, the page on metrics."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import quantities, settings
from gateway.observability import events
from tests.support.minimal import MINIMAL
from tests.support.reports import a_report

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((CONFIG / "alerts.yml").read_text("utf-8"))
NAME = re.compile(r"\b(?:gateway|process)_[a-z0-9_]+\b")


def exposed() -> dict[str, str]:
    """Every metric of /metrics with its type; histograms by their family's name."""
    text = a_report().exposition().decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def seconds(text: str) -> float:
    """A duration, in seconds."""
    found = quantities.parse_duration(text)
    assert isinstance(found, float)
    return found


def series() -> set[str]:
    """Every name that a query may use."""
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in exposed().items() for part in parts.get(kind, ("",))}


def test_the_page_lists_every_metric() -> None:
    """docs/metrics.md has each metric with its type, and none that is gone."""
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `(\S+)` \| (\w+) \|", page, re.MULTILINE))
    assert listed == exposed()


def test_the_runbook_knows_every_alert_and_event() -> None:
    """docs/runbook.md names each alert, and each log event that is not for debugging; and none that is gone."""
    page = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    alerts = {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(Gateway\w+)`", page)) == alerts
    assert set(re.findall(r"^\| `([^`]+)` \| (?:error|warning|info)", page, re.MULTILINE)) == logged()


def logged() -> set[str]:
    """The names of all events that are logged above debug level."""
    functions = (one for one in vars(events).values() if inspect.isfunction(one) and one.__name__[0] != "_")
    sources = [inspect.getsource(one) for one in functions if one.__module__ == events.__name__]
    calls = r'(?:log\.(?:info|warning|error)\b[^"]*|_once|level)\(\s*\(?"([a-z][^"]+)"'
    return {name for source in sources for name in re.findall(calls, source)}


def expressions(tree: Any) -> Iterator[str]:
    """All queries of a dashboard."""
    if isinstance(tree, dict):
        yield from (
            value for key, value in tree.items() if key in ("expr", "query") and isinstance(value, str)
        )
        tree = list(tree.values())
    for inner in tree if isinstance(tree, list) else ():
        yield from expressions(inner)


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    """No panel stays empty because a metric has another name."""
    dashboard = json.loads((CONFIG / "grafana" / "dashboards" / "gateway.json").read_text("utf-8"))
    asked = [NAME.findall(expression) for expression in expressions(dashboard)]
    assert len(asked) > 20
    assert {name for names in asked for name in names} - series() == set()


def test_the_alerts_ask_for_metrics_that_exist() -> None:
    """No alert stays silent because a metric has another name; each says what happened."""
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    asked = {name for rule in rules for name in NAME.findall(rule["expr"])}
    assert asked - series() == set()
    assert "gateway_messages_unaccounted" in asked
    assert [rule["alert"] for rule in rules if not rule["annotations"]["summary"]] == []


def test_what_goes_wrong_slowly_has_an_alert_and_a_panel() -> None:
    """Dead letters by the share, a spool that fills, a fleet that falls silent."""
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    alerts = {rule["alert"]: rule["expr"] for rule in rules}
    dashboard = json.loads((CONFIG / "grafana" / "dashboards" / "gateway.json").read_text("utf-8"))
    panels = {name for text in expressions(dashboard) for name in NAME.findall(text)}
    for alert, metric in {
        "GatewayDeadLettersPrevail": "gateway_dead_letters_prevail",
        "GatewaySpoolFilling": "gateway_spool_max_bytes",
        "GatewaySpooling": "gateway_spool_messages",
        "GatewayStreamSilent": "gateway_messages_received_total",
        "GatewayFleetQuiet": "gateway_messages_received_total",
    }.items():
        assert metric in alerts[alert]
        assert metric in panels


def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    """Prometheus' own test runner, on series made up for it: tests/cases/alerts."""
    promtool = shutil.which("promtool")
    if promtool is None:
        missing = pytest.fail if "prometheus" in os.environ.get("GATEWAY_TEST_REQUIRE", "") else pytest.skip
        missing("promtool is not on the PATH; install the package 'prometheus'")
    shutil.copy(CONFIG / "alerts.yml", tmp_path / "alerts.yml")
    shutil.copy(ROOT / "tests" / "cases" / "alerts" / "alerts.yml", tmp_path / "cases.yml")
    done = subprocess.run(
        [promtool, "test", "rules", "cases.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stdout + done.stderr


def test_prometheus_loads_the_alerts_and_asks_the_gateway() -> None:
    """The rules are named and mounted, and the target is the composed gateway at its port."""
    prometheus = yaml.safe_load((CONFIG / "prometheus.yml").read_text("utf-8"))
    mounted = [Path(volume.split(":")[1]).name for volume in COMPOSE["services"]["prometheus"]["volumes"]]
    assert set(prometheus["rule_files"]) <= set(mounted)
    [target] = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.split(":") == ["gateway", str(settings.ObservabilitySettings().port)]
    assert prometheus["scrape_configs"][0]["job_name"] == "gateway"


def test_grafana_finds_datasource_and_dashboard() -> None:
    """The dashboard's datasource is the one provisioned; the folder it is read from is mounted."""
    provisioned = CONFIG / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioned / "datasources" / "prometheus.yml").read_text())["datasources"]
    dashboard = (CONFIG / "grafana" / "dashboards" / "gateway.json").read_text("utf-8")
    assert set(re.findall(r'"type": "prometheus",\s+"uid": "([^"]+)"', dashboard)) == {source["uid"]}
    databases = yaml.safe_load((provisioned / "datasources" / "postgresql.yml").read_text())["datasources"]
    known = {(one["type"], one["uid"]) for one in databases}
    readings = (CONFIG / "grafana" / "dashboards" / "readings.json").read_text("utf-8")
    assert set(re.findall(r'"type": "(grafana-\S+)",\s+"uid": "([^"]+)"', readings)) == known
    for one in databases:
        secret = one["secureJsonData"]["password"].removeprefix("$__file{/run/secrets/").removesuffix("}")
        assert secret == f"{one['user']}.password"
        assert secret in COMPOSE["services"]["grafana"]["secrets"]
        assert one["url"].split(":")[0] in COMPOSE["services"]
    [provider] = yaml.safe_load((provisioned / "dashboards" / "gateway.yml").read_text())["providers"]
    mounted = {volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounted


def test_every_mounted_file_and_secret_is_declared() -> None:
    """A file mounted from the repository exists, and a secret used is declared and made by the command given."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    made = text[text.index("for name in") : text.index("; do")].replace("\\\n#", "").split()[3:]
    for service in COMPOSE["services"].values():
        mounted = [volume.split(":")[0] for volume in service.get("volumes", ()) if volume.startswith("./")]
        assert [path for path in mounted if not (ROOT / path).exists()] == []
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
    assert {*made, "mqtt_devices"} == COMPOSE["secrets"].keys()
    assert ">> secrets/mqtt_devices" in text
    assert {f"./secrets/{name}" for name in COMPOSE["secrets"]} == {
        s["file"] for s in COMPOSE["secrets"].values()
    }


def test_images_are_pinned_and_logs_bounded() -> None:
    """What runs tomorrow is what ran today, by version and digest; no log fills the disk."""
    own = COMPOSE["x-gateway"]["image"]
    images = [service["image"] for service in COMPOSE["services"].values() if service["image"] != own]
    images += re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert len(images) == 5
    assert [
        image
        for image in images
        if not re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+\S*@sha256:[0-9a-f]{64}", image)
    ] == []
    assert [
        name for name, one in COMPOSE["services"].items() if "max-size" not in one["logging"]["options"]
    ] == []


def test_the_composed_parts_have_the_secrets_that_they_name() -> None:
    """Each file in /run/secrets that a service is told of is handed to it; the cli logs in as owner and as writer."""
    for name, service in COMPOSE["services"].items():
        told = json.dumps([service.get("environment"), service.get("command"), service.get("healthcheck")])
        named = set(re.findall(r"/run/secrets/([\w.]+)", told))
        assert named <= set(service.get("secrets", ())), name


def test_devices_and_the_gateway_have_listeners_of_their_own() -> None:
    """The port that is published is the devices'; the gateway's is reached within the composed network only."""
    text = (CONFIG / "mosquitto.conf").read_text("utf-8")
    devices, inner = re.findall(r"^listener (\d+)$", text, re.MULTILINE)
    assert COMPOSE["services"]["mosquitto"]["ports"] == [f"127.0.0.1:{devices}:{devices}"]
    assert str(COMPOSE["services"]["gateway"]["environment"]["GATEWAY__MQTT__PORT"]) == inner


def test_every_service_that_runs_is_checked_and_waited_for() -> None:
    """Whoever depends on a service waits until it is healthy or done; what is healthy has a check."""
    image_checks = {"gateway"}
    for name, service in COMPOSE["services"].items():
        for other, how in service.get("depends_on", {}).items():
            done = how["condition"] == "service_completed_successfully"
            checked = other in image_checks or "test" in COMPOSE["services"][other].get("healthcheck", {})
            assert done or (how["condition"] == "service_healthy" and checked), f"{name} → {other}"


def test_the_composed_gateway_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """File and environment of the composed gateway make valid settings, its secrets are handed to it, and it is
    given the time that its orderly stop may take.
    """
    service = COMPOSE["services"]["gateway"]
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, str(value))
    loaded = settings.load(CONFIG / "gateway.toml")
    assert loaded.mqtt.host in COMPOSE["services"]
    files = [loaded.mqtt.password_file, loaded.databases.metadata.password_file]
    assert {file.name for file in files if file} == set(service["secrets"])
    assert seconds(service["stop_grace_period"]) > loaded.shutdown.deadline
    assert mebibytes(service["mem_limit"]) >= _needed(loaded.buffer)
    assert service["memswap_limit"] == service["mem_limit"], (
        "no swap: what swaps is slower than what is restarted"
    )
    assert loaded.watchdog.hung == seconds(unit()["WatchdogSec"][0])


def mebibytes(text: str) -> int:
    """Of systemd, and of Compose."""
    assert text[-1] in "Mm"
    return int(text[:-1])


def _needed(buffer: settings.BufferSettings) -> int:
    """MiB that a gateway takes at most."""
    return buffer.max_bytes // 2**20 + 100


def unit() -> dict[str, list[str]]:
    """Options of config/gateway.service; each may be given several times."""
    found: dict[str, list[str]] = {}
    for line in (CONFIG / "gateway.service").read_text("utf-8").splitlines():
        if re.match(r"\w+=", line):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say about the unit, once the program is where the unit looks for it."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        missing = pytest.fail if "systemd" in os.environ.get("GATEWAY_TEST_REQUIRE", "") else pytest.skip
        missing("systemd-analyze is not on the PATH; install the package 'systemd'")
    path = tmp_path / "gateway.service"
    text = (CONFIG / "gateway.service").read_text("utf-8")
    path.write_text(text.replace("/opt/gateway/bin/gateway", shutil.which("true") or "/bin/true"))
    done = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_matches_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd waits longer than the orderly stop, leaves alone what a restart cannot mend, and its environment is
    made of options that exist.
    """
    options = unit()
    assert seconds(options["TimeoutStopSec"][0]) > settings.ShutdownSettings().deadline
    assert options["RestartPreventExitStatus"] == ["2 4"]
    assert mebibytes(options["MemoryMax"][0]) >= _needed(settings.BufferSettings())
    for assignment in options["Environment"]:
        name, value = assignment.split("=", 1)
        monkeypatch.setenv(name, value)
    (tmp_path / "gateway.toml").write_text(MINIMAL)
    loaded = settings.load(tmp_path / "gateway.toml")
    credentials = {credential.split(":")[0] for credential in options["LoadCredential"]}
    files = (loaded.mqtt.password_file, loaded.databases.metadata.password_file)
    assert {str(file) for file in files} == {f"%d/{name}" for name in credentials}
