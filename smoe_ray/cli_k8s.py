"""`smoe-ray k8s …`: cluster, dashboard and studies on Kubernetes. Each command is a few calls into `k8s`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from smoe_ray.columns import COLUMNS
from smoe_ray.errors import ClusterError, SmoeRayError
from smoe_ray.terminal_output import printable, say

if TYPE_CHECKING:
    from smoe_ray.k8s.kubectl import Target

app = typer.Typer(no_args_is_help=True, help="Kubernetes: cluster, dashboard and studies (docs/kubernetes.md).")

_NAMESPACE = "smoe-ray"
_MOST_DIFF_LINES = 200

Overlay = Annotated[str, typer.Argument(metavar="OVERLAY", help="local, gpu, eks, gke, production, or your own path.")]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image", metavar="NAME=NEW", help="Image for the manifests' NAME, e.g. smoe-ray=reg/smoe-ray:1. Repeatable."
    ),
]
OwnNamespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Replaces the overlay's.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of smoe-ray.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="A RayJob, as 'submit' printed it.", show_default=False)]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig. Default: the current one.")]


@app.command(epilog="Example: smoe-ray k8s init production")
def init(overlay: Overlay = "local", namespace: OwnNamespace = None, context: Context = None) -> None:
    """Create the namespace, and in it Ray's token as a Secret. Existing objects are left unchanged."""
    from smoe_ray.k8s import manifests
    from smoe_ray.k8s.cluster import Cluster

    rendered = manifests.read(manifests.render(overlay, namespace))
    cluster = Cluster(_target(context))
    if rendered.namespace is None:
        say(f"namespace {rendered.namespace_name}: not part of the overlay")
    else:
        made = cluster.ensure_namespace(rendered.namespace)
        say(f"namespace {rendered.namespace_name}: {_made(made)}")
    made = cluster.ensure_token(rendered)
    say(f"token, Secret {rendered.token_secret}: {_made(made)}")


@app.command(epilog="Example: smoe-ray k8s render production --image smoe-ray=registry.example/smoe-ray:0.1.0")
def render(overlay: Overlay, images: Images = None, namespace: OwnNamespace = None) -> None:
    """Print an overlay as YAML. Needs no cluster."""
    from smoe_ray.k8s import manifests

    say(manifests.render(overlay, namespace, images or ()), nl=False)


@app.command(epilog="Example: smoe-ray k8s apply local")
def apply(
    overlay: Overlay,
    images: Images = None,
    namespace: OwnNamespace = None,
    context: Context = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the check and the diff.")] = False,
) -> None:
    """Validate an overlay on the server (dry run), show the diff, and apply it."""
    from smoe_ray.k8s import manifests
    from smoe_ray.k8s.cluster import Cluster

    target = _target(context)
    rendered = manifests.render(overlay, namespace, images or ())
    manifests.refuse_placeholders(rendered)
    names = manifests.rehearse(rendered, target)
    claims = [each for each in manifests.objects(rendered) if each["kind"] == "PersistentVolumeClaim"]
    if claims:
        cluster = Cluster(target)
        for claim in claims:
            cluster.check_storage(claim)
    changes = manifests.diff(rendered, target)
    if "".join(changes.values()).count("\n") <= _MOST_DIFF_LINES:
        say("".join(changes.values()), nl=False)
    else:
        say("".join(f"  {name}\n" for name in changes), nl=False)
    say(f"{len(names)} objects, all valid; {len(changes)} new or changed")
    if not dry_run and changes:
        manifests.apply(rendered, target)
        say("applied; smoe-ray k8s status shows the progress")


