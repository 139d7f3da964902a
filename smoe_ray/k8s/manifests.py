"""The manifests of the folder k8s/, as kubectl builds them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smoe_ray.errors import ClusterError
from smoe_ray.k8s.kubectl import Target, kubectl
from smoe_ray.temporary import temporary_folder

Manifest = dict[str, Any]
"""A Kubernetes object as plain YAML values."""

MANAGER = "smoe-ray"
"""Field manager of server-side apply."""

TOKEN_KEY = "auth_token"  # noqa: S105  # the key that KubeRay reads
OUT_KEY = "OUT"
_IMAGE_LINE = re.compile(r"^ *image: ([^\s@]+?)(?::[\w.-]+)?(?:@\S+)?$", re.MULTILINE)
_IMAGE = re.compile(r"(?P<name>[^=\s]+)=(?P<new>[^=\s@]+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")
_PLACEHOLDER = re.compile(
    r"s3://smoe-ray-results(?![\w.-])[^\s\"',]*|(?<![\w.-])(?:[\w-]+\.)*example\.org(?![\w.-])[^\s\"',]*"
)
_LINK_LOCAL = "169.254."
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def folder() -> Path:
    """The manifests: the folder k8s/ of the repository, installed as package smoe_ray_k8s."""
    import smoe_ray_k8s

    return Path(smoe_ray_k8s.__file__).resolve().parent


def overlays() -> list[str]:
    """Names of the overlays."""
    return sorted(path.parent.name for path in folder().glob("overlays/*/kustomization.yaml"))


def render(overlay: str, namespace: str | None = None, images: Sequence[str] = ()) -> str:
    """An overlay as YAML documents.

    Args:
        overlay: one of `overlays`, or the path of your own folder with a kustomization.yaml.
        namespace: replaces the overlay's.
        images: ``NAME=NEW``: use image NEW (``registry/name:tag``, ``registry/name@sha256:…``) for the overlay's NAME.

    Raises:
        ClusterError: no such overlay, or kubectl cannot build it.
    """
    changes: Manifest = {}
    if namespace is not None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ClusterError(f"--namespace {namespace}: use lower-case letters, digits and dashes, at most 63")
        changes["namespace"] = namespace
    if images:
        changes["images"] = [_image(text) for text in images]
    place = _overlay(overlay)
    if not changes:
        return kubectl(["kustomize", str(place)])

    import yaml

    with temporary_folder("smoe-ray-k8s-") as above:
        # kustomize accepts no absolute path as a resource.
        changes["resources"] = [os.path.relpath(place, Path(above).resolve())]
        (Path(above) / "kustomization.yaml").write_text(yaml.safe_dump(changes), encoding="utf-8")
        rendered = kubectl(["kustomize", str(Path(above).resolve())])
    for image in changes.get("images", ()):
        new = f"{image['newName']}@{image['digest']}" if "digest" in image else f"{image['newName']}:{image['newTag']}"
        if not re.search(rf"image: [\"']?{re.escape(new)}[\"']?$", rendered, re.MULTILINE):
            names = ", ".join(sorted(set(_IMAGE_LINE.findall(rendered))))
            raise ClusterError(f"--image {image['name']}: the overlay has no such image; it has {names}")
    return rendered


class Rendered(NamedTuple):
    """The parts of an overlay that the commands use."""

    namespace: Manifest | None
    """The object of kind Namespace; None if the overlay leaves it to the cluster's administrator."""
    cluster: Manifest
    """The object of kind RayCluster."""
    out: str | None
    """Location of the results, as pods see it; None if no ConfigMap contains it."""
    policies: tuple[Manifest, ...] = ()
    """The objects of kind NetworkPolicy."""

    @property
    def namespace_name(self) -> str:
        """Name of the namespace of all objects."""
        return str(self.cluster["metadata"]["namespace"])

    @property
    def workers_have_egress(self) -> bool:
        """Whether the NetworkPolicies let workers connect to addresses outside the cluster on port 443."""
        labels = [
            group["template"].get("metadata", {}).get("labels", {}) | {"ray.io/node-type": "worker"}
            for group in self.cluster["spec"].get("workerGroupSpecs", ())
        ]
        return all(_has_egress(self.policies, each) for each in labels)

    @property
    def token_secret(self) -> str:
        """Name of the Secret with Ray's token."""
        return str(self.cluster["spec"]["authOptions"]["secretName"])


def read(rendered: str) -> Rendered:
    """Find the parts of an overlay that the commands use. Raises ClusterError if one is missing."""
    found = objects(rendered)
    settings = [each["data"] for each in found if each.get("kind") == "ConfigMap" and "data" in each]
    places = [each[OUT_KEY] for each in settings if OUT_KEY in each]
    cluster = _the("RayCluster", found)
    if not cluster["spec"].get("authOptions", {}).get("secretName"):
        raise ClusterError(
            "the RayCluster of the overlay names no Secret (authOptions.secretName): it would not be authenticated"
        )
    policies = tuple(each for each in found if each.get("kind") == "NetworkPolicy")
    namespaces = [each for each in found if each.get("kind") == "Namespace"]
    return Rendered(namespaces[0] if namespaces else None, cluster, places[0] if len(places) == 1 else None, policies)


