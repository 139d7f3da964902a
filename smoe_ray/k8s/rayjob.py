"""A study as a RayJob: an ephemeral Ray cluster with the spec of an overlay's RayCluster.

No user input reaches a shell: the job's command is the same for every study; the study and the location of its results
are files of a ConfigMap. State is in OUT, so a retry, which starts a new cluster, resumes.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from smoe_ray import job_payload
from smoe_ray.errors import ClusterError, DataError, StudyError
from smoe_ray.k8s.manifests import Manifest, Rendered
from smoe_ray.spec import MAX_STUDY_BYTES, GridStudy, ResourcesSpec, SearchStudy, dump_study, roots

SubmissionMode = Literal["K8sJobMode", "HTTPMode"]
"""What submits the study to Ray: a separate pod, or the operator. KubeRay has two more modes: InteractiveMode leaves it
to the user, and the container that SidecarMode adds to the head violates the Pod Security Standard `restricted`."""

STUDY_LABEL = "smoe-ray/study"
"""Its value is the study's name without trailing dashes, which labels must not have."""

OUT_ANNOTATION = "smoe-ray/out"

NAME_LIMIT = 47
"""Most characters of a RayJob's name; the operator appends a suffix to it."""

_ATTEMPT = 4  # "-999"
_CONFIG_MAP_BYTES = 1024 * 1024
# The operator writes it in double quotes into a shell command (the job's metadata).
_OUT = re.compile(r"(?:/|[a-z][a-z0-9+]*://)[\w./@:=+~-]*", re.ASCII)


class StudyJob(NamedTuple):
    """The objects of one study."""

    job: Manifest
    """The RayJob."""
    files: Manifest
    """The ConfigMap that it mounts."""

    @property
    def name(self) -> str:
        """Name of both objects."""
        return str(self.job["metadata"]["name"])


def study_job(
    study: GridStudy | SearchStudy,
    requests: Iterable[ResourcesSpec],
    overlay: Rendered,
    template: StudyJob,
    *,
    out: str | None = None,
    mode: SubmissionMode = "K8sJobMode",
    retries: int = 2,
    ttl_s: int = 600,
    start_timeout_s: int = 1800,
    strict: bool = False,
    queue: str | None = None,
    attempt: int = 1,
) -> StudyJob:
    """The RayJob of a study, and the ConfigMap with its files.

    The same study and OUT give the same name, which makes submission idempotent.

    Args:
        study: the study to run.
        requests: resource requests of its trials.
        overlay: supplies namespace, RayCluster and OUT.
        template: RayJob and ConfigMap to fill in (``k8s/jobs/study``).
        out: location of the results, as pods see it; replaces the overlay's.
        mode: what submits the study to Ray.
        retries: new clusters after failures; each resumes the study.
        ttl_s: seconds that the cluster is kept, for inspection, after the study has ended.
        start_timeout_s: seconds after which the RayJob fails if its cluster and job have not started.
        strict: a trial that diverged fails the job; by default it is a result like any other.
        queue: LocalQueue of Kueue that admits the RayJob.
        attempt: 2 for the second submission of the same study, and so on.

    Raises:
        StudyError: the study is too large, or requests more than the overlay's pods have.
        DataError: its data are on a path that no pod can read, or must be downloaded and the policies forbid it.
        ClusterError: OUT is invalid or cannot be reached, or a URI contains credentials.
    """
    _refuse_credentials("--out", out or overlay.out or "")
    for root in roots(study):
        _refuse_credentials("data.root", root)
    out = _checked_out(out or overlay.out, overlay)
    text = dump_study(study)
    sent = job_payload.files(text, out, strict)
    size = sum(len(content.encode()) for content in sent.values())
    if size > min(MAX_STUDY_BYTES, _CONFIG_MAP_BYTES):
        raise StudyError(
            f"study {study.name}: {size:,} bytes with all its defaults; a study may have {MAX_STUDY_BYTES:,}, and a "
            "ConfigMap holds 1 MiB: split it"
        )
    _refuse_unseen_data(study, overlay)

    names = {"name": job_name(study.name, text, out, attempt), "namespace": overlay.namespace_name}
    files = copy.deepcopy(template.files)
    files["metadata"] |= names
    files["immutable"] = True
    files["data"] = sent

    job = copy.deepcopy(template.job)
    job["metadata"] |= names
    spec = job["spec"]
    spec |= {
        "submissionMode": mode,
        "backoffLimit": retries,
        "ttlSecondsAfterFinished": ttl_s,
        "preRunningDeadlineSeconds": start_timeout_s,
        "shutdownAfterJobFinishes": True,
        "metadata": {"smoe_ray.study": study.name, "smoe_ray.out": out, "smoe_ray.note": ""},
        "rayClusterSpec": _cluster(list(requests), overlay, template, names["name"]),
    }
    if mode == "K8sJobMode":
        head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        submitter = spec["submitterPodTemplate"]["spec"]["containers"][0]
        submitter["image"] = head["image"]  # the overlay's, not the template's
    else:
        spec.pop("submitterPodTemplate", None)  # only K8sJobMode has this pod
    for each in (job, files, spec.get("submitterPodTemplate"), *_pod_templates(spec["rayClusterSpec"])):
        if each is not None:
            each.setdefault("metadata", {}).setdefault("labels", {})[STUDY_LABEL] = study.name.rstrip("-")
    job["metadata"].setdefault("annotations", {})[OUT_ANNOTATION] = out
    if queue is not None:
        spec["suspend"] = True  # until Kueue admits it
        job["metadata"].setdefault("labels", {})["kueue.x-k8s.io/queue-name"] = queue
        job["metadata"]["annotations"]["kueue.x-k8s.io/elastic-job"] = "true"  # its autoscaler may change the quota
    return StudyJob(job, files)


