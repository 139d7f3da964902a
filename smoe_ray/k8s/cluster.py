"""Requests to the API server, through the official Kubernetes client."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from smoe_ray.bounded_answers import bound, refusal
from smoe_ray.errors import ClusterError
from smoe_ray.job_payload import attempt_of
from smoe_ray.k8s.kubectl import NO_CLUSTER, NO_CONFIG, NO_CONTEXT, NO_KUBERAY, NO_NAMESPACE, NO_PERMISSION, Target
from smoe_ray.k8s.manifests import MANAGER, TOKEN_KEY, Manifest, Rendered
from smoe_ray.k8s.rayjob import STUDY_LABEL, StudyJob

if TYPE_CHECKING:
    from kubernetes import client

_GROUP, _VERSION = "ray.io", "v1"
_TIMEOUTS_S = (10.0, 60.0)  # to connect, to answer
_ENDED = ("Complete", "Failed", "ValidationFailed")
_BLOCK_STORAGE = (
    "ebs.csi.aws.com", "ebs.csi.eks.amazonaws.com", "kubernetes.io/aws-ebs", "pd.csi.storage.gke.io",
    "kubernetes.io/gce-pd", "disk.csi.azure.com", "kubernetes.io/azure-disk", "rancher.io/local-path",
)  # fmt: skip
"""Provisioners of volumes that one node at a time can mount."""


class Cluster:
    """A Kubernetes cluster.

    Raises:
        ClusterError: from every method: unknown context, unreachable API server, KubeRay not installed, or refused.
    """

    def __init__(self, target: Target) -> None:
        try:
            from kubernetes import client, config
        except ModuleNotFoundError:
            raise ClusterError(
                "the Kubernetes client is not installed: in the repository, pip install '.[k8s]'"
            ) from None
        settings: Any = client.Configuration()
        settings.retries = 0  # report an unreachable server at once
        try:
            # The client itself reads KUBECONFIG only once, at import.
            config.load_kube_config(  # type: ignore[no-untyped-call]
                os.environ.get("KUBECONFIG") or None, target.context, settings
            )
        except config.ConfigException as error:
            if target.context is not None:
                raise ClusterError(NO_CONTEXT.format(what=target.context)) from error
            raise ClusterError(NO_CONFIG.format(what=" ".join(str(error).split()))) from error
        api = client.ApiClient(settings)
        bound(api.rest_client.pool_manager)
        self._core: Any = client.CoreV1Api(api)  # takes plain values where its types want models
        self._custom: Any = client.CustomObjectsApi(api)
        self._storage: Any = client.StorageV1Api(api)
        self._apps: Any = client.AppsV1Api(api)

    # --- init -----------------------------------------------------------------------------------------------------

    def ensure_namespace(self, manifest: Manifest) -> bool:
        """Create a namespace if it does not exist; returns whether it was created."""
        name = manifest["metadata"]["name"]
        return self._ensure(
            lambda: self._core.read_namespace(name, _request_timeout=_TIMEOUTS_S),
            lambda: self._core.create_namespace(manifest, field_manager=MANAGER, _request_timeout=_TIMEOUTS_S),
        )

    def ensure_token(self, overlay: Rendered) -> bool:
        """Create the Secret with Ray's token if it does not exist; returns whether it was created.

        An existing token is never replaced.
        """
        name, namespace = overlay.token_secret, overlay.namespace_name
        manifest = {
            "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "smoe-ray"}},
            "stringData": {TOKEN_KEY: secrets.token_hex(32)},
        }
        made = self._ensure(
            lambda: self._core.read_namespaced_secret(name, namespace, _request_timeout=_TIMEOUTS_S),
            lambda: self._core.create_namespaced_secret(
                namespace, manifest, field_manager=MANAGER, _request_timeout=_TIMEOUTS_S
            ),
        )
        if not made:
            with _explained():
                held = self._core.read_namespaced_secret(name, namespace, _request_timeout=_TIMEOUTS_S)
            if not (held.data or {}).get(TOKEN_KEY):
                raise ClusterError(
                    f"Secret {name} in {namespace}: has no key {TOKEN_KEY}; add it, or delete the Secret"
                )
        return made

    def _ensure(self, read: Callable[[], Any], create: Callable[[], Any]) -> bool:
        from kubernetes.client import ApiException

        with _explained():
            try:
                read()
                return False
            except ApiException as error:
                if error.status != 404:
                    raise
            try:
                create()
                return True
            except ApiException as error:
                if error.status != 409:  # created concurrently by another client
                    raise
                return False

    # --- apply ----------------------------------------------------------------------------------------------------

    def check_storage(self, claim: Manifest) -> None:
        """Raise ClusterError if the storage class of a new PersistentVolumeClaim is missing or not shareable.

        Checks the ReadWriteMany of classes whose provisioner is known to offer block devices only. Skipped if the user
        may not list storage classes, or if the claim exists.
        """
        from kubernetes.client import ApiException

        metadata, spec = claim["metadata"], claim["spec"]
        with _explained():
            try:
                there = self._core.list_namespaced_persistent_volume_claim(
                    metadata["namespace"], _request_timeout=_TIMEOUTS_S
                )
                classes = self._storage.list_storage_class(_request_timeout=_TIMEOUTS_S).items
            except ApiException as error:
                if error.status == 403:
                    return
                raise
        if metadata["name"] in {each.metadata.name for each in there.items}:
            return
        name = spec.get("storageClassName")
        found = [each for each in classes if (each.metadata.name == name if name else _is_default(each))]
        title = f"PersistentVolumeClaim {metadata['name']}"
        known = ", ".join(sorted(each.metadata.name for each in classes)) or "none"
        if not found:
            what = f"storage class {name} does not exist" if name else "the cluster has no default storage class"
            raise ClusterError(f"{title}: {what} (there are: {known}); set storageClassName in an overlay of your own")
        if "ReadWriteMany" in spec["accessModes"] and found[0].provisioner in _BLOCK_STORAGE:
            raise ClusterError(
                f"{title}: storage class {found[0].metadata.name} ({found[0].provisioner}) cannot be shared by several "
                "nodes (ReadWriteMany); use --overlay eks or gke, another storageClassName, or the component s3"
            )

    # --- studies --------------------------------------------------------------------------------------------------

    def active_or_next(self, namespace: str, first: str) -> tuple[str | None, int]:
        """The active RayJob, if any, and the next attempt, of the study whose first RayJob is called `first`."""
        attempts = {
            number: job
            for job in self.ray_jobs(namespace)
            if (number := attempt_of(first, job["metadata"]["name"])) is not None
        }
        for job in attempts.values():
            if not has_ended(job):
                return job["metadata"]["name"], max(attempts)
        return None, max(attempts, default=0) + 1

    def create(self, study: StudyJob) -> None:
        """Create the RayJob and its ConfigMap, which the RayJob owns. The server validates both beforehand."""
        namespace = study.job["metadata"]["namespace"]
        options: dict[str, Any] = {"field_manager": MANAGER, "_request_timeout": _TIMEOUTS_S}
        with _explained():
            self._core.create_namespaced_config_map(namespace, study.files, dry_run="All", **options)
            self._create_job(namespace, study.job, dry_run="All", field_validation="Strict", **options)
            made = self._create_job(namespace, study.job, **options)
        owner = {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "RayJob",
            "name": study.name,
            "uid": made["metadata"]["uid"],
        }
        files = {**study.files, "metadata": {**study.files["metadata"], "ownerReferences": [owner]}}
        try:
            with _explained():
                self._core.create_namespaced_config_map(namespace, files, **options)
        except ClusterError:  # without its files the pods of the RayJob would never start
            with suppress(ClusterError), _explained():
                self._custom.delete_namespaced_custom_object(_GROUP, _VERSION, namespace, "rayjobs", study.name)
            raise

    def _create_job(self, namespace: str, job: Manifest, **options: Any) -> Any:
        return self._custom.create_namespaced_custom_object(_GROUP, _VERSION, namespace, "rayjobs", job, **options)

    def stop(self, namespace: str, name: str) -> None:
        """Delete a RayJob, and with it its cluster and ConfigMap. Its results are kept."""
        self.ray_job(namespace, name)  # an error that names it
        with _explained():
            self._custom.delete_namespaced_custom_object(
                _GROUP, _VERSION, namespace, "rayjobs", name, _request_timeout=_TIMEOUTS_S
            )

    def wait(self, namespace: str, name: str, poll_s: float = 5.0) -> Manifest:
        """The RayJob `name` when it has ended: `has_ended`."""
        while True:
            job = self.ray_job(namespace, name)
            if has_ended(job):
                return job
            time.sleep(poll_s)

    # --- queries --------------------------------------------------------------------------------------------------

    def ray_job(self, namespace: str, name: str) -> Manifest:
        """The RayJob of a study by its name."""
        jobs = {job["metadata"]["name"]: job for job in self.ray_jobs(namespace)}
        if name not in jobs:
            raise ClusterError(f"{name}: no such study in {namespace}; smoe-ray k8s status lists them")
        return jobs[name]

    def require_namespace(self, namespace: str) -> None:
        """Raise ClusterError if a namespace does not exist; lists of its objects are empty then, without an error."""
        from kubernetes.client import ApiException

        with _explained():
            try:
                self._core.read_namespace(namespace, _request_timeout=_TIMEOUTS_S)
            except ApiException as error:
                if error.status == 404:
                    raise ClusterError(NO_NAMESPACE.format(what=namespace)) from error
                if error.status != 403:  # users of a single namespace may not read it
                    raise

    def ray_clusters(self, namespace: str) -> list[Manifest]:
        """The RayClusters of a namespace, by name."""
        return self._custom_objects(namespace, "rayclusters")

    def ray_jobs(self, namespace: str) -> list[Manifest]:
        """The RayJobs of studies, newest first."""
        jobs = self._custom_objects(namespace, "rayjobs", label_selector=STUDY_LABEL)
        return sorted(jobs, key=lambda job: str(job["metadata"].get("creationTimestamp")), reverse=True)

    def pods(self, namespace: str) -> list[client.V1Pod]:
        """All pods of a namespace."""
        with _explained():
            return _items(self._core.list_namespaced_pod(namespace, _request_timeout=_TIMEOUTS_S))

    def deployments(self, label_selector: str) -> list[Any]:
        """Deployments of all namespaces with a label."""
        with _explained():
            return _items(
                self._apps.list_deployment_for_all_namespaces(
                    label_selector=label_selector, _request_timeout=_TIMEOUTS_S
                )
            )

    def nodes(self) -> list[Any]:
        """All nodes."""
        with _explained():
            return _items(self._core.list_node(_request_timeout=_TIMEOUTS_S))

    def quotas(self, namespace: str) -> list[Any]:
        """The ResourceQuotas of a namespace."""
        with _explained():
            return _items(self._core.list_namespaced_resource_quota(namespace, _request_timeout=_TIMEOUTS_S))

    def has_secret(self, namespace: str, name: str) -> bool:
        """Whether a Secret exists."""
        from kubernetes.client import ApiException

        with _explained():
            try:
                self._core.read_namespaced_secret(name, namespace, _request_timeout=_TIMEOUTS_S)
            except ApiException as error:
                if error.status == 404:
                    return False
                raise
        return True

    def warnings(self, namespace: str) -> dict[str, str]:
        """The newest warning event per object: name -> reason and message. Empty if the user may not read events."""
        from kubernetes.client import ApiException

        with _explained():
            try:
                events = self._core.list_namespaced_event(
                    namespace, field_selector="type=Warning", _request_timeout=_TIMEOUTS_S
                ).items
            except ApiException as error:
                if error.status == 403:
                    return {}
                raise
        events.sort(key=lambda event: str(event.last_timestamp or event.event_time or event.first_timestamp or ""))
        return {
            event.involved_object.name: f"{event.reason}: {event.message}"
            for event in events
            if event.type == "Warning"
        }

    def _custom_objects(self, namespace: str, plural: str, **options: Any) -> list[Manifest]:
        with _explained():
            listed = self._custom.list_namespaced_custom_object(
                _GROUP, _VERSION, namespace, plural, _request_timeout=_TIMEOUTS_S, **options
            )
            return sorted(listed["items"], key=lambda each: str(each["metadata"]["name"]))


def has_ended(job: Manifest) -> bool:
    """Whether a RayJob is in a terminal state: neither active nor to be retried."""
    return job.get("status", {}).get("jobDeploymentStatus") in _ENDED


def _items(listed: Any) -> list[Any]:
    """Objects of a list, each of which has a name."""
    return sorted(listed.items, key=lambda each: str(each.metadata.name))


def _is_default(storage_class: Any) -> bool:
    annotations = storage_class.metadata.annotations or {}
    return annotations.get("storageclass.kubernetes.io/is-default-class") == "true"


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of the client into ClusterError."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise ClusterError(_said(error)) from error
    except HTTPError as error:  # unreachable, or a timeout
        pool = getattr(error, "pool", None)
        where = f"{pool.host}:{pool.port}" if pool is not None else " ".join(str(error).split())[:200]
        if reason := refusal(error):
            where = f"{where}: {reason}"
        raise ClusterError(NO_CLUSTER.format(what=where)) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # Answers of another shape, and (UnicodeError, a ValueError) names of hosts that cannot be encoded.
        raise ClusterError(NO_CLUSTER.format(what=f"{type(error).__name__} in its answer")) from error


def _said(error: client.ApiException) -> str:
    try:
        status = json.loads(error.body or "{}")
    except (ValueError, RecursionError):
        status = None
    if not isinstance(status, dict):
        status = {}
    message = " ".join(str(status.get("message") or error.reason).split())[:500]
    details = status.get("details")
    if not isinstance(details, dict):
        details = {}
    if error.status == 404 and details.get("kind") == "namespaces":
        return NO_NAMESPACE.format(what=details.get("name"))
    if error.status == 404 and not details.get("name"):  # not an object, but the kind itself
        return NO_KUBERAY.format(what=f"{_GROUP}/{_VERSION}")
    if error.status == 401 or (error.status == 403 and "cannot " in message):
        return NO_PERMISSION.format(what=message)
    if error.status == 403:  # admission: quota, Pod Security
        return f"refused by the cluster's policy: {message}"
    return f"the API server answered: {message}"
