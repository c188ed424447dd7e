"""Who watches: the rules and the dashboard hold together, and a real Prometheus at a real server fires the alerts."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from server import Server, free_port, start

from fieldbook.monitor.alert import Alert
from fieldbook.monitor.figures import GAUGES, listener, registry, write
from fieldbook.observe.counters import FAILURES
from fieldbook.scope.framing import Framing

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).resolve().parents[2] / "conf" / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
RULE = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERT = {rule["alert"]: rule for rule in RULE if "alert" in rule}
RECORDED = {rule["record"] for rule in RULE if "record" in rule}
DASHBOARD = json.loads((DEPLOY / "grafana/fieldbook.json").read_text())
PANELS = DASHBOARD["panels"]
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def tool(name: str) -> str:
    """Return where a program of Prometheus is; skip without it, except where .ci/prometheus must have installed it."""
    if found := shutil.which(name):
        return found
    system = Path("/etc/os-release")
    installed = os.environ.get("CI") and os.getuid() == 0 and system.exists() and "\nID=debian\n" in system.read_text()
    (pytest.fail if installed else pytest.skip)(f"{name} is not here: on Debian .ci/prometheus installs it")


def promtool(*words: str | Path) -> None:
    """Run promtool, which must be content."""
    done = subprocess.run([tool("promtool"), *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def filled(expression: str) -> str:
    """Return an expression of the dashboard as Grafana sends it."""
    return re.sub(r"\$__rate_interval", "5m", re.sub(r"\$(instance|version|of)\b", ".*", expression))


def expressions() -> list[str]:
    """Return every expression of the dashboard's panels, as Grafana sends them."""
    return [filled(target["expr"]) for panel in PANELS for target in panel.get("targets", [])]


def names(expression: str) -> set[str]:
    """Return the metrics that an expression names: the words that are no function, label, string or keyword."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", re.sub(r'("[^"]*")', '""', expression))
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"(?<![\w:])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", bare)
    return set(words) - {"and", "or", "unless", "offset", "bool"}


def test_rules_and_settings_are_valid() -> None:
    """What Prometheus would load, it can."""
    promtool("check", "config", DEPLOY / "prometheus/prometheus.yml")


@pytest.mark.parametrize("file", ["rules_test.yml", "rules_days_test.yml"])
def test_alerts_fire_when_they_should_and_only_then(file: str) -> None:
    """The unit tests of the rules."""
    promtool("test", "rules", DEPLOY / "prometheus" / file)


def test_every_alert_has_its_test_and_says_what_to_do() -> None:
    """An alert without a test that it fires is a hope; one that does not say what to do first is noise."""
    files = [yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "prometheus").glob("rules*_test.yml"))]
    cases = [case for file in files for test in file["tests"] for case in test["promql_expr_test"]]
    said = [sample["labels"] for case in cases if "ALERTS" in case["expr"] for sample in case["exp_samples"]]
    assert {name for labels in said for name in re.findall(r'alertname="(\w+)"', labels)} == set(ALERT)
    for name, rule in ALERT.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert {"summary", "description"} == rule["annotations"].keys(), name
        told = rule["annotations"]["description"]
        assert "For users: " in told and "First: " in told, f"{name} does not say what it means or what to do"


def test_the_limit_on_latency_is_the_scopes(task: Framing) -> None:
    """`FieldbookSlow` fires beyond what the scope allows, and not beyond a number of its own."""
    rule = next(rule for rule in RULE if rule.get("record") == "fieldbook:latency_limit_seconds")
    limits = [limit.at_most for limit in task.limits if limit.metric == "latency_p99_ms"]
    if not limits:
        pytest.skip("the scope has no limit on latency_p99_ms, so the one in rules.yml is yours to choose")
    promise = f"vector({limits[0] / 1000:g})"
    assert rule["expr"] == promise, (
        f"conf/deploy/prometheus/rules.yml, {rule['record']}: write {promise}, as the scope says"
    )


def test_the_dashboard_is_whole() -> None:
    """Ids are unique, no panel covers another, and each says what it shows and what it asks."""
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x, y in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]
    assert len(cells) == len(set(cells)) and all(0 <= x < 24 for x, _ in cells)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    for panel in PANELS:
        if panel["type"] == "row":
            continue
        assert panel["title"] and panel["description"].endswith("."), panel["id"]
        assert panel["targets"] and len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["expr"] and target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel[
                "title"
            ]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}, panel["title"]


def test_the_dashboards_expressions_parse(tmp_path: Path) -> None:
    """As rules, since that is what promtool reads."""
    rules = [{"record": f"dashboard:{i}", "expr": expression} for i, expression in enumerate(expressions())]
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "dashboard.yml")


def exposed(server: Server) -> set[str]:
    """Return the names of the series that a server exposes."""
    kinds = {"histogram": ["_bucket", "_sum", "_count"], "summary": ["_sum", "_count"]}
    declared = re.findall(r"(?m)^# TYPE (\w+) (\w+)$", server.client.get("/metrics").text)
    return {name + ending for name, kind in declared for ending in kinds.get(kind, [""])}


def strange(request: dict[str, Any], contract: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a field and a request whose value of it training never saw."""
    field = next(name for name, column in contract.items() if column["type"] == "str" and not column["one_of"])
    return field, {**request, field: "~" * contract[field]["max_length"]}


