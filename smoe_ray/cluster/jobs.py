"""Studies as jobs of a Ray cluster: submit, watch, stop, and submit again to resume.

    job = submit("studies/quickstart.yaml", "http://head:8265", "s3://bucket/results")
    job.wait()
    table = job.results()

The study and everything else that the user provides are sent as files: the command line that the cluster's shell runs
is the same for every job. Ray is imported when a cluster is first contacted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import tenacity

from smoe_ray import job_payload, plugins
from smoe_ray.cluster.job_packages import digest_of, short_names_of, stage_packages
from smoe_ray.errors import ClusterError, StudyError
from smoe_ray.inspect.status import StudyStatus, study_status
from smoe_ray.results import Store, check_place, read_results
from smoe_ray.spec import MAX_STUDY_BYTES, GridStudy, SearchStudy, dump_study, load_study, parse_study, with_roots
from smoe_ray.temporary import temporary_folder

if TYPE_CHECKING:
    import pandas as pd

    from smoe_ray.cluster.job_client import JobClient

JobState = Literal["pending", "running", "stopped", "succeeded", "failed"]

STOP_GRACE_S = 60
"""Seconds that a stopped study has to shut down before it is killed; it is resumable in either case."""

MAX_NOTE_CHARACTERS = 500

_ENTRYPOINT = "python -m smoe_ray.cluster.job_entry"
_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_POLL_S = 2.0
_OUTAGE_S = 120.0  # a busy or restarting head may not answer for a while, in which the job continues


class JobStatus(NamedTuple):
    """The state of a job, and of its study according to its results."""

    state: JobState
    message: str
    """Ray's message about the state; for a failed job the last line of its log."""
    trials: StudyStatus | None
    """None before the study has written anything."""


class ListedJob(NamedTuple):
    """A job as the cluster lists it."""

    job: Job
    state: JobState
    submitted_at: datetime
    ended_at: datetime | None

    @property
    def is_active(self) -> bool:
        """Whether the job is pending or running."""
        return _is_active(self.state)


@dataclass(frozen=True)
class Job:
    """A study on a cluster. Every method but `results` may raise ClusterError."""

    id: str
    address: str
    study: str
    out: str
    note: str = ""
    is_new: bool = True
    """False if `submit` found the study running already, and started nothing."""
    strict: bool = False
    """Whether a diverged trial fails the job; only known of a job that `submit` has just started."""

    def state(self) -> JobState:
        """The state of the job, from the cluster."""
        return _state(_connect(self.address).get_job_info(self.id))

    def status(self) -> JobStatus:
        """The state of the job, from the cluster, with its trial counts, from its results."""
        details = _connect(self.address).get_job_info(self.id)
        return JobStatus(_state(details), _last_line(details.message), study_status(self.out, self.study))

    def wait(self, timeout_s: float | None = None) -> JobState:
        """Wait until the job has ended.

        Returns:
            ``"succeeded"`` or ``"stopped"``.

        Raises:
            ClusterError: the job failed (the message has the last line of its log), or `timeout_s` is over.
        """
        state = self._end(timeout_s)
        if state == "failed":
            raise ClusterError(f"job {self.id} failed: {self.status().message}; smoe-ray logs {self.id} shows all")
        return state

    def logs(self, follow: bool = False) -> Iterator[str]:
        """The job's output in pieces: so far, or (`follow`) until it ends."""
        client = _connect(self.address)
        if follow:
            yield from client.tail(self.id)
        else:
            yield client.get_job_logs(self.id)

    def stop(self, timeout_s: float = STOP_GRACE_S + 30) -> JobState:
        """Stop the job, like Ctrl-C, and wait for its end. Results are kept; submit the study again to resume.

        Returns:
            ``"stopped"``, or the state in which the job had ended before.
        """
        _connect(self.address).stop_job(self.id)
        return self._end(timeout_s)

    def results(self) -> pd.DataFrame:
        """The table of `read_results`; also while the job runs, and without the cluster. Raises ResultsError."""
        return read_results(self.out, self.study)

    def _end(self, timeout_s: float | None) -> JobState:
        """Wait for the job's end; return its state. Retries while the head does not answer for up to `_OUTAGE_S`."""
        from smoe_ray.cluster.job_client import UnreachableError

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnreachableError),
            wait=tenacity.wait_fixed(_POLL_S),
            stop=tenacity.stop_after_delay(_OUTAGE_S),
            reraise=True,
        )
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while _is_active(state := retrying(self.state)):
            if deadline is not None and time.monotonic() > deadline:
                raise ClusterError(f"job {self.id}: still {state} after {timeout_s:g} s; look at its logs")
            time.sleep(_POLL_S)
        return state


