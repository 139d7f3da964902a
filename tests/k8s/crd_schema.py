"""Objects of KubeRay against its CustomResourceDefinitions, as strictly as ``kubectl apply --validate=strict``."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

Schema = dict[str, Any]


def crd_errors(found: dict[str, Any], shared_data: Path) -> list[str]:
    """What is wrong with an object of ray.io/v1, unknown fields included; empty: nothing."""
    assert found["apiVersion"] == "ray.io/v1", found["apiVersion"]
    errors = _validator(shared_data / "kuberay" / f"ray.io_{found['kind'].lower()}s.yaml.gz").iter_errors(found)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


@cache
def _validator(path: Path) -> Draft202012Validator:
    definition = yaml.load(gzip.decompress(path.read_bytes()), yaml.CSafeLoader)
    [schema] = [
        version["schema"]["openAPIV3Schema"] for version in definition["spec"]["versions"] if version["name"] == "v1"
    ]
    root = _strict(schema)
    root["properties"]["metadata"] = {"type": "object"}  # the CRD leaves it to Kubernetes
    root["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return Draft202012Validator(root)


def _strict(schema: Schema) -> Schema:
    """The schema as plain JSON Schema in which an object has no other fields than those named."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"], **{key: schema[key] for key in ("pattern",) if key in schema}}
    strict = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    properties = schema.get("properties", {})
    strict["properties"] = {name: _strict(inner) for name, inner in properties.items()}
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    if "required" in schema:  # the server fills in defaults before it asks
        strict["required"] = [name for name in schema["required"] if "default" not in properties.get(name, {})]
    if isinstance(schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(schema["additionalProperties"])
    elif not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    return strict