def job_name(study: str, text: str, out: str, attempt: int = 1) -> str:
    """A name, unique per study and OUT, of at most 47 characters, that starts with a letter."""
    stem = study if study[0].isalpha() else f"study-{study}"
    stem = stem[: NAME_LIMIT - job_payload.DIGEST_LENGTH - 1 - _ATTEMPT]
    return f"{stem}-{job_payload.digest(text, out)}" + (f"-{attempt}" if attempt > 1 else "")


def study_of(job: Manifest) -> tuple[str, str]:
    """Name of the study that a RayJob runs, and the OUT that it writes to, as pods see it."""
    metadata = job["metadata"]
    of_ray = job["spec"].get("metadata", {})
    study = of_ray.get("smoe_ray.study") or metadata["labels"][STUDY_LABEL]
    return study, of_ray.get("smoe_ray.out") or metadata.get("annotations", {}).get(OUT_ANNOTATION, "")


# --- requirements of the study ----------------------------------------------------------------------------------------


def _checked_out(out: str | None, overlay: Rendered) -> str:
    if not out:
        raise ClusterError("the overlay has no location of the results (ConfigMap, key OUT); give --out")
    if not _OUT.fullmatch(out) or ".." in out.split("/"):
        raise ClusterError(f"--out {out}: use a path or URI of letters, digits and . _ - / : @ = + ~")
    if not _leaves_the_pod(out) and not _is_below(out, _mounts(overlay)):
        raise ClusterError(
            f"--out {out}: not on a volume of the pods ({_places(overlay)}), so results would be lost with them; "
            "give a path on a volume, or a URI"
        )
    is_uri = _leaves_the_pod(out)
    if is_uri and not (overlay.out and _leaves_the_pod(overlay.out)) and not overlay.workers_have_egress:
        raise ClusterError(
            f"--out {out}: the NetworkPolicies of the overlay block object storage; add the component s3 to an overlay "
            "of your own, or give a path on a volume"
        )
    return out


def _refuse_credentials(what: str, place: str) -> None:
    """Raise ClusterError for a URI with a password, without repeating it: objects of Kubernetes are no place for it."""
    scheme, separator, rest = place.partition("://")
    if separator and "@" in rest.partition("/")[0]:
        raise ClusterError(
            f"{what} {scheme}://…@{rest.partition('@')[2]}: credentials in a URI would be readable in the RayJob; put "
            "them into the Secret smoe-ray-storage (k8s/components/s3)"
        )


def _refuse_unseen_data(study: GridStudy | SearchStudy, overlay: Rendered) -> None:
    for root in roots(study):
        if not _leaves_the_pod(root) and not _is_below(root, _mounts(overlay)):
            raise DataError(
                f"data.root {root}: no pod can read it; copy the data to a volume of the pods ({_places(overlay)}) or "
                "to a bucket, and set --set data.root=…"
            )
    if _downloads(study.model_dump(mode="json")) and not overlay.workers_have_egress:
        raise DataError(
            "data.download: the NetworkPolicies of the overlay block the internet; copy the data to a volume of the "
            f"pods ({_places(overlay)}) and set data.root, or allow egress in an overlay of your own"
        )


def _downloads(tree: Any) -> bool:
    """Whether some trial may have a `download: true` in its data; `tree` is a study as JSON values."""
    if isinstance(tree, dict):
        return any(
            (key.rpartition(".")[2] == "download" and "true" in json.dumps(value)) or _downloads(value)
            for key, value in tree.items()
        )
    return isinstance(tree, list) and any(map(_downloads, tree))


def _leaves_the_pod(place: str) -> bool:
    scheme, separator, _ = place.partition("://")
    return bool(separator) and scheme.rpartition(":")[2] not in ("file", "local", "memory")


