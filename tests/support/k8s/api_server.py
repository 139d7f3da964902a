"""A small Kubernetes API server on loopback, for the real kubectl and the real client.

It stores objects, lists them by label, rejects duplicates, honours dry runs, and serves discovery. It validates
nothing: tests assert on the requests.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Manifest = dict[str, Any]

KINDS = {
    "v1": {
        "Namespace": "namespaces", "ConfigMap": "configmaps", "Secret": "secrets", "Service": "services", "Pod": "pods",
        "ServiceAccount": "serviceaccounts", "PersistentVolumeClaim": "persistentvolumeclaims", "Event": "events",
        "Node": "nodes", "ResourceQuota": "resourcequotas",
    },
    "apps/v1": {"Deployment": "deployments"},
    "batch/v1": {"CronJob": "cronjobs", "Job": "jobs"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "storage.k8s.io/v1": {"StorageClass": "storageclasses"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"},
    "ray.io/v1": {"RayCluster": "rayclusters", "RayJob": "rayjobs"},
}  # fmt: skip


CLUSTER_WIDE = ("namespaces", "nodes", "storageclasses")


@dataclass
class ApiServer:
    """State of the server and the requests that it has received."""

    kubeconfig: Path
    kinds: dict[str, dict[str, str]] = field(default_factory=lambda: dict(KINDS))
    objects: dict[str, Manifest] = field(default_factory=dict)
    """Path of an object: the object."""
    heard: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path with query, and body of every request except discovery."""
    forbidden: set[str] = field(default_factory=set)
    """Resources, e.g. ``secrets``, for which the user has no permission."""
    refuses_namespace_objects: bool = False
    """Whether the user has no permission for Namespaces, though for objects in them."""

    def put(self, manifest: Manifest) -> None:
        """Store an object."""
        self.objects[self._path(manifest)] = manifest

    def of(self, kind: str) -> list[Manifest]:
        """The objects of a kind."""
        return [each for each in self.objects.values() if each["kind"] == kind]

    def changed(self) -> list[tuple[str, str]]:
        """Requests that changed something, dry runs excluded: method and path."""
        return [
            (method, urlsplit(path).path)
            for method, path, _ in self.heard
            if method != "GET" and "dryRun=All" not in path
        ]

    def _path(self, manifest: Manifest) -> str:
        version, metadata = manifest["apiVersion"], manifest["metadata"]
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        plural = self.kinds[version][manifest["kind"]]
        if plural in CLUSTER_WIDE:
            return f"{root}/{plural}/{metadata['name']}"
        return f"{root}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def storage_class(name: str, provisioner: str, **metadata: Any) -> Manifest:
    """A StorageClass."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, **metadata},
        "provisioner": provisioner,
    }


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """Start a server, with a kubeconfig of the contexts `test` (current) and `dead`, where nothing listens."""
    state = ApiServer(folder / "kubeconfig")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    clusters = {"test": server.server_address[1], "dead": 1}
    state.kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [
                    {"name": name, "cluster": {"server": f"http://127.0.0.1:{port}"}} for name, port in clusters.items()
                ],
                "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in clusters],
                "users": [{"name": "me", "user": {}}],
            }
        )
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    state.put(storage_class("standard", "rancher.io/local-path", annotations=default))
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: ApiServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _ = self._asked()
        if path in ("/version", "/api", "/apis") or path.startswith("/openapi/"):
            self._discover(path)
            return
        self._hear(None)
        if self._refuses(path):
            return
        if path in self.state.objects:
            self._answer(200, self.state.objects[path])
        elif self._is_list(path):
            self._list(path)
        else:
            self._absent(path)

    def do_POST(self) -> None:
        path, query = self._asked()
        body = self._body()
        self._hear(body)
        if self._refuses(path) or self._has_no_namespace(path):
            return
        where = f"{path}/{body['metadata']['name']}"
        if where in self.state.objects:
            self._fail(409, "AlreadyExists", f'"{body["metadata"]["name"]}" already exists')
            return
        self._keep(where, body, query, 201)

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        self._hear(None)
        self._answer(200, self.state.objects.pop(path))

    def do_PATCH(self) -> None:
        path, query = self._asked()
        body = self._body()
        self._hear(body)
        if self._refuses(path) or self._has_no_namespace(path):
            return
        assert self.headers["content-type"] == "application/apply-patch+yaml", self.headers["content-type"]
        self._keep(path, body, query, 200 if path in self.state.objects else 201)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    # --- responses ------------------------------------------------------------------------------------------------

    def _keep(self, where: str, body: Manifest, query: dict[str, list[str]], code: int) -> None:
        plural = where.split("/")[-2]
        version = where.removeprefix("/apis/").removeprefix("/api/").split("/namespaces")[0]
        kind = next(kind for kind, name in self.state.kinds[version].items() if name == plural)
        before = self.state.objects.get(where, {}).get("metadata", {})
        kept = {"apiVersion": version, "kind": kind, **body}
        kept["metadata"] = {
            "uid": before.get("uid") or str(uuid.uuid4()),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "resourceVersion": "1",
            **body["metadata"],
        }
        if "/namespaces/" in where and plural != "namespaces":
            kept["metadata"].setdefault("namespace", where.split("/namespaces/")[1].split("/")[0])
        secret = kept.pop("stringData", {})
        if secret:
            kept["data"] = {name: base64.b64encode(text.encode()).decode() for name, text in secret.items()}
        if "dryRun" not in query:
            self.state.objects[where] = kept
        self._answer(code, kept)

    def _list(self, path: str) -> None:
        _, query = self._asked()
        label, _, value = query.get("labelSelector", [""])[0].partition("=")
        items = [
            each
            for where, each in self.state.objects.items()
            if path in (where.rpartition("/")[0], re.sub("/namespaces/[^/]+/([^/]+)/[^/]+$", r"/\1", where))
            and (not label or each["metadata"].get("labels", {}).get(label, "\0") in ((value,) if value else _ANY))
        ]
        self._answer(200, {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})

    def _is_list(self, path: str) -> bool:
        above, _, plural = path.rpartition("/")
        version = above.removeprefix("/apis/").removeprefix("/api/").split("/namespaces")[0]
        return plural in self.state.kinds.get(version, {}).values()

    def _absent(self, path: str) -> None:
        *_, plural, name = path.split("/")
        version = path.removeprefix("/apis/").removeprefix("/api/").split("/namespaces")[0]
        if plural in self.state.kinds.get(version, {}).values():
            self._fail(404, "NotFound", f'{plural} "{name}" not found', {"name": name, "kind": plural})
        else:  # as the real one answers for an unknown kind
            self._say(404, b"404 page not found\n", "text/plain; charset=utf-8")

    def _has_no_namespace(self, path: str) -> bool:
        _, _, rest = path.partition("/namespaces/")
        name = rest.split("/")[0]
        if not rest or rest == name or f"/api/v1/namespaces/{name}" in self.state.objects:
            return False
        self._fail(404, "NotFound", f'namespaces "{name}" not found', {"name": name, "kind": "namespaces"})
        return True

    def _refuses(self, path: str) -> bool:
        parts = set(path.split("/"))
        refused = next(iter(parts & self.state.forbidden), None)
        if self.state.refuses_namespace_objects and path.rpartition("/")[0] == "/api/v1/namespaces":
            refused = "namespaces"
        if refused:
            self._fail(403, "Forbidden", f'{refused} is forbidden: User "me" cannot do that')
        return refused is not None

    def _fail(self, code: int, reason: str, message: str, details: Manifest | None = None) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
        self._answer(code, {**status, "details": details or {}, "code": code})

    def _discover(self, path: str) -> None:
        if path == "/version":
            self._answer(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        elif path in ("/api", "/apis"):
            self._answer(
                200,
                {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": self._groups(path)},
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            )
        elif path == "/openapi/v2":  # requested if v3 lacks a kind; an empty body is a valid protocol buffer
            self._say(200, b"", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        elif path == "/openapi/v3":
            paths = {
                _root(version): {"serverRelativeURL": f"/openapi/v3/{_root(version)}"} for version in self.state.kinds
            }
            self._answer(200, {"paths": paths})
        else:
            self._answer(200, self._openapi(path.removeprefix("/openapi/v3/")))

    def _groups(self, path: str) -> list[Manifest]:
        groups = []
        for version, kinds in self.state.kinds.items():
            group, _, number = version.rpartition("/")
            if (path == "/api") != (group == ""):
                continue
            resources = [
                {
                    "resource": plural,
                    "responseKind": {"group": group, "version": number, "kind": kind},
                    "scope": "Cluster" if plural in CLUSTER_WIDE else "Namespaced",
                    "singularResource": kind.lower(),
                    "verbs": ["get", "list", "create", "patch", "delete"],
                }
                for kind, plural in kinds.items()
            ]
            versions = [{"version": number, "resources": resources, "freshness": "Current"}]
            groups.append({"metadata": {"name": group} if group else {}, "versions": versions})
        return groups

    def _openapi(self, root: str) -> Manifest:
        """Support of dry run and strict validation by server-side apply: all that kubectl looks for."""
        version = root.removeprefix("apis/").removeprefix("api/")
        group, _, number = version.rpartition("/")
        parameters = [{"name": name, "in": "query"} for name in ("dryRun", "fieldValidation")]
        paths = {
            f"/{root}/{plural}/{{name}}": {
                "patch": {
                    "parameters": parameters,
                    "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind},
                }
            }
            for kind, plural in self.state.kinds.get(version, {}).items()
        }
        return {"openapi": "3.0.0", "info": {"title": "test", "version": "1"}, "paths": paths}

    # --- HTTP -----------------------------------------------------------------------------------------------------

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> Any:
        return yaml.safe_load(self.rfile.read(int(self.headers["content-length"])))

    def _hear(self, body: Any) -> None:
        self.state.heard.append((self.command, self.path, body))

    def _answer(self, code: int, answer: Manifest, content_type: str = "application/json") -> None:
        self._say(code, json.dumps(answer).encode(), content_type)

    def _say(self, code: int, content: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Any:
    def __contains__(self, value: object) -> bool:
        return value != "\0"


_ANY = _Any()


def _root(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"