def refuse_placeholders(text: str) -> None:
    """Raise ClusterError if manifests contain example names of the overlay `production`."""
    found = list(dict.fromkeys(_PLACEHOLDER.findall(text)))
    if found:
        raise ClusterError(
            f"placeholders of the overlay: {', '.join(found)}; replace them by your own names in your own overlay "
            "(docs/kubernetes.md), images also with --image, results also with --out"
        )


def _has_egress(policies: Sequence[Manifest], labels: dict[str, str]) -> bool:
    selecting = [
        policy["spec"]
        for policy in policies
        if "Egress" in policy["spec"].get("policyTypes", ()) and _selects(policy["spec"]["podSelector"], labels)
    ]
    return not selecting or any(_is_egress(rule) for spec in selecting for rule in spec.get("egress") or ())


def _is_egress(rule: Manifest) -> bool:
    blocks = [peer["ipBlock"]["cidr"] for peer in rule.get("to") or () if "ipBlock" in peer]
    ports = [port.get("port", 443) for port in rule.get("ports") or ()]
    outside = not rule.get("to") or any(not cidr.startswith(_LINK_LOCAL) for cidr in blocks)
    return outside and (not ports or 443 in ports)


def _selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector matches."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        {
            "In": labels.get(each["key"]) in each.get("values", ()),
            "NotIn": labels.get(each["key"]) not in each.get("values", ()),
            "Exists": each["key"] in labels,
            "DoesNotExist": each["key"] not in labels,
        }[each["operator"]]
        for each in selector.get("matchExpressions", ())
    )


def objects(rendered: str) -> list[Manifest]:
    """The objects of YAML documents."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [each for each in yaml.load_all(rendered, Loader=loader) if each]


def job_template() -> tuple[Manifest, Manifest]:
    """RayJob and ConfigMap that serve as the template of a study's: ``k8s/jobs/study``. Raises ClusterError."""
    found = objects(kubectl(["kustomize", str(folder() / "jobs" / "study")]))
    return _the("RayJob", found), _the("ConfigMap", found)


def dump(*objects: Manifest) -> str:
    """Objects as YAML documents."""
    import yaml

    return yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True)


def apply(rendered: str, target: Target) -> None:
    """Apply the manifests (server-side apply).

    Raises:
        ClusterError: an object is rejected; those before it are applied. `rehearse` checks all of them beforehand.
    """
    kubectl(["apply", *_SERVER_SIDE, "--filename=-"], target, stdin=rendered)


def rehearse(rendered: str, target: Target) -> list[str]:
    """Server-side dry run of all of `rendered`; returns the names of its objects. Raises ClusterError."""
    names = kubectl(
        ["apply", *_SERVER_SIDE, "--dry-run=server", "--validate=strict", "--output=name", "--filename=-"],
        target,
        stdin=rendered,
    )
    return names.split()


def diff(rendered: str, target: Target) -> dict[str, str]:
    """Changes that `apply` would make: object -> unified diff. Raises ClusterError."""
    said = kubectl(["diff", *_SERVER_SIDE, "--filename=-"], target, stdin=rendered, fine=(0, 1))
    parts = re.split(r"^diff .*/(\S+)$\n", said, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


# Fields that others have changed (kubectl scale; the autoscaler, which owns the list of groups once it has scaled) are
# shown by `diff` and then overwritten: KubeRay and Ray's autoscaler reconcile them again.
_SERVER_SIDE = ("--server-side", "--force-conflicts", f"--field-manager={MANAGER}")


def _overlay(overlay: str) -> Path:
    if "/" in overlay or overlay in (".", ".."):
        place = Path(overlay).expanduser().resolve()
        if not (place / "kustomization.yaml").is_file():
            raise ClusterError(f"{overlay}: not a folder with a kustomization.yaml")
        return place
    names = overlays()
    if overlay not in names:
        raise ClusterError(f"{overlay}: no such overlay; use {', '.join(names)}, or the path of your own")
    return folder() / "overlays" / overlay


def _image(text: str) -> dict[str, str]:
    match = _IMAGE.fullmatch(text)
    if match is None or not (match["tag"] or match["digest"]):
        raise ClusterError(f"--image {text}: write NAME=registry/name:tag or NAME=registry/name@sha256:…")
    if match["tag"] == "latest" and not match["digest"]:
        raise ClusterError(f"--image {text}: the tag latest is mutable; use a version or a digest")
    new = {"name": match["name"], "newName": match["new"]}
    return new | ({"digest": match["digest"]} if match["digest"] else {"newTag": match["tag"]})


def _the(kind: str, among: Sequence[Manifest]) -> Manifest:
    found = [each for each in among if each.get("kind") == kind]
    if len(found) != 1:
        raise ClusterError(f"the manifests have {len(found)} objects of kind {kind}; exactly one is needed")
    return found[0]