@app.command(epilog="Example: smoe-ray k8s submit studies/quickstart.yaml --overlay local")
def submit(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Study file (YAML).", show_default=False)],
    overlay: Annotated[str, typer.Option(help="Overlay that supplies pods, volumes and limits.")] = "local",
    out: Annotated[
        str | None, typer.Option("--out", help="Path or URI of the results, as pods see it. Default: the overlay's.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the study. Repeatable."),
    ] = None,
    mode: Annotated[
        Literal["K8sJobMode", "HTTPMode"], typer.Option(help="What submits the study to Ray: a pod, or the operator.")
    ] = "K8sJobMode",
    retries: Annotated[int, typer.Option(min=0, help="New clusters after failures; each resumes the study.")] = 2,
    ttl: Annotated[int, typer.Option(min=0, help="Seconds that the cluster is kept after the study.")] = 600,
    start_timeout: Annotated[
        int,
        typer.Option(min=1, help="Seconds after which a study that has not started fails (pending or failing pods)."),
    ] = 1800,
    strict: Annotated[
        bool, typer.Option("--strict", help="The job fails if a trial diverged. Default: its log counts them.")
    ] = False,
    queue: Annotated[
        str | None,
        typer.Option(help="LocalQueue of Kueue (0.15.2 or later) that admits the study when there is quota."),
    ] = None,
    packages: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="DIR", help="Refused: packages of plug-ins must be in the image."),
    ] = None,
    images: Images = None,
    namespace: OwnNamespace = None,
    context: Context = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the objects; needs no cluster.")] = False,
) -> None:
    """Run a study on its own ephemeral Ray cluster. To resume a study, submit it again."""
    from smoe_ray.inspect.preview import preview
    from smoe_ray.k8s import manifests
    from smoe_ray.k8s.cluster import Cluster
    from smoe_ray.k8s.rayjob import StudyJob, study_job
    from smoe_ray.planning import StudyPlan
    from smoe_ray.spec import load_study

    if packages:  # workers mount nothing but OUT, and a ConfigMap is too small for code
        raise ClusterError(
            f"--with {packages[0]}: a RayJob carries no packages; install it in an image built FROM smoe-ray "
            "(docs/kubernetes.md), and give that with --image smoe-ray=..."
        )
    spec = load_study(study, overrides or ())
    plan = StudyPlan(spec)
    place = manifests.read(manifests.render(overlay, namespace, images or ()))
    template = StudyJob(*manifests.job_template())

    def build(attempt: int) -> StudyJob:
        return study_job(
            spec,
            plan.resources,
            place,
            template,
            out=out,
            mode=mode,
            retries=retries,
            ttl_s=ttl,
            start_timeout_s=start_timeout,
            strict=strict,
            queue=queue,
            attempt=attempt,
        )

    first = build(1)
    manifests.refuse_placeholders(manifests.dump(first.job))
    preview(plan, load_plugins=False)  # those of the cluster count
    if dry_run:
        say(manifests.dump(first.files, first.job), nl=False)
        return
    cluster = Cluster(_target(context))
    running, attempt = cluster.active_or_next(place.namespace_name, first.name)
    if running:
        say(running)
        say("This study is already running, as this RayJob; nothing was started.", err=True)
        return
    made = build(attempt)
    cluster.create(made)
    say(made.name)


@app.command(epilog="Example: smoe-ray k8s status --out results")
def status(
    namespace: Namespace = _NAMESPACE,
    out: Annotated[
        str | None, typer.Option("--out", help="Local path or URI of the results. Default: the RayJob's, if a URI.")
    ] = None,
    context: Context = None,
) -> None:
    """Show clusters, studies and their progress, and why pods are pending."""
    from smoe_ray.k8s import describe
    from smoe_ray.k8s.cluster import Cluster
    from smoe_ray.k8s.rayjob import study_of

    cluster = Cluster(_target(context))
    clusters = cluster.ray_clusters(namespace)
    jobs, pods = cluster.ray_jobs(namespace), cluster.pods(namespace)
    if not (clusters or jobs or pods):
        cluster.require_namespace(namespace)
    warnings = cluster.warnings(namespace)
    say("clusters" if clusters else f"clusters: none in {namespace}")
    for each in clusters:
        say(f"  {printable(describe.cluster_line(each, warnings))}")
    say("studies" if jobs else "studies: none")
    for job in jobs:
        say(f"  {printable(describe.job_line(job))}")
        name, there = study_of(job)
        if out or "://" in there:
            say(f"    {printable(_trials(out or there, name))}")
    for pod in describe.waiting(pods, warnings):
        say(printable(f"pending: {pod.pod}: {pod.why}" + (f" [{pod.said}]" if pod.said else "")))


@app.command(epilog="Example: smoe-ray k8s doctor gke")
def doctor(overlay: Overlay = "local", namespace: OwnNamespace = None, context: Context = None) -> None:
    """Check a cluster for an overlay, one line per finding. Exit code 1 if something must be done."""
    from smoe_ray.k8s import manifests
    from smoe_ray.k8s.cluster import Cluster
    from smoe_ray.k8s.doctor import examine

    rendered = manifests.render(overlay, namespace)
    failed = 0
    for finding in examine(Cluster(_target(context)), manifests.read(rendered), rendered):
        mark = {True: "ok", False: "FAIL", None: "?"}[finding.is_ok]
        typer.secho(f"{mark:<4}  {printable(finding.text)}", fg="red" if finding.is_ok is False else None)
        failed += finding.is_ok is False
    if failed:
        raise ClusterError(f"{failed} checks failed; see above")


