"""Allowed connections, and no others."""

from __future__ import annotations

import copy

import pytest

from support.k8s.manifests import NAMESPACE, Built, Manifest, PodTemplate, of_kind, one, pod_templates
from support.k8s.network_policies import Peer, reaches

API, DNS, GCS, METRICS, RAY = (443, 6443, 8443), 53, 6379, (8080, 44217, 44227), 8265
DASHBOARD, LOGIN, HTTPS = 8501, 4180, 443
PORTS = (22, 80, DNS, *API, GCS, RAY, *METRICS, DASHBOARD, LOGIN, 10001, 52365)
ALL = frozenset(PORTS)

Table = dict[tuple[str, str], frozenset[int]]


def namespace(name: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": name}


def outsiders() -> list[Peer]:
    ingress = {"kubernetes.io/metadata.name": "edge", "smoe-ray/ingress": "true"}
    watching = {"kubernetes.io/metadata.name": "watching", "smoe-ray/prometheus": "true"}
    default = {"kubernetes.io/metadata.name": "default"}
    return [
        Peer("names", "kube-system", {"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"}),
        Peer(
            "operator",
            "kuberay-system",
            {"app.kubernetes.io/name": "kuberay-operator"},
            {"kubernetes.io/metadata.name": "kuberay-system"},
        ),
        Peer("edge", "edge", {}, ingress),
        Peer("prometheus", "watching", {"app.kubernetes.io/name": "prometheus"}, watching),
        Peer("grafana", "watching", {"app.kubernetes.io/name": "grafana"}, watching),
        # In another namespace, with labels that open doors in ours.
        Peer("false dashboard", "default", {"app.kubernetes.io/component": "dashboard"}, default),
        Peer("false worker", "default", {"ray.io/node-type": "worker"}, default),
        Peer("false operator", "default", {"app.kubernetes.io/name": "kuberay-operator"}, default),
        Peer("internet", None, address="203.0.113.7"),
        Peer("cloud credentials", None, address="169.254.169.254"),
    ]


def insiders(objects: list[Manifest]) -> list[Peer]:
    roles = {
        "smoe-ray head": "head",
        "smoe-ray cpu": "worker",
        "quickstart-x2xzg head": "job's head",
        "quickstart-x2xzg cpu": "job's worker",
        "Deployment/smoe-ray-dashboard": "dashboard",
        "RayJob/quickstart submitter": "submitter",
        "CronJob/nightly": "nightly",
        "Deployment/smoe-ray-login": "login",
        "StatefulSet/smoe-ray-redis": "redis",
    }
    pods: list[PodTemplate] = pod_templates(objects)
    found = [Peer(roles[pod.name], NAMESPACE, pod.labels, namespace(NAMESPACE)) for pod in pods if pod.name in roles]
    return [*found, Peer("bystander", NAMESPACE, {}, namespace(NAMESPACE))]


def table(objects: list[Manifest], more: list[Peer]) -> Table:
    """What is open between those of whom one at least is in the namespace; nothing is no entry."""
    policies = of_kind(objects, "NetworkPolicy")
    everybody = [*insiders(objects), *more, *outsiders()]
    found = {}
    for source in everybody:
        for destination in everybody:
            if source is destination or NAMESPACE not in (source.namespace, destination.namespace):
                continue
            ports = frozenset(port for port in PORTS if reaches(policies, source, destination, port))
            if ports:
                found[source.name, destination.name] = ports
    return found


NODES = ("head", "worker", "job's head", "job's worker")
HEADS = ("head", "job's head")
CLIENTS = ("dashboard", "submitter", "nightly")


def expected_of_base() -> Table:
    insiders = (*NODES, *CLIENTS, "bystander")
    expected: Table = {(source, "names"): frozenset({DNS}) for source in insiders}
    expected |= {(source, node): ALL for source in NODES for node in NODES if source != node}
    expected |= {(source, head): frozenset({RAY}) for source in (*CLIENTS, "operator") for head in HEADS}
    # The Kubernetes API has no name: any address will do, on its ports. Nobody in the namespace listens there.
    strangers = ("operator", "edge", "prometheus", "grafana", "false dashboard", "false worker", "false operator")
    for head in HEADS:
        expected |= {(head, other): frozenset(API) for other in (*strangers, "internet")}
        expected[head, "names"] = frozenset({DNS, *API})
    return expected


def test_base_opens_what_it_needs_and_no_more(built: Built) -> None:
    objects = [*built["base"], *built["jobs/study"], *built["jobs/nightly"]]
    assert table(objects, []) == expected_of_base()


def test_production_opens_in_addition_storage_metrics_login_and_redis(production: list[Manifest]) -> None:
    expected = {pair: set(ports) for pair, ports in expected_of_base().items()}

    def open_(source: str, destination: str, *ports: int) -> None:
        expected.setdefault((source, destination), set()).update(ports)

    strangers = ("operator", "edge", "prometheus", "grafana", "false dashboard", "false worker", "false operator")
    for source in (*NODES, *CLIENTS, "login"):  # storage and the login's provider are anywhere, on one port
        for other in (*strangers, "names", "internet"):
            open_(source, other, HTTPS)
    for node in NODES:
        open_("prometheus", node, *METRICS)
    open_("edge", "login", LOGIN)
    open_("login", "dashboard", DASHBOARD)
    for source in ("login", "redis", "cleanup"):
        open_(source, "names", DNS)
    for source in (*HEADS, "cleanup"):
        open_(source, "redis", GCS)
    cleanup = Peer("cleanup", NAMESPACE, {"ray.io/node-type": "redis-cleanup"}, namespace(NAMESPACE))
    assert table(production, [cleanup]) == {pair: frozenset(ports) for pair, ports in expected.items()}


def test_names_are_asked_over_udp_too_and_nothing_else_is(built: Built) -> None:
    policies = of_kind(built["base"], "NetworkPolicy")
    everybody = {peer.name: peer for peer in [*insiders(built["base"]), *outsiders()]}
    assert reaches(policies, everybody["dashboard"], everybody["names"], DNS, "UDP")
    assert not reaches(policies, everybody["dashboard"], everybody["head"], RAY, "UDP")
    assert not reaches(policies, everybody["head"], everybody["internet"], HTTPS, "UDP")


def test_the_table_sees_a_policy_that_is_too_wide(built: Built) -> None:
    objects = copy.deepcopy([*built["base"], *built["jobs/study"], *built["jobs/nightly"]])
    one(objects, "NetworkPolicy", "head-api")["spec"]["ingress"][0]["from"][0]["namespaceSelector"] = {}
    opened = set(table(objects, [])) - set(expected_of_base())
    assert opened == {("false dashboard", head) for head in HEADS}


@pytest.mark.parametrize("name", ["default-deny", "dns", "ray", "head-api", "job-clients", "autoscaler"])
def test_the_table_misses_every_policy_that_is_gone(built: Built, name: str) -> None:
    objects = [*built["base"], *built["jobs/study"], *built["jobs/nightly"]]
    policy = one(objects, "NetworkPolicy", name)
    assert table([found for found in objects if found is not policy], []) != expected_of_base()
