"""Allowed connections, and no others."""

from __future__ import annotations

import copy

import pytest

from support.k8s.manifests import NAMESPACE, Built, Manifest, PodTemplate, of_kind, one, pod_templates
from support.k8s.network_policies import Peer, reaches

API, DNS, GCS, METRICS, RAY = (443, 6443, 8443), 53, 6379, (8080, 44217, 44227), 8265
DASHBOARD, LOGIN, HTTPS = 8501, 4180, 443
PORTS = (22, 80, 988, DNS, *API, GCS, RAY, *METRICS, DASHBOARD, LOGIN, 10001, 52365)
ALL = frozenset(PORTS)

Table = dict[tuple[str, str], frozenset[int]]


def namespace(name: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": name}


def outsiders() -> list[Peer]:
    ingress = {"kubernetes.io/metadata.name": "edge", "smoe-ray/ingress": "true"}
    watching = {"kubernetes.io/metadata.name": "watching", "smoe-ray/prometheus": "true"}
    default = namespace("default")
    return [
        Peer("names", "kube-system", {"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"}),
        Peer("false names", "default", {"k8s-app": "kube-dns"}, default),
        Peer("NodeLocal DNSCache", None, address="169.254.20.10"),
        Peer("metadata server", None, address="169.254.169.254"),
        Peer("GKE workload identity", None, address="169.254.169.252"),
        Peer("EKS Pod Identity", None, address="169.254.170.23"),
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
        Peer("operator elsewhere", "default", {"app.kubernetes.io/name": "kuberay-operator"}, default),
        Peer("internet", None, address="203.0.113.7"),
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


STRANGERS = (
    *("operator", "operator elsewhere", "edge", "prometheus", "grafana"),
    *("false dashboard", "false worker", "false names"),
)
DNS_SERVERS = ("names", "NodeLocal DNSCache", "metadata server")
NODES = ("head", "worker", "job's head", "job's worker")
HEADS = ("head", "job's head")
CLIENTS = ("dashboard", "submitter", "nightly")


def expected_of_base() -> Table:
    insiders = (*NODES, *CLIENTS, "bystander")
    expected: Table = {(source, server): frozenset({DNS}) for source in insiders for server in DNS_SERVERS}
    expected |= {(source, node): ALL for source in NODES for node in NODES if source != node}
    callers = (*CLIENTS, "operator", "operator elsewhere")
    expected |= {(source, head): frozenset({RAY}) for source in callers for head in HEADS}
    # No selector matches the Kubernetes API: every address is allowed, on its ports. No pod of the namespace uses them.
    for head in HEADS:
        expected |= {(head, other): frozenset(API) for other in (*STRANGERS, "internet")}
        expected[head, "names"] = frozenset({DNS, *API})
    return expected


def test_base_opens_what_it_needs_and_no_more(built: Built) -> None:
    objects = [*built["base"], *built["jobs/study"], *built["jobs/nightly"]]
    assert table(objects, []) == expected_of_base()


def test_production_opens_in_addition_storage_metrics_login_and_redis(production: list[Manifest]) -> None:
    expected = {pair: set(ports) for pair, ports in expected_of_base().items()}

    def open_(source: str, destination: str, *ports: int) -> None:
        expected.setdefault((source, destination), set()).update(ports)

    for source in (*NODES, *CLIENTS, "login"):  # storage and the identity provider may have any address, on one port
        for other in (*STRANGERS, "names", "internet"):
            open_(source, other, HTTPS)
    for node in NODES:
        open_("prometheus", node, *METRICS)
    open_("edge", "login", LOGIN)
    open_("login", "dashboard", DASHBOARD)
    for source in ("login", "redis", "cleanup"):
        for server in DNS_SERVERS:
            open_(source, server, DNS)
    for source in (*HEADS, "cleanup"):
        open_(source, "redis", GCS)
    cleanup = Peer("cleanup", NAMESPACE, {"ray.io/node-type": "redis-cleanup"}, namespace(NAMESPACE))
    assert table(production, [cleanup]) == {pair: frozenset(ports) for pair, ports in expected.items()}


def test_names_are_asked_over_udp_too_and_nothing_else_is(built: Built) -> None:
    policies = of_kind(built["base"], "NetworkPolicy")
    everybody = {peer.name: peer for peer in [*insiders(built["base"]), *outsiders()]}
    for server in DNS_SERVERS:
        assert reaches(policies, everybody["dashboard"], everybody[server], DNS, "UDP")
    assert not reaches(policies, everybody["dashboard"], everybody["head"], RAY, "UDP")
    assert not reaches(policies, everybody["head"], everybody["internet"], HTTPS, "UDP")


def test_the_table_sees_a_policy_that_is_too_wide(built: Built) -> None:
    objects = copy.deepcopy([*built["base"], *built["jobs/study"], *built["jobs/nightly"]])
    one(objects, "NetworkPolicy", "head-api")["spec"]["ingress"][0]["from"][0]["namespaceSelector"] = {}
    opened = set(table(objects, [])) - set(expected_of_base())
    assert opened == {("false dashboard", head) for head in HEADS}


@pytest.mark.parametrize(
    ("component", "opened"),
    [
        ("eks-pod-identity", {"EKS Pod Identity": {80}}),
        ("gke-workload-identity", {"metadata server": {80, DNS}, "GKE workload identity": {988}}),
    ],
)
def test_an_identity_opens_its_endpoint_to_the_pods_that_use_storage(
    built: Built, component: str, opened: dict[str, set[int]]
) -> None:
    jobs = [*built["jobs/study"], *built["jobs/nightly"]]
    expected = expected_of_base()
    for source in (*NODES, "dashboard"):
        expected |= {(source, endpoint): frozenset(ports) for endpoint, ports in opened.items()}
    assert table([*built[f"components/{component}"], *jobs], []) == expected


def test_dns_over_node_local_pods_is_allowed_too(built: Built) -> None:
    policies = of_kind(built["base"], "NetworkPolicy")
    cache = Peer("cache", "kube-system", {"k8s-app": "node-local-dns"}, namespace("kube-system"))
    other = Peer("other", "kube-system", {"k8s-app": "metrics-server"}, namespace("kube-system"))
    [head, *_] = insiders(built["base"])
    assert reaches(policies, head, cache, DNS, "UDP")
    assert not reaches(policies, head, other, DNS, "UDP")


@pytest.mark.parametrize("name", ["default-deny", "dns", "ray", "head-api", "job-clients", "autoscaler"])
def test_the_table_misses_every_policy_that_is_gone(built: Built, name: str) -> None:
    objects = [*built["base"], *built["jobs/study"], *built["jobs/nightly"]]
    policy = one(objects, "NetworkPolicy", name)
    assert table([found for found in objects if found is not policy], []) != expected_of_base()