def test_rules_and_dashboard_name_only_metrics_that_exist(server: Server, manifest: dict[str, Any]) -> None:
    """A running server exposes what they ask for, or rules.yml records it."""
    request = manifest["samples"][0]["request"]
    field, other = strange(request, manifest["request"])
    nothing = {name: None for name, column in manifest["request"].items() if column["nullable"]}
    for body in (request, [request, other], {**request, **nothing}, {**request, field: 1}):
        server.client.post("/predict", json=body)
    series = exposed(server)
    series |= {f"{one.name}_total" for one in FAILURES.describe()}  # there is no series before a challenger has failed
    known = series | RECORDED | {"up", "ALERTS"} | {f"fieldbook_monitor_{name}" for name in GAUGES}
    asked = [variable["definition"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    asked = [query.removeprefix("label_values(").partition(", ")[0].partition("{")[0] for query in asked]
    for expression in [*(str(rule["expr"]) for rule in RULE), *expressions(), *asked]:
        assert names(expression) <= known, f"{sorted(names(expression) - known)} of {expression}"


def test_compose_starts_the_image_as_the_script_prints() -> None:
    """Each flag of the printed command has its counterpart, and what is mounted is there."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["fieldbook"]
    words = (DEPLOY / "container.sh").read_text().split("\nStart: ")[1].split("END")[0].replace("\\", " ").split()[2:]
    assert words[0] == "--rm" and words[-1] == service["image"]
    volume = {f"{compose['volumes'][name]['name']}:{at}" for name, at in (v.split(":") for v in service["volumes"])}
    printed = {
        *(("-p", port) for port in service["ports"]),
        *(("-v", mount) for mount in volume),
        *(("-e", name) for name in service["environment"]),
        *(("--tmpfs", path) for path in service["tmpfs"]),
        *(("--cap-drop", name) for name in service["cap_drop"]),
        *(("--security-opt", option.removesuffix(":true")) for option in service["security_opt"]),
    }
    flags = [word for word in words[1:-1] if word != "--read-only"]
    assert set(zip(flags[::2], flags[1::2])) == printed
    assert service["read_only"] is True and "--read-only" in words
    for name, other in compose["services"].items():
        assert re.fullmatch(r"[\w./-]+:(?:v?\d+\.\d+\.\d+|latest)", other["image"]), name
        assert (
            ("latest" in other["image"]) == (name == "fieldbook")
            and other["read_only"]
            and other["cap_drop"] == ["ALL"]
        )
        for mount in other["volumes"]:
            assert not mount.startswith(".") or (DEPLOY / mount.split(":")[0]).exists(), mount
    for path in (DEPLOY / "grafana/provisioning").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1


def shortened(rules: str, by: int = 300) -> str:
    """Return rules with every duration divided, so that five minutes are two seconds and a day five minutes."""
    return re.sub(r"\b(\d+)([smhdw])\b", lambda found: f"{max(2, int(found[1]) * SECONDS[found[2]] // by)}s", rules)


def until(reached: Callable[[], Any], meanwhile: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Do something five times a second until something is reached; return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        meanwhile()
        with contextlib.suppress(httpx.TransportError):
            if found := reached():
                return found
        time.sleep(0.2)
    pytest.fail(f"not within {seconds:.0f} s: {what}")


@contextlib.contextmanager
def prometheus(folder: Path, rules: str, target: str) -> Iterator[httpx.Client]:
    """Start Prometheus with the project's settings on a free port of the loopback, scraping a target twice a second."""
    settings = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    settings["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    (folder / "rules.yml").write_text(rules)
    address = f"127.0.0.1:{free_port()}"
    command = [tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10) as client:
            ready = lambda: client.get("/-/ready").status_code == 200
            until(ready, lambda: None, f"Prometheus is ready; see {folder}/prometheus.log")
            yield client
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)


def ask(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """Return the series of an instant query, which must be one that Prometheus can answer."""
    told = client.get("/api/v1/query", params={"query": query})
    assert told.status_code == 200, f"{query}: {told.text}"
    return told.json()["data"]["result"]


def firing(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """Return the alerts that fire, by name."""
    alerts = client.get("/api/v1/alerts").json()["data"]["alerts"]
    return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}


def test_a_real_prometheus_fires_them(project: Path, manifest: dict[str, Any], tmp_path: Path) -> None:
    """Silent while all is well; strange values, refused requests and a dead server are told, each in words."""
    tool("prometheus")
    request, field = (
        manifest["samples"][0]["request"],
        strange(manifest["samples"][0]["request"], manifest["request"])[0],
    )
    server = start(project, tmp_path)
    send = lambda body: server.client.post("/predict", json=body)
    try:
        rules = shortened((DEPLOY / "prometheus/rules.yml").read_text())
        with prometheus(tmp_path, rules, server.client.base_url.netloc.decode()) as watch:
            past = "job:fieldbook_rows:increase1d_offset1h > 1000"
            until(lambda: ask(watch, past), lambda: send([request] * 50), "a past to compare with")
            assert firing(watch) == {}
            for expression in expressions():
                ask(watch, expression)

            name, other = "FieldbookUnseenValues", strange(request, manifest["request"])[1]
            alert = until(lambda: firing(watch).get(name), lambda: send([request, other] * 25), name)
            assert alert["labels"]["feature"] == field and alert["labels"]["severity"] == "warning"
            assert re.search(rf"\d%.* have a {field} ", alert["annotations"]["summary"])
            name, wrong = "FieldbookRefusals", {**request, field: 1}
            until(lambda: firing(watch).get(name), lambda: [send(wrong) for _ in range(10)], name)

            server.stop()
            alert = until(lambda: firing(watch).get("FieldbookDown"), lambda: None, "FieldbookDown")
            assert alert["labels"]["instance"] in alert["annotations"]["summary"]
            assert alert["labels"]["severity"] == "critical"
            assert "error expanding" not in watch.get("/api/v1/alerts").text
    finally:
        if server.process.poll() is None:
            server.stop()


def test_a_real_prometheus_hears_of_the_monitor(tmp_path: Path) -> None:
    """Its figures are scraped as they are now: an alert opens and closes, and that nobody looks is told."""
    tool("prometheus")
    file = tmp_path / "monitor.prom"
    nothing = dict.fromkeys(["kind", "window", "begins", "ends", "unit", "runbook", "text", "time"], "")
    alert = Alert(id="1", event="open", rule="unit", streams=[], surprise=0, cost=None, concerns=[], **nothing)
    tell = lambda *opened, since=0.0: write(registry({}, ["unit"], opened, "USD", time.time() - since), file)
    tell()
    exposing = listener(file, 0)
    threading.Thread(target=exposing.serve_forever, daemon=True).start()
    try:
        rules = shortened((DEPLOY / "prometheus/rules.yml").read_text())
        with prometheus(tmp_path, rules, f"127.0.0.1:{exposing.server_port}") as watch:
            until(lambda: ask(watch, "fieldbook_monitor_time_seconds"), tell, "figures")
            assert "FieldbookMonitorAlert" not in firing(watch) and "FieldbookMonitorStale" not in firing(watch)
            found = until(lambda: firing(watch).get("FieldbookMonitorAlert"), lambda: tell(alert), "the alert")
            assert found["labels"]["rule"] == "unit" and "rule unit" in found["annotations"]["summary"]
            until(lambda: "FieldbookMonitorAlert" not in firing(watch), tell, "its end")
            old = lambda: tell(since=3 * 86400)
            until(lambda: firing(watch).get("FieldbookMonitorStale"), old, "that nobody looks")
            assert "error expanding" not in watch.get("/api/v1/alerts").text
    finally:
        exposing.shutdown()
        exposing.server_close()
