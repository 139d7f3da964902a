"""Alerts and panels ask for metrics that exist, in PromQL; and Prometheus gets to them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from smoe_ray.columns import EPOCHS
from support.k8s.manifests import Built, Manifest, one, pod_templates
from support.k8s.network_policies import selects

METRIC = re.compile(r"\bray_smoe_ray_\w+")


@pytest.fixture
def exported(repository: Path) -> set[str]:
    """The names under which Prometheus sees what `smoe_ray.cluster.metrics` sets (Ray ends counters in _total)."""
    source = (repository / "smoe_ray/cluster/metrics.py").read_text()
    gauges = re.findall(r'_set\("(\w+)"', source) + [column.gauge for column in EPOCHS if column.gauge]
    counters = re.findall(r'_counter\("(\w+)"', source)
    assert {"trials", "collapse_rate", "active_fraction"} < set(gauges)
    assert counters == ["epochs"]
    return {f"ray_smoe_ray_{name}" for name in gauges} | {f"ray_smoe_ray_{name}_total" for name in counters}


@pytest.fixture
def grafana(built: Built) -> Manifest:
    dashboard: Manifest = json.loads(
        one(built["components/monitoring"], "ConfigMap", "smoe-ray-grafana")["data"]["smoe-ray.json"]
    )
    return dashboard


def rules(built: Built) -> list[Manifest]:
    [group] = one(built["components/monitoring"], "PrometheusRule")["spec"]["groups"]
    assert set(group) == {"name", "rules"}
    found: list[Manifest] = group["rules"]
    return found


def queries(built: Built, grafana: Manifest) -> Iterator[str]:
    yield from (rule["expr"] for rule in rules(built))
    yield from (target["expr"] for panel in grafana["panels"] for target in panel["targets"])


def test_every_metric_that_is_asked_for_exists_and_none_is_forgotten(
    built: Built, grafana: Manifest, exported: set[str]
) -> None:
    asked = {name for query in queries(built, grafana) for name in METRIC.findall(query)}
    assert asked == exported
    variables = json.dumps(grafana["templating"])
    assert set(METRIC.findall(variables)) <= exported


def test_every_query_is_promql(built: Built, grafana: Manifest) -> None:
    for query in queries(built, grafana):
        promql_parser.parse(query)
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum by (study (ray_smoe_ray_trials)")


def test_alerts_cover_stuck_waiting_failing_and_collapsing_studies(built: Built) -> None:
    names = [rule["alert"] for rule in rules(built)]
    assert names == ["SmoeRayStudyStuck", "SmoeRayStudyWaits", "SmoeRayTrialsFail", "SmoeRayCollapse"]
    for rule in rules(built):
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert re.fullmatch(r"[0-9]+m", rule.get("for", "0m"))
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_every_port_with_metrics_is_scraped(built: Built) -> None:
    monitor = one(built["components/monitoring"], "PodMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) == {"selector", "podTargetLabels", "podMetricsEndpoints"}
    scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    declared: set[str] = set()
    pods = pod_templates(built["components/monitoring"])
    for pod in pods:
        if selects(monitor["spec"]["selector"], pod.labels):
            declared |= {port["name"] for container in pod.containers for port in container.get("ports", ())}
            assert set(monitor["spec"]["podTargetLabels"]) <= set(pod.labels)
    assert {name for name in declared if "metrics" in name} == scraped
    policy = one(built["components/monitoring"], "NetworkPolicy", "metrics")
    [rule] = policy["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == ports_named(pods, scraped)


def ports_named(pods: list[Any], names: set[str]) -> set[int]:
    return {
        port["containerPort"]
        for pod in pods
        for container in pod.containers
        for port in container.get("ports", ())
        if port["name"] in names
    }


def test_grafana_shows_panels_that_do_not_overlap(grafana: Manifest) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in grafana["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        assert panel["description"]
        taken |= cells
    assert len({panel["id"] for panel in grafana["panels"]}) == len(grafana["panels"])
    assert grafana["uid"] == "smoe-ray"
