"""What Prometheus would see of a study while it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import ray
import requests

from smoe_ray.cluster.metrics import LiveMetrics
from smoe_ray.cluster.ray_executor import RayExecutor
from smoe_ray.study import StudyPlan, run_study
from smoe_ray.study.events import Event, TrialEnded
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.processes import wait_until


def scrape() -> dict[str, float]:
    """Metrics of this project on the only node: name with its study and status -> value."""
    [node] = ray.nodes()
    text = requests.get(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10).text
    found = {}
    for name, labels, value in re.findall(r"^ray_(smoe_ray_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[" ".join([name, tags["study"], *([tags["status"]] if "status" in tags else [])])] = float(value)
    return found


@pytest.mark.usefixtures("private_ray")
def test_collapse_is_on_the_nodes_metrics_page_while_the_study_runs(out: Path) -> None:
    seen: list[dict[str, float]] = []

    def look(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.record.spec.seed == 1:
            wait_until(lambda: "smoe_ray_active_fraction toy" in scrape(), seconds=60, pause=0.5)
            seen.append(scrape())

    run_study(toy_grid(seeds=[0, 1]), out, RayExecutor(fit=Toy(), jobs=1), on_event=look)
    [metrics] = seen
    assert metrics["smoe_ray_trials_total toy"] == 2
    assert metrics["smoe_ray_trials toy finished"] >= 1
    assert 0 < metrics["smoe_ray_active_fraction toy"] <= 1
    assert metrics["smoe_ray_effective_experts toy"] >= 1
    assert 0 <= metrics["smoe_ray_collapse_rate toy"] <= 1
    assert any(name.startswith("smoe_ray_epochs") for name in metrics)


@pytest.mark.usefixtures("private_ray")
def test_a_study_that_waits_for_room_is_on_the_page_before_anything_happens() -> None:
    LiveMetrics(StudyPlan(toy_grid(name="waiting", seeds=[0, 1, 2])), settled=1)
    wait_until(lambda: "smoe_ray_trials_total waiting" in scrape(), seconds=60, pause=0.5)
    now = scrape()
    assert now["smoe_ray_trials_total waiting"] == 3
    assert now["smoe_ray_trials waiting running"] == 0