@app.command(epilog="Example: smoe-ray k8s logs quickstart-0123abcd --follow")
def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    namespace: Namespace = _NAMESPACE,
    context: Context = None,
) -> None:
    """Print the log of a study: that of the pod which submitted it (K8sJobMode)."""
    from smoe_ray.k8s.cluster import Cluster
    from smoe_ray.k8s.kubectl import attach

    target = _target(context)
    Cluster(target).ray_job(namespace, job)
    options = ["--follow"] if follow else []
    attach(["logs", f"--namespace={namespace}", f"--selector=job-name={job}", "--tail=-1", *options], target)


@app.command(epilog="Example: smoe-ray k8s stop quickstart-0123abcd")
def stop(job: JobName, namespace: Namespace = _NAMESPACE, context: Context = None) -> None:
    """Stop a study and delete its RayJob and cluster. Results are kept; submit the study again to resume."""
    from smoe_ray.k8s.cluster import Cluster

    Cluster(_target(context)).stop(namespace, job)
    say(f"{job}: deleted; its results are kept")


@app.command(epilog="Example: smoe-ray k8s wait quickstart-0123abcd")
def wait(job: JobName, namespace: Namespace = _NAMESPACE, context: Context = None) -> None:
    """Wait until a study has ended. Exit code 1 if it failed."""
    from smoe_ray.k8s import describe
    from smoe_ray.k8s.cluster import Cluster

    ended = Cluster(_target(context)).wait(namespace, job)
    line = printable(describe.job_line(ended))
    if ended["status"]["jobDeploymentStatus"] != "Complete":
        raise ClusterError(line)
    say(line)


@app.command(epilog="Example: smoe-ray k8s results quickstart-0123abcd --csv > quickstart.csv")
def results(
    job: JobName,
    csv: Annotated[bool, typer.Option("--csv", help="All columns, as CSV.")] = False,
    namespace: Namespace = _NAMESPACE,
    context: Context = None,
) -> None:
    """Print the table of a study, as 'smoe-ray table' in the dashboard's pod, which sees the results."""
    from smoe_ray.k8s.cluster import Cluster
    from smoe_ray.k8s.kubectl import attach
    from smoe_ray.k8s.rayjob import study_of

    target = _target(context)
    study, out = study_of(Cluster(target).ray_job(namespace, job))
    table = ["smoe-ray", "table", out, study, *(["--csv"] if csv else [])]
    attach(["exec", f"--namespace={namespace}", "deployment/smoe-ray-dashboard", "--", *table], target)


@app.command("port-forward", epilog="Example: smoe-ray k8s port-forward dashboard")
def port_forward(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="dashboard, head, or the name of a cluster from 'status'.")
    ] = "dashboard",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Local port. Default: the remote port.")] = None,
    namespace: Namespace = _NAMESPACE,
    context: Context = None,
) -> None:
    """Forward a port of this machine's loopback to the dashboard or a head. Ctrl-C ends it."""
    from smoe_ray.k8s.kubectl import attach, kubectl

    if what == "dashboard":
        service, there = "smoe-ray-dashboard", 8501
    else:
        service, there = f"{'smoe-ray' if what == 'head' else what}-head-svc", 8265
    here, target = port or there, _target(context)
    kubectl(["get", f"service/{service}", f"--namespace={namespace}", "--output=name"], target)  # says what is wrong
    say(f"http://127.0.0.1:{here}", err=True)
    forward = ["port-forward", f"--namespace={namespace}", "--address=127.0.0.1", f"service/{service}"]
    attach([*forward, f"{here}:{there}"], target)


def _target(context: str | None) -> Target:
    from smoe_ray.k8s.kubectl import Target

    return Target(context)


def _made(made: bool) -> str:
    return "created" if made else "exists, left unchanged"


def _trials(out: str, study: str) -> str:
    """Progress of a study, from its results."""
    from smoe_ray.inspect.status import study_status

    try:
        status = study_status(out, study)
    except SmoeRayError as error:
        return f"trials unknown: {error}"
    if status is None:
        return f"no results in {out} yet"
    others = {"running or interrupted": status.running, "failed": status.failed, "pruned": status.pruned}
    said = [f"{status.finished} of {status.total} trials finished", *(f"{n} {what}" for what, n in others.items() if n)]
    if status.best is not None:
        said.append(f"best {COLUMNS[status.best.metric].heading} {status.best.value:.4g}")
    return ", ".join(said)
