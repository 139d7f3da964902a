"""Writes this chart's templates from the manifests that kustomize builds: ``python k8s/chart/generate.py`` (kubectl).

The base is rendered with and without the components gpu and s3. Lines in which the four renderings differ become
conditions on the values `gpu.enabled` and `s3.enabled`; the fields of `FIELDS` are filled in from values.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from smoe_ray.k8s.manifests import Manifest, folder, objects, render

TEMPLATES = Path(__file__).resolve().parent / "templates"
HEADER = "{{- /* Written by k8s/chart/generate.py from k8s/base and k8s/components: change those. */}}"

VARIANTS = {"base": (), "gpu": ("gpu",), "s3": ("s3",), "both": ("gpu", "s3")}
"""The components of each rendering."""

CONDITIONS = {
    frozenset(VARIANTS): "",
    frozenset({"gpu", "both"}): ".Values.gpu.enabled",
    frozenset({"s3", "both"}): ".Values.s3.enabled",
    frozenset({"base", "gpu"}): "not .Values.s3.enabled",
    frozenset({"gpu"}): "and .Values.gpu.enabled (not .Values.s3.enabled)",
    frozenset({"both"}): "and .Values.gpu.enabled .Values.s3.enabled",
}
"""When a line is there, by the renderings that contain it."""

_POD = "template.spec"
_GROUP = "spec.workerGroupSpecs"
_IDENTITY = {"metadata.annotations?": ".Values.serviceAccounts.annotations"}
FIELDS = {
    "ServiceAccount smoe-ray-head": _IDENTITY,
    "ServiceAccount smoe-ray-worker": _IDENTITY,
    "ServiceAccount smoe-ray-dashboard": _IDENTITY,
    "ConfigMap smoe-ray": {"data.OUT": ".Values.out | quote"},
    "PersistentVolumeClaim smoe-ray-results": {
        "spec.accessModes.0": ".Values.storage.accessMode | quote",
        "spec.resources.requests.storage": ".Values.storage.size | quote",
        "spec.storageClassName?": ".Values.storage.className",
    },
    "Deployment smoe-ray-dashboard": {
        f"spec.{_POD}.containers.0.image": ".Values.images.dashboard | quote",
        f"spec.{_POD}.containers.0.resources": "toYaml .Values.dashboard.resources",
        f"spec.{_POD}.imagePullSecrets?": ".Values.imagePullSecrets",
    },
    "RayCluster smoe-ray": {
        f"spec.headGroupSpec.{_POD}.containers.0.image": ".Values.images.ray | quote",
        f"spec.headGroupSpec.{_POD}.containers.0.resources": "toYaml .Values.head.resources",
        f"spec.headGroupSpec.{_POD}.imagePullSecrets?": ".Values.imagePullSecrets",
        f"{_GROUP}.0.minReplicas": ".Values.workers.minReplicas",
        f"{_GROUP}.0.maxReplicas": ".Values.workers.maxReplicas",
        f"{_GROUP}.0.{_POD}.containers.0.image": ".Values.images.ray | quote",
        f"{_GROUP}.0.{_POD}.containers.0.resources": "toYaml .Values.workers.resources",
        f"{_GROUP}.0.{_POD}.imagePullSecrets?": ".Values.imagePullSecrets",
        f"{_GROUP}.0.{_POD}.nodeSelector?": ".Values.workers.nodeSelector",
        f"{_GROUP}.1.minReplicas": ".Values.gpu.minReplicas",
        f"{_GROUP}.1.maxReplicas": ".Values.gpu.maxReplicas",
        f"{_GROUP}.1.{_POD}.containers.0.image": ".Values.images.gpu | quote",
        f"{_GROUP}.1.{_POD}.containers.0.resources": "toYaml .Values.gpu.resources",
        f"{_GROUP}.1.{_POD}.imagePullSecrets?": ".Values.imagePullSecrets",
        f"{_GROUP}.1.{_POD}.nodeSelector?": ".Values.gpu.nodeSelector",
    },
}
"""Expressions for fields, by kind and name of the object; `?` ends a field that is there only if its value is set."""

KEPT = {"helm.sh/resource-policy": "keep"}
"""Annotations of a PersistentVolumeClaim: results outlive the release."""


def templates() -> dict[str, str]:
    """The content of each generated file of ``templates/``, one file per kind of object. Raises ClusterError."""
    lines: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for variant, components in VARIANTS.items():
        by_kind: dict[str, list[Manifest]] = defaultdict(list)
        for found in built(components):
            by_kind[found["kind"]].append(found)
        for kind, some in by_kind.items():
            lines[f"{kind.lower()}.yaml"][variant] = [line for each in some for line in ["---", *template(each)]]
    return {name: "\n".join([HEADER, *merged(found)]) + "\n" for name, found in sorted(lines.items())}


def built(components: tuple[str, ...]) -> list[Manifest]:
    """The objects of the base with some components, without the Namespace, which Helm creates before."""
    with tempfile.TemporaryDirectory(prefix="smoe-ray-chart-") as above:
        there = Path(os.path.relpath(folder(), Path(above).resolve()))
        kustomization = {
            "namespace": "smoe-ray",
            "resources": [str(there / "base")],
            "components": [str(there / "components" / name) for name in (*components, "tenant")],
        }
        (Path(above) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        return objects(render(str(Path(above).resolve())))


def template(found: Manifest) -> list[str]:
    """The lines of an object, with expressions for its namespace and the fields of `FIELDS`."""
    if found["kind"] == "PersistentVolumeClaim":
        found["metadata"]["annotations"] = dict(KEPT)
    fields = {"metadata.namespace": ".Release.Namespace | quote"}
    fields |= FIELDS.get(f"{found['kind']} {found['metadata']['name']}", {})
    expressions = {f"EXPRESSION{number}": field for number, field in enumerate(fields)}
    for word, field in expressions.items():
        replace(found, field.removesuffix("?").split("."), word)
    text = yaml.safe_dump(found, sort_keys=False, width=10_000)
    lines = []
    for line in text.splitlines():
        match = re.fullmatch(r"( *)(?:(- )|([\w-]+): )(EXPRESSION\d+)", line)
        if match is None:
            lines.append(line)
        else:
            indent, item, key, word = match.groups()
            field = expressions[word]
            lines += expression(
                indent, item.strip() if item else f"{key}:", fields[field], is_optional=field.endswith("?")
            )
    return lines


def replace(tree: Any, path: list[str], word: str) -> None:
    """Put `word` at a path of an object, unless the list it leads through is shorter (no GPU workers)."""
    *above, last = path
    for step in above:
        if isinstance(tree, list) and int(step) >= len(tree):
            return
        tree = tree[int(step)] if isinstance(tree, list) else tree[step]
    tree[int(last) if isinstance(tree, list) else last] = word


def expression(indent: str, key: str, text: str, *, is_optional: bool) -> list[str]:
    """The lines of a field whose value is an expression."""
    if is_optional:
        return [f"{{{{- with {text} }}}}", *expression(indent, key, "toYaml .", is_optional=False), "{{- end }}"]
    if text.startswith("toYaml"):
        return [f"{indent}{key}", f"{indent}  {{{{- {text} | nindent {len(indent) + 2} }}}}"]
    return [f"{indent}{key} {{{{ {text} }}}}"]


def merged(renderings: dict[str, list[str]]) -> list[str]:
    """One template that has, under the conditions of each rendering, exactly its lines."""
    union: list[tuple[str, frozenset[str]]] = []
    for variant, lines in renderings.items():
        matcher = difflib.SequenceMatcher(None, [line for line, _ in union], lines, autojunk=False)
        grown: list[tuple[str, frozenset[str]]] = []
        for kind, start, stop, low, high in matcher.get_opcodes():
            added = {variant} if kind == "equal" else set()
            grown += [(line, variants | added) for line, variants in union[start:stop]]
            if kind != "equal":
                grown += [(line, frozenset({variant})) for line in lines[low:high]]
        union = grown
    found: list[str] = []
    for variants, group in itertools.groupby(union, key=lambda pair: pair[1]):
        part = [line for line, _ in group]
        condition = CONDITIONS[variants]
        found += [f"{{{{- if {condition} }}}}", *part, "{{- end }}"] if condition else part
    return found


if __name__ == "__main__":
    for name, content in templates().items():
        (TEMPLATES / name).write_text(content, encoding="utf-8")
