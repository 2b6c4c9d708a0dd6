"""What is deployed fits what there is: commands, files, variables, ports, metrics, alerts, runbook.

No container engine is needed: the files are read as it reads them, and every name in them is looked up where it must exist.
"""

import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from schemas.config import parse_config_text
from schemas.config_live import ExchangeConfig, KafkaConfig, LiveConfig, VenueConfig
from telemetry.metrics import DECLARED
from telemetry.serve import PORT_OFFSETS

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, s in SERVICES.items() if s["image"].startswith("penstock:"))
RULES = [rule for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"] for rule in group["rules"]]
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?:(:?[-?])([^}]*))?\}")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}
KNOWN = {f"{d.name}{s}" for d in DECLARED for s in SUFFIXES.get(d.kind, ("",))} | {
    "up", "process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_cpu_seconds_total"}
FUNCTIONS = {"histogram_quantile", "sum", "max", "by", "rate", "increase", "topk", "deriv", "changes", "abs", "time", "timestamp", "max_over_time",
             "and", "or", "unless", "on", "offset", "le"}
LABELS_OF = {d.name: set(d.labels) for d in DECLARED}


def texts(node: object) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)


def names_in(expression: str) -> set[str]:
    """The names of metrics in an expression: what is left when texts, label lists, durations and functions are taken away."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}", " ", bare)
    bare = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\[[^\]]*\]", " ", bare)
    return {n for n in re.findall(r"[a-zA-Z_:][\w:]*", bare) if n not in FUNCTIONS and not re.fullmatch(r"\d*[smhde]\d*", n)}


def labels_in(expression: str) -> Iterator[tuple[str, str]]:
    """Metric and label for every label that a selector asks for."""
    for metric, selector in re.findall(r"(\w+)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            yield metric, label


def expressions() -> list[tuple[str, str]]:
    """Every PromQL expression, with where it is from."""
    found = [(rule["alert"], rule["expr"]) for rule in RULES]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            found += [(f"{path.stem}: {panel['title']}", t["expr"]) for t in panel["targets"]]
    return found


def parsed(words: list[str]) -> None:
    """Parse a command line as the CLI does, without running it; fails on an unknown command, option or missing argument."""
    group = typer.main.get_command(app)
    context = group.make_context("penstock", list(words), resilient_parsing=False)
    command = group
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)


# compose

@pytest.mark.parametrize("name", OURS)
def test_the_command_of_a_service_parses(name: str) -> None:
    words = [VARIABLE.sub(lambda m: m[3] or "x", word) for word in SERVICES[name]["command"]]
    parsed(words)


def test_the_parser_of_commands_fails_on_what_does_not_exist() -> None:
    for words in (["nope"], ["topics", "nope"], ["topics", "create", "--nope"], ["topics", "describe"]):
        with pytest.raises(Exception, match=r"(?i)no such|missing (argument|parameter)"):
            parsed(words)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_bounded_watched_and_private(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", service["image"]), f"{name}: the tag must name a version"
    limits = service["deploy"]["resources"]["limits"]
    assert limits["cpus"] and limits["memory"] and limits["pids"]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service and service.get("network_mode") is None
    assert service["logging"]["options"]["max-size"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name} publishes {port} beyond loopback"
    if service["healthcheck"].get("disable"):
        assert name == "topics" and service["restart"].startswith("on-failure")
    else:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL") and service["restart"] in ("unless-stopped", "on-failure:3")


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["init"] is True
    assert service["user"] == "10001:10001"
    assert "10001" in (ROOT / "Dockerfile").read_text("utf-8")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_a_service_waits_for_exists_and_can_be_waited_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if how["condition"] == "service_healthy":
            assert not SERVICES[other]["healthcheck"].get("disable")
        else:
            assert how["condition"] == "service_completed_successfully" and other == "topics"


def test_volumes_networks_and_mounted_files_exist() -> None:
    used: set[str] = set()
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name} mounts {source}, which is not there"
                assert mode == ["ro"], f"{name}: {source} is mounted to be read only"
            else:
                assert source in COMPOSE["volumes"]
                used.add(source)
            assert target.startswith("/")
    assert used == set(COMPOSE["volumes"])
    assert COMPOSE["networks"]["data"]["internal"] is True
    assert {n for n in OURS if "edge" in SERVICES[n]["networks"]} == {"ingest", "execute"}, "only these reach the internet"


def test_every_variable_is_in_the_example_and_no_password_has_a_value() -> None:
    example = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text("utf-8").splitlines() if "=" in line and not line.startswith("#"))
    used = {m[1]: m for text in texts(COMPOSE) for m in VARIABLE.finditer(text)}
    assert set(used) == set(example)
    for name, value in example.items():
        if re.search("PASSWORD|SECRET|KEY", name):
            assert value == "", f"{name} must not have a default"
            assert not used[name][3] or used[name][2] == ":?", f"{name} must not have a default"
    assert all(used[n][2] == ":?" for n in ("CLICKHOUSE_PASSWORD", "GRAFANA_PASSWORD", "CLICKHOUSE_USER"))
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    assert "/.env" in ignored


def test_no_service_has_a_secret_in_its_environment() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|_KEY|TOKEN", key):
                assert value == "" or VARIABLE.fullmatch(str(value)), f"{name}: {key} is written out"
    assert [n for n in SERVICES if SERVICES[n].get("environment", {}).get("VENUE_SECRET")] == ["execute"], "nobody else has the venue's key"


def test_the_configuration_is_valid_and_wants_only_what_the_services_have() -> None:
    text = (DEPLOY / "penstock.yaml").read_text("utf-8")
    config = parse_config_text(text, "deploy/penstock.yaml")
    assert config.kafka is not None and config.exchange is not None and config.venue is None, "trading live is a step of its own"
    wanted = {m[1] for m in VARIABLE.finditer("\n".join(line for line in text.splitlines() if not line.strip().startswith("#")))}
    for name in OURS:
        assert wanted <= set(SERVICES[name]["environment"])
    with_venue = re.sub(r"(?m)^# ?((?:venue:|  (?:name: binance|key:|secret:|age_s_max:)).*)$", r"\1", text)
    venue = parse_config_text(with_venue, "with venue").venue
    assert venue is not None and venue.key == "${VENUE_KEY}" and venue.secret == "${VENUE_SECRET}"
    assert all({"VENUE_KEY", "VENUE_SECRET"} <= set(SERVICES[name]["environment"]) for name in OURS), "all of them read the file"


def test_ports_agree_in_configuration_health_checks_and_scraping() -> None:
    base = parse_config_text((DEPLOY / "penstock.yaml").read_text("utf-8"), "deploy").live.metrics_port
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]}
    for flow, offset in PORT_OFFSETS.items():
        assert scraped[flow] == [f"{flow}:{base + offset}"]
        assert f"http://127.0.0.1:{base + offset}/healthz" in SERVICES[flow]["healthcheck"]["test"][-1]
    assert set(scraped) == {*PORT_OFFSETS, "prometheus"}


def test_the_state_is_in_the_volume() -> None:
    state = parse_config_text((DEPLOY / "penstock.yaml").read_text("utf-8"), "deploy").live.state_dir
    assert any(v.split(":")[1] == state for v in SERVICES["pipeline"]["volumes"])


def test_health_checks_are_python_that_compiles() -> None:
    for name in set(OURS) - {"topics"}:
        kind, program, option, code = SERVICES[name]["healthcheck"]["test"]
        assert (kind, program, option) == ("CMD", "python", "-c")
        compile(code, name, "exec")


# image

def test_the_image_has_every_package_and_nothing_else() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    packages = {p.split(".")[0] for p in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]}
    copied = set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE))
    assert copied == packages
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert allowed == packages | {"pyproject.toml", "constraints.txt", "README.md"}
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    assert "-c constraints.txt" in dockerfile
    assert not re.search(r"(?i)^(ARG|ENV).*(password|secret|token)", dockerfile, re.MULTILINE)
    assert all(re.match(r"FROM python:3\.11\.\d+-slim-\w+", line) for line in dockerfile.splitlines() if line.startswith("FROM"))


# metrics in dashboards and alerts

@pytest.mark.parametrize(("where", "expression"), expressions(), ids=[w for w, _ in expressions()])
def test_expressions_use_metrics_and_labels_that_exist(where: str, expression: str) -> None:
    assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}")
    found = names_in(expression)
    assert found and found <= KNOWN, f"{where}: {sorted(found - KNOWN)} are no metrics"
    for metric, label in labels_in(expression):
        base = re.sub(r"_(bucket|sum|count)$", "", metric)
        assert label in {"job", "instance", "le"} | LABELS_OF.get(base, set()), f"{where}: {metric} has no label {label}"


def test_the_reader_of_expressions_finds_names() -> None:
    assert names_in('histogram_quantile(0.95, sum by (le, stage) (rate(a_bucket{x="y z"}[5m]))) > 5e9 and on (job) b offset 10m') == {"a_bucket", "b"}
    assert list(labels_in('a{x="1", y=~"b|c"} + d{z!="e"}')) == [("a", "x"), ("a", "y"), ("d", "z")]


def test_every_metric_is_looked_at() -> None:
    used = set[str]().union(*(names_in(e) for _, e in expressions()))
    bare = {re.sub(r"_(bucket|sum|count)$", "", n) for n in used}
    unseen = {d.name for d in DECLARED if not d.name.endswith("_info")} - bare
    assert unseen == {"penstock_frames_total", "penstock_journal_frame"}, "on no dashboard and in no alert"


def test_dashboards_are_what_the_script_writes() -> None:
    script = module(DEPLOY / "dashboards.py")
    assert {p.stem for p in DASHBOARDS} == set(script.DASHBOARDS)
    for path in DASHBOARDS:
        assert path.read_text("utf-8") == script.text(path.stem), "run: python deploy/dashboards.py"


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards_script", path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["dashboards_script"] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


def test_panels_fill_their_rows_and_name_the_provisioned_source() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"]
    for path in DASHBOARDS:
        panels = json.loads(path.read_text("utf-8"))["panels"]
        widths: dict[int, int] = {}
        for panel in panels:
            widths[panel["gridPos"]["y"]] = widths.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
            assert panel["datasource"]["uid"] == source["uid"] and panel["description"] and panel["targets"]
        assert set(widths.values()) == {24}, path.stem
        assert len({p["id"] for p in panels}) == len(panels)


# alerts and runbook

@pytest.mark.parametrize("rule", RULES, ids=[r["alert"] for r in RULES])
def test_an_alert_says_what_and_has_its_section(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert notes["summary"] and notes["description"]
    assert notes["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    section = re.search(rf"^## {rule['alert']}\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/runbook.md has no section {rule['alert']}"
    assert all(f"**{part}.**" in section[1] for part in ("Means", "Look at", "Do"))


def test_the_runbook_has_no_section_without_alert() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == [r["alert"] for r in RULES]


def test_every_command_of_the_runbook_parses() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", RUNBOOK, re.DOTALL)
    inline = re.findall(r"`(penstock [^`]+)`", RUNBOOK)
    lines = [line for block in blocks for line in block.splitlines()] + inline
    assert len(lines) > 20
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "penstock"
        parsed(words[1:])


def test_links_within_the_runbook_lead_somewhere() -> None:
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK)) <= headings


def test_the_defaults_in_the_docs_are_the_defaults() -> None:
    text = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "live.md").read_text("utf-8"), re.DOTALL)[-1]
    shown, defaults = parse_config_text(text, "docs/live.md"), (KafkaConfig(), ExchangeConfig(), VenueConfig(), LiveConfig())
    assert (shown.kafka, shown.exchange, shown.venue, shown.live) == defaults
