"""Connectivity under a set of NetworkPolicies, as Kubernetes defines it.

A connection is allowed if the source's egress and the destination's ingress allow it. A pod that no policy of that
direction selects allows everything; otherwise the union of the rules of all policies that select it applies.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Manifest = dict[str, Any]


class Peer(NamedTuple):
    """A pod, or, without a namespace, an address outside the cluster."""

    name: str
    namespace: str | None
    labels: Mapping[str, str] = {}
    namespace_labels: Mapping[str, str] = {}
    address: str = "10.244.0.9"


def reaches(policies: Iterable[Manifest], source: Peer, destination: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is allowed."""
    policies = list(policies)
    return _allows(policies, source, destination, "egress", port, protocol) and _allows(
        policies, destination, source, "ingress", port, protocol
    )


def _allows(policies: list[Manifest], subject: Peer, other: Peer, direction: str, port: int, protocol: str) -> bool:
    selecting = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == subject.namespace
        and direction.capitalize() in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], subject.labels)
    ]
    if not selecting:
        return True
    return any(
        _admits(rule.get("to" if direction == "egress" else "from"), policy["metadata"]["namespace"], other)
        and _has_port(rule.get("ports"), port, protocol)
        for policy in selecting
        for rule in policy["spec"].get(direction, ())
    )


def _admits(peers: list[Manifest] | None, namespace: str, other: Peer) -> bool:
    return peers is None or any(_is(peer, namespace, other) for peer in peers)


def _is(peer: Manifest, namespace: str, other: Peer) -> bool:
    if "ipBlock" in peer:
        address = ipaddress.ip_address(other.address)
        block = peer["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(part) for part in block.get("except", ())
        )
    if other.namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != namespace:
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def _has_port(ports: list[Manifest] | None, port: int, protocol: str) -> bool:
    return ports is None or any(
        rule.get("protocol", "TCP") == protocol and rule.get("port", port) == port for rule in ports
    )


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches these labels; an empty one matches all."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        _matches(expression, labels) for expression in selector.get("matchExpressions", ())
    )


def _matches(expression: Manifest, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(expression["operator"])