def _places(overlay: Rendered) -> str:
    mounts = _mounts(overlay)
    return f"they have {', '.join(mounts)}" if mounts else "they have none"


def _mounts(overlay: Rendered) -> list[str]:
    """Persistent folders: where head and workers mount a PersistentVolumeClaim."""
    found: list[str] = []
    for pod in _pod_templates(overlay.cluster["spec"]):
        claims = {each["name"] for each in pod["spec"].get("volumes", ()) if "persistentVolumeClaim" in each}
        mounts = pod["spec"]["containers"][0].get("volumeMounts", ())
        found += [each["mountPath"] for each in mounts if each["name"] in claims]
    return list(dict.fromkeys(found))


def _is_below(path: str, mounts: Iterable[str]) -> bool:
    return any(path == mount or path.startswith(f"{mount.rstrip('/')}/") for mount in mounts)


def _cluster(requests: list[ResourcesSpec], overlay: Rendered, template: StudyJob, files: str) -> Manifest:
    """The overlay's RayCluster with the study mounted in its head, and with GPU workers only if trials request GPUs."""
    spec: Manifest = copy.deepcopy(overlay.cluster["spec"])
    # Of no use here: the driver dies with the head, and a retry starts another cluster.
    spec.pop("gcsFaultToleranceOptions", None)
    _mount(spec["headGroupSpec"]["template"]["spec"], template, files)
    if any(each.gpus for each in requests):
        _give_gpus(spec, max(math.ceil(each.gpus) for each in requests))
    else:  # without GPU workers no GPU node is ever started
        spec["workerGroupSpecs"] = [group for group in spec["workerGroupSpecs"] if not _gpu_limits(group)]
    for each in requests:
        if not any(_fits(each, group) for group in spec["workerGroupSpecs"]):
            raise StudyError(
                f"resources: a trial requests {each.cpus} CPUs and {each.gpus:g} GPUs per worker, more than any worker "
                "of the overlay has; lower resources of the study, or make the overlay's workers larger"
            )
        workers = each.workers if isinstance(each.workers, int) else each.workers.min
        room = sum(_room(each, group) for group in spec["workerGroupSpecs"])
        if workers > room:
            raise StudyError(
                f"resources.workers: a trial needs {workers} workers of {each.cpus} CPUs and {each.gpus:g} GPUs at "
                f"once, and the overlay has room for {room} at most; lower resources of the study, or raise "
                "maxReplicas of the overlay"
            )
    return spec


def _mount(pod: Manifest, template: StudyJob, files: str) -> None:
    """Mount ConfigMap `files` in a pod as the template's head mounts the template's ConfigMap."""
    example = template.job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    own = template.files["metadata"]["name"]
    [volume] = [each for each in example["volumes"] if each.get("configMap", {}).get("name") == own]
    [mount] = [each for each in example["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    pod.setdefault("volumes", []).append(volume | {"configMap": volume["configMap"] | {"name": files}})
    pod["containers"][0].setdefault("volumeMounts", []).append(mount)


def _give_gpus(cluster: Manifest, gpus: int) -> None:
    """Give each GPU pod as many GPUs as one worker of a trial requests."""
    groups = [group for group in cluster["workerGroupSpecs"] if _gpu_limits(group)]
    if not groups:
        raise StudyError(
            "resources.gpus: the study requests GPUs, and no worker of the overlay has any; use --overlay gpu, or set "
            "resources.gpus=0"
        )
    for group in groups:
        resources = group["template"]["spec"]["containers"][0]["resources"]
        for name, amount in _gpu_limits(group).items():
            more = str(max(gpus, int(amount)))
            resources["limits"][name] = more
            if name in resources.get("requests", {}):
                resources["requests"][name] = more


def _gpu_limits(group: Manifest) -> dict[str, Any]:
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return {name: amount for name, amount in limits.items() if name.endswith("/gpu")}


def _fits(request: ResourcesSpec, group: Manifest) -> bool:
    return _room(request, group) > 0


def _room(request: ResourcesSpec, group: Manifest) -> int:
    """Most workers of a trial that a group can hold at once, with all of its replicas."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    # KubeRay starts Ray with the limit, rounded up, unless rayStartParams sets num-cpus.
    amount = str(group.get("rayStartParams", {}).get("num-cpus") or limits["cpu"])
    cpus = math.ceil(float(amount[:-1]) / 1000) if amount.endswith("m") else float(amount)
    gpus = sum(int(amount) for amount in _gpu_limits(group).values())
    per_pod = int(cpus // request.cpus)
    if request.gpus:
        per_pod = min(per_pod, int(gpus // request.gpus))
    return int(group.get("maxReplicas", 1)) * per_pod


def _pod_templates(cluster: Manifest) -> list[Manifest]:
    return [each["template"] for each in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ()))]