def submit(
    study: str | Path | GridStudy | SearchStudy,
    address: str,
    out: str | Path,
    overrides: Sequence[str] = (),
    note: str = "",
    packages: Sequence[str | Path] = (),
    strict: bool = False,
) -> Job:
    """Run a study as a job of a cluster that has smoe-ray installed on every node.

    If the same study is already running there into the same OUT, nothing is started and its job is returned. If it was
    stopped, failed or has finished, it is submitted again, and trains what is missing.

    Args:
        study: a study file, or a study.
        address: the head, ``http://<head>:8265``. RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH gives the token.
        out: folder or URI of the results. A local path is made absolute here and must be the same folder on every node
            of the cluster; the same holds for each `data.root` of the study.
        overrides: as for `load_study`.
        note: free text that `list_jobs` shows.
        packages: folders with packages of plug-ins that travel with the job: `job_packages.stage_packages`. Other
            plug-ins must be installed on every node, and allowed there (`smoe_ray.plugins`). None are imported here.
        strict: a trial that diverged fails the job; by default it is a result like any other, and the log counts it.

    Raises:
        StudyError, DataError, PluginError, ResultsError: the study, a package or OUT is invalid; nothing is sent.
        ClusterError: the cluster cannot be reached, or refuses the job.
    """
    if len(note) > MAX_NOTE_CHARACTERS:
        raise StudyError(f"the note has {len(note):,} characters; {MAX_NOTE_CHARACTERS} are allowed")
    check_place(out)
    out = absolute(str(out))
    Store(out)  # raises ResultsError for a URI of an unknown protocol
    with temporary_folder("smoe-ray-job-") as folder:
        sent = stage_packages(packages, Path(folder))
        with short_names_of(folder) if sent else nullcontext():
            spec, text = _study_to_send(study, overrides)
        code = digest_of(Path(folder), sent)
        return _submit(
            Job(f"{spec.name}-{job_payload.digest(text + code, out)}", address, spec.name, out, note, strict=strict),
            text,
            sent,
            folder,
        )


def _submit(first: Job, text: str, packages: Sequence[str], folder: str) -> Job:
    """The job that runs already, else a new one."""
    client = _connect(first.address)
    attempts = {
        number: listed
        for listed in _list(client, first.address)
        if (number := job_payload.attempt_of(first.id, listed.job.id)) is not None
    }
    for listed in attempts.values():
        if listed.is_active:
            return listed.job
    last = max(attempts, default=0)
    job = first if last == 0 else replace(first, id=f"{first.id}-{last + 1}")
    return _send(client, job, text, packages, folder)


def list_jobs(address: str) -> list[ListedJob]:
    """The jobs of a cluster that run studies, newest first. Raises ClusterError."""
    return _list(_connect(address), address)


def get_job(job_id: str, address: str) -> Job:
    """A job by its id. Raises ClusterError if smoe-ray submitted no such job to the cluster."""
    if _JOB_ID.fullmatch(job_id):  # it becomes part of a URL
        for listed in list_jobs(address):
            if listed.job.id == job_id:
                return listed.job
    raise ClusterError(f"{address}: no job {job_id!r} there; smoe-ray jobs lists them")


def absolute(path: str) -> str:
    """A local path made absolute; a URI unchanged."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


# --- submission -------------------------------------------------------------------------------------------------------


def _study_to_send(
    study: str | Path | GridStudy | SearchStudy, overrides: Sequence[str]
) -> tuple[GridStudy | SearchStudy, str]:
    """The study and its YAML text, validated as `smoe-ray run` would."""
    from smoe_ray.inspect.preview import preview

    if not isinstance(study, (str, Path)):
        spec = parse_study(dump_study(study), overrides)
    else:
        spec = load_study(study, overrides)
    # A job runs in another working directory than its user.
    spec = type(spec).model_validate(with_roots(spec.model_dump(mode="json"), absolute))
    preview(spec, load_plugins=False)  # those of the cluster count
    text = dump_study(spec)
    if len(text.encode()) > MAX_STUDY_BYTES:
        raise StudyError(
            f"study {spec.name}: {len(text.encode()):,} bytes with all its defaults, more than the {MAX_STUDY_BYTES:,} "
            "that may be sent; split it"
        )
    return spec, text


def _send(client: JobClient, job: Job, study: str, packages: Sequence[str], folder: str) -> Job:
    """Send `folder`, which has the packages, with the study."""
    for name, content in job_payload.files(study, job.out, job.strict).items():
        (Path(folder) / name).write_text(content, encoding="utf-8")
    env_vars = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_GRACE_S)}
    if packages:
        env_vars[plugins.SENT_WITH_JOB] = ",".join(packages)
    try:
        client.submit_job(
            entrypoint=_ENTRYPOINT,
            submission_id=job.id,
            runtime_env={"working_dir": folder, "env_vars": env_vars},
            metadata={"smoe_ray.study": job.study, "smoe_ray.out": job.out, "smoe_ray.note": job.note},
        )
    except ClusterError:
        # Another process may have submitted the same study a moment earlier: Ray refuses an id that exists.
        for listed in _list(client, job.address):
            if listed.job.id == job.id:
                return listed.job
        raise
    return job


# --- answers of the cluster -------------------------------------------------------------------------------------------


def _connect(address: str) -> JobClient:
    from smoe_ray.cluster.job_client import JobClient

    return JobClient(address)


def _list(client: JobClient, address: str) -> list[ListedJob]:
    from smoe_ray.cluster.job_client import understood

    listed = []
    for details in client.list_jobs():
        metadata = details.metadata or {}
        if details.submission_id is None or "smoe_ray.study" not in metadata:
            continue
        with understood(address):
            job = Job(
                details.submission_id,
                address,
                metadata["smoe_ray.study"],
                metadata["smoe_ray.out"],
                metadata["smoe_ray.note"],
                is_new=False,
            )
            submitted_at = _moment(details.start_time) or datetime.now(UTC)
            listed.append(ListedJob(job, _state(details), submitted_at, _moment(details.end_time)))
    return sorted(listed, key=lambda one: one.submitted_at, reverse=True)


def _state(details: Any) -> JobState:
    return cast(JobState, details.status.value.lower())


def _is_active(state: JobState) -> bool:
    return state in ("pending", "running")


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _last_line(message: str | None) -> str:
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
