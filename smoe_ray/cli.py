"""The `smoe-ray` command. Every verb is one call into the layers below; an error prints as one line, exit code 1."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.cells import cell_len
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from smoe_ray import cli_k8s
from smoe_ray.cli_k8s import AsJson
from smoe_ray.columns import COLUMNS, TRIAL_TABLE, count, trial_table
from smoe_ray.errors import ClusterError, ResultsError, SmoeRayError, StudyError, out_of_memory
from smoe_ray.terminal_output import (
    PlainConsole,
    discard_stdout,
    keep_libraries_quiet,
    print_whatever_the_encoding,
    printable,
    say,
)

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from smoe_ray.data import Splits
    from smoe_ray.data.files import Map
    from smoe_ray.data.overview import Overview
    from smoe_ray.inspect.integrity import Scrub
    from smoe_ray.inspect.status import StudyStatus
    from smoe_ray.results import Status
    from smoe_ray.spec import DataSpec, GridStudy, SearchStudy
    from smoe_ray.study import Executor
    from smoe_ray.study.events import OnEvent
    from smoe_ray.study.probe_run import Map as MapOfProbes
    from smoe_ray.study.probe_run import ProbeOutcome

app = typer.Typer(
    name="smoe-ray",
    help="Scaling and hyperparameter studies of sparse mixture-of-experts VAEs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Any command takes --debug: on an error, show where it came from.",
)
data_app = typer.Typer(no_args_is_help=True, help="Drawings and image sets: download and inspect them.")
app.add_typer(data_app, name="data")
app.add_typer(cli_k8s.app, name="k8s")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        say(f"smoe-ray {importlib.metadata.version('smoe-ray')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # its callback prints it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself; the help text is that of `app`."""


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file (YAML).", show_default=False)]
Out = Annotated[str, typer.Argument(metavar="OUT", help="Folder or URI with the results.", show_default=False)]
StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of a study in OUT, or its YAML file.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the study, e.g. data.root=drawings. Repeatable."
    ),
]


AllowPlugins = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-plugins",
        metavar="PACKAGE",
        help="Allow plug-ins of this package, package.module or package.module:name. Repeatable. "
        "Default: those that installed packages register as entry points.",
    ),
]


@app.command(epilog="Example: smoe-ray check studies/quickstart.yaml --set training.budget='5 epochs'")
def check(
    study: StudyFile, overrides: Overrides = None, allow_plugins: AllowPlugins = None, as_json: AsJson = False
) -> None:
    """Validate a study; show its trials, parameters, FLOPs and the data it needs. Starts nothing."""
    from smoe_ray import plugins
    from smoe_ray.inspect.machine import machine_memory, note_on_memory
    from smoe_ray.inspect.preview import in_words, preview
    from smoe_ray.spec import load_study

    spec = load_study(study, overrides or ())
    with plugins.allowing(allow_plugins or ()):
        seen = preview(spec)
    memory = None if spec.base.resources.gpus else machine_memory()
    if memory and seen.memory and (note := note_on_memory(seen.memory[1], memory)):
        seen = seen._replace(notes=(*seen.notes, note))
    if as_json:
        _print_json({"study": spec.name, "kind": spec.kind, "question": spec.question, "preset": spec.preset}, seen)
    else:
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        for line in in_words(spec, seen):
            table.add_row(*line)
        PlainConsole().print(table, highlight=False, markup=False)
    seen.require_data()


Address = Annotated[
    str,
    typer.Option(
        "--address",
        envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
        help="Head of the cluster. RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH gives its token.",
    ),
]
OptionalAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
        help="Head of the cluster: also show the state of the job.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Job, as 'jobs' lists it.", show_default=False)]

OneDataset = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help="Only the trials on this dataset of the study.")
]

_LOOPBACK = "http://127.0.0.1:8265"


@app.command(epilog="Example: smoe-ray run studies/drawings.yaml --out results --jobs 2 --set data.root=drawings")
def run(
    study: StudyFile,
    out: Annotated[str, typer.Option("--out", help="Folder or URI for the results.", show_default=False)],
    executor: Annotated[Literal["ray", "local"], typer.Option(help="Where trials run.")] = "ray",
    address: Annotated[
        str | None,
        typer.Option("--address", help="A Ray cluster: auto or <host>:6379. Default: RAY_ADDRESS, or a private Ray."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Concurrent trials at most. Default: what resources allow. 0, with --executor local: trains in this "
            "process, for a debugger.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="With --executor local: auto, cpu, cuda or cuda:<n>. On ray resources.gpus decides.")
    ] = "auto",
    overrides: Overrides = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also train diverged trials again.")] = False,
    allow_plugins: AllowPlugins = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 also if a trial diverged.")] = True,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            "--log-to",
            metavar="KIND:PLACE",
            help="Follow the trials in tensorboard:DIR, mlflow:URI, wandb:PROJECT or trackio:PROJECT. Repeatable.",
        ),
    ] = None,
) -> None:
    """Run a study. Finished trials are not trained again: to resume, run the same command."""
    from smoe_ray import plugins
    from smoe_ray.inspect.preview import preview
    from smoe_ray.planning import StudyPlan
    from smoe_ray.spec import load_study
    from smoe_ray.study import refuse_failures, run_study
    from smoe_ray.study.progress import StudyProgress
    from smoe_ray.study.stop_signals import stopping_like_ctrl_c

    spec = load_study(study, overrides or ())
    plan = StudyPlan(spec)
    following = _following(log_to or (), spec)
    with stopping_like_ctrl_c(), plugins.allowing(allow_plugins or ()):
        seen = preview(plan)  # refuses what cannot run before anything is written, and so does what makes the executor
        for note in seen.notes:
            say(f"note: {note}", err=True)
        with (
            _executor(executor, spec, address, jobs, device, seen.memory) as (trains, data_jobs),
            StudyProgress(spec) as progress,
            following(progress) as on_event,
        ):
            records = run_study(plan, out, trains, data_jobs=data_jobs, retry_failed=retry_failed, on_event=on_event)
    _print_summary(_read(out, spec.name))
    diverged = refuse_failures(records, strict=strict)
    if diverged:
        say(diverged)


@contextmanager
def _executor(
    name: Literal["ray", "local"],
    study: GridStudy | SearchStudy,
    address: str | None,
    jobs: int | None,
    device: str,
    memory: tuple[int, int] | None,
) -> Iterator[tuple[Executor, int | Map]]:
    """The executor, and the workers that prepare data."""
    if name == "ray":
        from smoe_ray.cluster.ray_executor import RayExecutor

        if jobs == 0:
            raise SmoeRayError("--jobs 0: is for --executor local; give at least 1")
        if device != "auto":
            raise SmoeRayError(f"--device {device}: is for --executor local; on ray set resources.gpus of the study")
        with RayExecutor(address, jobs) as executor:
            yield executor, executor.map
        return

    from smoe_ray.study import LocalExecutor
    from smoe_ray.study.local import usable_cpus
    from smoe_ray.training.images import resolve_device

    if address is not None:
        raise SmoeRayError(f"--address {address}: is for --executor ray")
    if resolve_device(device).type == "cuda":  # whose memory is another
        yield LocalExecutor(1 if jobs is None else jobs, device), usable_cpus()
        return
    most = max(1, usable_cpus() // study.base.resources.cpus)
    yield LocalExecutor(_jobs_in_memory(jobs, most, memory), device), usable_cpus()


def _jobs_in_memory(jobs: int | None, most: int, needed: tuple[int, int] | None) -> int:
    """`jobs`, or by default as many up to `most` as this machine has memory for; says so where it has too little.

    Raises StudyError: not even one trial fits.
    """
    from smoe_ray.inspect.machine import fitting_jobs, machine_memory, note_on_memory, refuse_beyond

    memory = machine_memory()
    if memory is None or needed is None:
        return most if jobs is None else jobs
    peak = needed[1]
    refuse_beyond(peak, memory.total, "this machine")
    chosen = min(most, fitting_jobs(peak, memory.available)) if jobs is None else jobs
    if note := note_on_memory(peak, memory, max(1, chosen)):
        say(f"note: {note}", err=True)
    elif jobs is None and chosen < most:
        say(f"note: there is memory for {count(chosen, 'trial')} at once, of up to {most} by CPUs", err=True)
    return chosen


def _following(
    log_to: Sequence[str], study: GridStudy | SearchStudy
) -> Callable[[OnEvent], AbstractContextManager[OnEvent]]:
    """From a callback to one that trackers follow, too. Raises SmoeRayError: there is no such tracker."""
    if not log_to:
        return nullcontext
    from smoe_ray.export import tracker_for
    from smoe_ray.study.live_log import LiveLog

    return partial(LiveLog, [tracker_for(to, study) for to in log_to])


@app.command(epilog="Example: smoe-ray probe results drawings --jobs 2")
def probe(
    out: Out,
    study: StudyName,
    trial: Annotated[str | None, typer.Option("--trial", metavar="ID", help="Only this trial.")] = None,
    executor: Annotated[Literal["ray", "local"], typer.Option(help="Where trials are probed.")] = "ray",
    address: Annotated[
        str | None,
        typer.Option("--address", help="A Ray cluster: auto or <host>:6379. Default: RAY_ADDRESS, or a private Ray."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trials at a time at most. Default: one per CPU.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also measure again what is measured.")] = False,
    export_to: Annotated[
        str | None,
        typer.Option("--export", metavar="DIR", help="Also write each expert's numbers (JSON) and images (PNG) there."),
    ] = None,
    allow_plugins: AllowPlugins = None,
) -> None:
    """Measure what the experts of finished trials encode, beside the trials. To resume, run the same command."""
    from smoe_ray import plugins
    from smoe_ray.results import Store
    from smoe_ray.study.probe_run import plan_probes, probe_trial
    from smoe_ray.study.stop_signals import stopping_like_ctrl_c

    folder = None
    if export_to is not None:  # before what takes minutes
        folder = _local_folder(export_to, "--export")
        Store(folder).refuse_file("--export needs a folder")
    plan = plan_probes(out, _study_name(study), trial, force=force)
    for trial_id, reason in plan.left_out.items():
        say(f"left out: {trial_id} {reason}", err=True)
    if plan.current:
        say(f"{count(len(plan.current), 'trial')} probed before; --force measures them again")
    errors = 0
    with stopping_like_ctrl_c(), plugins.allowing(allow_plugins or ()):
        try:
            for outcome in _map_of(executor, address, jobs)(probe_trial, plan.tasks) if plan.tasks else ():
                errors += outcome.error is not None
                _print_probed(outcome)
        except KeyboardInterrupt:
            say("Interrupted. What was probed is kept: run the same command again to go on.", err=True)
            raise
    if folder is not None:
        _export_probes(out, study, trial, folder)
    if errors:
        raise ResultsError(f"{count(errors, 'trial')} of {len(plan.tasks)} could not be probed; see above")


def _export_probes(out: str, study: str, trial: str | None, folder: Path) -> None:
    from smoe_ray.report.encoding_export import export_encodings
    from smoe_ray.report.evidence import Evidence

    evidence = Evidence(out, [study])
    records = [record for record in evidence.probed() if trial in (None, record.trial_id)]
    for place in export_encodings(out, records, evidence.arm_of(), folder):
        say(place)


def _print_probed(outcome: ProbeOutcome) -> None:
    if outcome.error is not None:
        say(f"not probed: {outcome.trial_id}: {outcome.error}", err=True)
        return
    note = "" if outcome.note is None else f", {outcome.note}"
    say(f"{outcome.trial_id} probed in {outcome.seconds:.0f} s{note}")


def _map_of(name: Literal["ray", "local"], address: str | None, jobs: int | None) -> MapOfProbes:
    if name == "ray":
        from smoe_ray.cluster.ray_executor import RayExecutor

        return RayExecutor(address, jobs).map
    from smoe_ray.study import LocalExecutor
    from smoe_ray.study.local import usable_cpus

    if address is not None:
        raise SmoeRayError(f"--address {address}: is for --executor ray")
    return LocalExecutor(jobs or usable_cpus(), "cpu").map


@app.command(epilog="Example: smoe-ray table results quickstart --csv > quickstart.csv")
def table(
    out: Out,
    study: StudyName,
    csv: Annotated[bool, typer.Option("--csv", help="All columns, as CSV; a list is one cell of JSON text.")] = False,
    bom: Annotated[
        bool, typer.Option("--bom", help="With --csv: UTF-8 with a byte order mark, by which Excel knows it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="All columns, as JSON: a list with an object per row.")
    ] = False,
    epochs: Annotated[bool, typer.Option("--epochs", help="One row per epoch instead of one per trial.")] = False,
    dataset: OneDataset = None,
) -> None:
    """Print the results: one row per trial, at its last epoch."""
    from smoe_ray.analysis.summary import trial_summary
    from smoe_ray.results import to_csv

    if csv and as_json:
        raise SmoeRayError("--csv and --json exclude one another")
    if bom and not csv:
        raise SmoeRayError("--bom: is for --csv")
    results = _of_dataset(_read(out, _study_name(study)), dataset)
    if not csv and not as_json:
        _print_summary(results, epochs)
        return
    frame = results if epochs else trial_summary(results)
    if csv:
        _write_csv(to_csv(frame), bom)
    else:
        _print_json(frame)


class _FigureCommand(typer.core.TyperCommand):
    """Its help lists the kinds of figures, which are imported only for the help text."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from smoe_ray.figures import FIGURES

        kinds = "\n".join(f"- {name}: {kind.description}" for name, kind in FIGURES.items())
        self.help = f"{self.help}\n\nKinds:\n\n{kinds}"
        super().format_help(ctx, formatter)


@app.command(
    cls=_FigureCommand, epilog="Example: smoe-ray figure results quickstart --kind training_curves --to figures"
)
def figure(
    out: Out,
    study: StudyName,
    to: Annotated[str, typer.Option("--to", help="Folder for the figures, on this machine.", show_default=False)],
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of figure; repeatable. Default: every kind that the results support.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="STUDY", help="Add another study of OUT to each figure, e.g. the baseline."),
    ] = None,
    dataset: OneDataset = None,
    as_json: AsJson = False,
) -> None:
    """Draw figures of a study as SVG and PNG."""
    from smoe_ray.figures import FIGURES, save
    from smoe_ray.results import read_together
    from smoe_ray.spec.messages import nearest

    for name in kind or ():
        if name not in FIGURES:
            raise SmoeRayError(f"--kind {name}: none of {', '.join(FIGURES)}{nearest(name, FIGURES)}")
    folder = _local_folder(to)
    name = _study_name(study)
    others = [_study_name(other) for other in beside or ()]
    results = read_together(out, [name, *others], skip_broken=True)
    _tell(results.attrs["problems"], results.attrs["notices"])
    results = _of_dataset(results, dataset)
    drawn: dict[str, list[Path]] = {}
    reasons: dict[str, str] = {}
    info = cache(lambda make: make(results))  # several kinds draw the same fit
    for wanted in kind or FIGURES:
        try:
            made = FIGURES[wanted].plot(info(FIGURES[wanted].info))
        except ResultsError as error:
            if kind:
                raise
            reasons[wanted] = str(error)
            continue
        drawn[wanted] = save(made, folder, f"{name}-{wanted.replace('_', '-')}")
        for path in drawn[wanted] if not as_json else ():
            say(path)
    if as_json:
        _print_json({"drawn": drawn, "not_drawn": reasons})
    for kind_left_out, reason in reasons.items() if not as_json else ():
        say(f"not drawn: {kind_left_out}: {reason}", err=True)
    if not drawn:
        raise ResultsError(f"no figure could be drawn of study '{name}'; see above")


@app.command(epilog="Example: smoe-ray report results drawings --to report --compare published")
def report(
    out: Out,
    to: Annotated[str, typer.Option("--to", help="Folder or URI for the report.", show_default=False)],
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]...", help="Studies in OUT, or their YAML files. Default: all, as one table."),
    ] = None,
    compare: Annotated[
        Literal["published"] | None,
        typer.Option(help="Add the results of arXiv:2509.10025 in a separate section."),
    ] = None,
    dataset: OneDataset = None,
) -> None:
    """Write one self-contained HTML page about studies, with its figures (SVG, PDF) and tables (CSV) as files."""
    from smoe_ray.report import write_report

    names = [_study_name(study) for study in studies or ()]
    say(write_report(out, names, to, compare, lambda line: say(line, err=True), dataset))


class _ExportCommand(typer.core.TyperCommand):
    """Its help lists the kinds of exports."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from smoe_ray.export import KINDS

        kinds = "\n".join(f"- {name}: {kind.description}" for name, kind in KINDS.items())
        self.help = f"{self.help}\n\nKinds:\n\n{kinds}"
        super().format_help(ctx, formatter)


@app.command(cls=_ExportCommand, epilog="Example: smoe-ray export results quickstart --to tensorboard exported")
def export(
    out: Out,
    study: StudyName,
    to: Annotated[
        str, typer.Option("--to", help="Kind of export; with --model the model's folder.", show_default=False)
    ],
    folder: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="Folder for the export of a study, on this machine.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="TRIAL", help="Export this trial's model instead of the study.")
    ] = None,
) -> None:
    """Write a study for another tool, or a trial's model as a folder that SMoEVAE.from_pretrained loads."""
    from smoe_ray.export import export_model, export_study

    name = _study_name(study)
    if model is not None:
        if folder is not None:
            raise SmoeRayError(f"{folder}: with --model give the folder once, as --to DIR")
        say(export_model(out, name, model, _local_folder(to)))
        return
    if folder is None:
        raise SmoeRayError(f"--to {to}: give a folder for it: smoe-ray export {out} {study} --to {to} DIR")
    made = export_study(out, name, to, _local_folder(folder))
    _tell(made.problems, made.notices)
    say(made.path)


@app.command(epilog="Example: smoe-ray import-checkpoint vae_moe_model_final.pth released.yaml --out results")
def import_checkpoint(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Checkpoint (.pth) of the paper's released code.", show_default=False),
    ],
    study: Annotated[
        Path,
        typer.Argument(metavar="STUDY", help="Study file: the checkpoint's model, and the data.", show_default=False),
    ],
    out: Annotated[str, typer.Option("--out", help="Folder or URI for the results.", show_default=False)],
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the study that this one is. Default: its first.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    overrides: Overrides = None,
) -> None:
    """Measure a checkpoint of the paper's released code as a finished trial, which every other verb takes."""
    from smoe_ray.inspect.preview import preview
    from smoe_ray.spec import load_study
    from smoe_ray.study.importing import import_checkpoint as import_released
    from smoe_ray.study.local import usable_cpus
    from smoe_ray.study.progress import StudyProgress
    from smoe_ray.study.stop_signals import stopping_like_ctrl_c

    spec = load_study(study, overrides or ())
    preview(spec)  # refuses what cannot be
    with stopping_like_ctrl_c(), StudyProgress(spec) as progress:
        import_released(file, spec, out, seed=seed, device=device, data_jobs=usable_cpus(), on_event=progress)
    _print_summary(_read(out, spec.name))


@app.command(epilog="Example: smoe-ray recommend results loss-surface --samples 50000")
def recommend(
    out: Out,
    study: StudyName,
    samples: Annotated[
        float | None, typer.Option(help="Number of training images. Default: the largest in the study.")
    ] = None,
    steps: Annotated[float | None, typer.Option(help="Number of optimizer steps, in place of --samples.")] = None,
    experts: Annotated[Literal["active", "configured"], typer.Option(help="Experts to count.")] = "active",
    dataset: OneDataset = None,
    as_json: AsJson = False,
) -> None:
    """Recommend a number of experts for an amount of training, or say which runs are missing to tell."""
    from smoe_ray.analysis import recommend as recommend_experts

    results = _of_dataset(_read(out, _study_name(study)), dataset)
    found = recommend_experts(results, samples, steps, experts)
    if as_json:
        _print_json(found)
        return
    say(found.sentence)
    for arm in found.arms:
        if arm.surface is not None:
            say(f"\n{arm.label}" if len(found.arms) > 1 else "")
            if arm.answer is not None:
                _print_frame(arm.table.rename(columns={"loss": "fitted_loss"}), _RECOMMENDED)
            for line in arm.evidence:
                say(line)


@app.command(epilog="Example: smoe-ray submit studies/drawings.yaml --address http://head:8265 --out s3://bucket/out")
def submit(
    study: StudyFile,
    out: Annotated[str, typer.Option("--out", help="URI or shared folder for the results, the same on every node.")],
    address: Address = _LOOPBACK,
    overrides: Overrides = None,
    note: Annotated[str, typer.Option(help="Free text that 'jobs' shows.")] = "",
    packages: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="DIR",
            help="Send the plug-in packages of this folder. Repeatable. Default: as installed on the nodes.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Print its output while waiting.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="The job fails if a trial diverged. Default: its log counts them.")
    ] = False,
) -> None:
    """Run a study as a job of a Ray cluster. To resume one that was stopped, submit it again."""
    from smoe_ray.cluster import jobs

    job = jobs.submit(study, address, out, overrides or (), note, packages or (), strict=strict)
    say(job.id)
    if not job.is_new:
        say("This study runs already, as this job; nothing was started.", err=True)
    elif "://" not in job.out:
        say(f"Every node of the cluster must see {job.out} as one shared folder.", err=True)
    if follow:
        for piece in job.logs(follow=True):
            say(piece, nl=False)
    if (wait or follow) and (state := job.wait()) != "succeeded":
        raise ClusterError(f"job {job.id} was {state}; to go on, submit the study again")


@app.command("jobs", epilog="Example: smoe-ray jobs --address http://head:8265")
def list_jobs(address: Address = _LOOPBACK, as_json: AsJson = False) -> None:
    """List the studies that were submitted to a cluster, newest first."""
    from smoe_ray.cluster import jobs

    if as_json:
        _print_json(jobs.list_jobs(address))
        return
    shown = Table("job", "state", "submitted", "out", "note", header_style="bold", box=None, pad_edge=False)
    shown.columns[0].no_wrap = shown.columns[2].no_wrap = True
    for job, state, submitted_at, _ in jobs.list_jobs(address):
        shown.add_row(job.id, state, _local_time(submitted_at), printable(job.out), printable(job.note))
    _print_wide(shown)


@app.command(epilog="Example: smoe-ray status quickstart --out s3://bucket/out")
def status(
    name: Annotated[
        str, typer.Argument(metavar="JOB|STUDY", help="A job; with --out a study or its file.", show_default=False)
    ],
    out: Annotated[str | None, typer.Option("--out", help="Read the results alone; needs no cluster.")] = None,
    address: OptionalAddress = None,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a study: trials by status, the best so far, the time of the last update."""
    if out is None:
        from smoe_ray.cluster import jobs

        job = jobs.get_job(name, address or _LOOPBACK)
        name, out = job.study, job.out
        state: str | None = job.state()
    else:
        name = _study_name(name)
        state = _job_state(address, name, out) if address else None
    from smoe_ray.inspect.status import study_status

    try:
        trials = study_status(out, name)
    except StudyError as error:
        _print_counts(name, out, error, state, as_json)
        return
    if trials is not None:
        if as_json:
            _print_json({"out": out, "job": state}, trials)
        else:
            _print_status(trials, out, state)
        _tell(trials.problems, trials.notices)
    elif state is not None:
        if as_json:
            _print_json(_unplanned(name, out, state, Counter()))
        else:
            say(f"{name} in {printable(out)}\n  job        {state}\n  trials     none has started yet")
    else:
        _read(out, name)  # it says what is there instead


@app.command(epilog="Example: smoe-ray logs quickstart-0123abcd --follow")
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow until the job ends.")] = False,
    address: Address = _LOOPBACK,
) -> None:
    """Print what a job has printed."""
    from smoe_ray.cluster import jobs

    for piece in jobs.get_job(job, address).logs(follow):
        say(piece, nl=False)


@app.command(epilog="Example: smoe-ray stop quickstart-0123abcd")
def stop(job: JobId, address: Address = _LOOPBACK) -> None:
    """Stop a job, as Ctrl-C would: what was trained is kept, and submitting the study again resumes it."""
    from smoe_ray.cluster import jobs

    say(f"{job}: {jobs.get_job(job, address).stop()}")


@app.command(epilog="Example: smoe-ray verify results quickstart --repair")
def verify(
    out: Out,
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]", help="Study in OUT, or its YAML file. Default: all, and OUT's prepared data."
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damaged trials aside, so that the next run trains them again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of the results and compare it with its checksum. Exits with 1 if damage remains."""
    from smoe_ray.inspect.integrity import scrub

    found = scrub(out, None if study is None else [_study_name(study)], repair=repair)
    if as_json:
        _print_json(found)
    else:
        _print_scrub(found)
    if found.problems:
        raise ResultsError(f"{out}: {count(len(found.problems), 'damaged file')}; see above")


def _print_scrub(found: Scrub) -> None:
    for line in found.repaired:
        say(f"set aside: {' '.join(line.split())}")
    for line in found.problems:
        say(f"damaged: {' '.join(line.split())}")
    counts = found.counts
    what = f"{count(counts['studies'], 'study', 'studies')}, {count(counts['trials'], 'trial')}"
    say(f"read {what}, {count(counts['files'], 'file')}, {counts['bytes'] / 1e6:,.1f} MB")
    if counts["set aside"]:
        say(f"{count(counts['set aside'], 'damaged trial')} of earlier times kept aside")


@app.command(epilog="Example: smoe-ray dashboard results --port 8501")
def dashboard(
    out: Out,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Beyond this machine only with --auth or --insecure.")
    ] = "127.0.0.1",
    address: Annotated[
        str | None,
        typer.Option("--address", help="Head of a Ray cluster: adds a page that submits studies to it."),
    ] = None,
    auth: Annotated[
        bool,
        typer.Option(
            "--auth",
            help="Require a log-in: by the token in SMOE_RAY_DASHBOARD_TOKEN, or by a new one, which is printed.",
        ),
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in who reaches --host, without a log-in.")
    ] = False,
    annotate: Annotated[
        bool,
        typer.Option(
            "--annotate",
            help="Let readers note tags, stars and words on studies and trials, in annotations.json of each.",
        ),
    ] = False,
) -> None:
    """Browse the results in a web browser, while studies run. Writes nothing in OUT, except notes with --annotate."""
    from smoe_ray_dashboard.serve import serve

    serve(out, port, host, address, auth=auth, insecure=insecure, annotate=annotate)


@data_app.command(epilog="Example: smoe-ray data fetch cat face --to drawings")
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Quick, Draw! categories, e.g. 'The Eiffel Tower'; sets: mnist, fashion_mnist, kmnist, emnist, "
            "cifar10, cifar100, svhn, medmnist/pathmnist ...; or study files (.yaml), whose data are fetched.",
            show_default=False,
        ),
    ],
    to: Annotated[str | None, typer.Option("--to", help="Folder. Default: the download cache.")] = None,
    layout: Annotated[
        Literal["sketchrnn", "bitmap", "ndjson"],
        typer.Option(help="Of categories: vector drawings (.npz), 28x28 bitmaps (.npy), simplified ones (.ndjson)."),
    ] = "sketchrnn",
) -> None:
    """Download Quick, Draw! categories and published image sets. Resumes; checks sizes and checksums."""
    from smoe_ray.data.fetching import data_to_fetch, fetch_data
    from smoe_ray.inspect.preview import data_settings
    from smoe_ray.planning import StudyPlan
    from smoe_ray.spec import load_study

    folder = None if to is None else _local_folder(to)
    wanted: list[DataSpec] = []
    for name in names:
        if name.endswith((".yaml", ".yml")):
            wanted += data_settings(StudyPlan(load_study(name)))
        else:
            wanted.append(data_to_fetch(name, layout))
    with _bars(DownloadColumn(), TransferSpeedColumn()) as progress:
        files = dict.fromkeys(file for data in wanted for file in fetch_data(data, folder, progress))
    for file in files:
        say(file)
    if not files:
        say("nothing to fetch: the data are generated, or are to be where data.root says")


@data_app.command(epilog="Example: smoe-ray data info studies/drawings.yaml --set data.root=drawings --to sheets")
def info(
    study: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY",
            help="Study file, or data alone: a YAML file with the keys of data, a folder of images, or an .npz.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Contact sheet: a .png, or a folder for one of each data setting.")
    ] = None,
    allow_plugins: AllowPlugins = None,
    as_json: AsJson = False,
) -> None:
    """Read (or draw) the data of a study: shape, classes, counts, values, what is probably wrong, a contact sheet."""
    from smoe_ray import plugins
    from smoe_ray.data import cache_folder, load_splits
    from smoe_ray.data.overview import headings, overview
    from smoe_ray.inspect.preview import data_settings
    from smoe_ray.planning import StudyPlan
    from smoe_ray.spec import load_data_study
    from smoe_ray.study.local import usable_cpus

    spec = load_data_study(study, overrides or ())
    with plugins.allowing(allow_plugins or ()):
        settings = data_settings(StudyPlan(spec))
        documents: list[dict[str, Any]] = []
        sheets = [None] * len(settings) if to is None else _sheet_files(to, spec.name, len(settings))
        for number, (data, heading, sheet) in enumerate(zip(settings, headings(settings), sheets, strict=True)):
            with _bars() as progress:
                splits = load_splits(data, cache_folder() / "data", usable_cpus(), progress)
            seen = overview(splits)
            if as_json:
                documents.append(_data_document(heading, splits, seen, sheet))
            else:
                if number:
                    say()
                _show_data(heading, splits, seen)
            if sheet is not None:
                from smoe_ray.figures.contact_sheet import contact_sheet

                _write(sheet, contact_sheet(splits, heading, f"{seen.shape}, {_in_all(splits)}"))
                if not as_json:
                    say(f"contact sheet: {sheet}")
    if as_json:
        _print_json(documents)


def _data_document(heading: str, splits: Splits, seen: Overview, sheet: Path | None) -> dict[str, Any]:
    """What `_show_data` shows, for programs."""
    named = {"notes": splits.notes, "styles": splits.style_names, "contact_sheet": sheet}
    facts = {"data": heading, "fingerprint": splits.fingerprint, "classes": splits.class_names}
    of_classes = {"train": seen.train_C, "test": seen.test_C}
    images = {"shape": splits.train.image_shape, "low": seen.low, "high": seen.high, "mean": seen.mean}
    return {**facts, **of_classes, **images, "background": seen.background, "warnings": seen.warnings, **named}


def _show_data(heading: str, splits: Splits, seen: Overview) -> None:
    say(printable(heading))
    background = f", mostly on a {seen.background} background" if seen.background else ""
    say(f"images: {seen.shape}, values from {seen.low} to {seen.high}{background}")
    shown = Table("class", "train", "test")
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, train, test in zip(splits.class_names, seen.train_C, seen.test_C, strict=True):
        shown.add_row(Text(name), f"{train:,}", f"{test:,}")
    shown.add_section()
    shown.add_row("in all", f"{len(splits.train):,}", f"{len(splits.test):,}", style="bold")
    shown.add_row("mean pixel", *(f"{mean:.3f}" for mean in seen.mean), style="dim")
    PlainConsole().print(shown)
    say(f"fingerprint: {splits.fingerprint[:12]}")
    if splits.style_names:
        say(f"styles: {', '.join(splits.style_names)}")
    for note in splits.notes:
        say(f"note: {note}")
    for warning in seen.warnings:
        say(f"warning: {warning}")


def _in_all(splits: Splits) -> str:
    classes = count(len(splits.class_names), "class", "classes")
    return f"{classes}, {count(len(splits.train), 'training image')} + {count(len(splits.test), 'test image')}"


def _sheet_files(to: str, name: str, number: int) -> list[Path]:
    """Where the contact sheet of each data setting is written."""
    place = _local_folder(to)
    if place.suffix.lower() != ".png" or place.is_dir():
        return [place / (f"{name}-data.png" if n == 0 else f"{name}-data-{n + 1}.png") for n in range(number)]
    if number > 1:
        raise SmoeRayError(f"--to {to}: the study has {number} data settings; give a folder, for a sheet of each")
    return [place]


def _write(file: Path, content: bytes) -> None:
    from smoe_ray.atomic_write import write_whole

    try:
        write_whole(file, content)
    except OSError as error:
        raise SmoeRayError(f"{file}: cannot be written: {error.strerror}; choose another place") from None


def main() -> None:
    """Run a verb; print a `SmoeRayError` as one line and exit with 1."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    print_whatever_the_encoding()
    try:
        try:
            app(arguments, prog_name="smoe-ray")
        finally:
            sys.stdout.flush()  # now, while it can still be told that the disk behind it is full
    except SmoeRayError as error:  # typer itself ends on Ctrl-C (130) and on a closed pipe
        _fail(error, debug)
    except (MemoryError, RuntimeError) as error:  # RuntimeError: torch's, on a CPU
        problem = out_of_memory(error)
        if problem is None:
            raise
        _fail(SmoeRayError(problem), debug)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE):
            raise
        discard_stdout()
        if error.errno == errno.EPIPE:  # its reader has seen enough
            sys.exit(1)
        _fail(SmoeRayError(f"the output cannot be written: {error.strerror}; make room, or send it elsewhere"), debug)


def program() -> None:
    """Entry point: `main`, in a process of its own."""
    if "--debug" not in sys.argv and not sys.warnoptions:
        keep_libraries_quiet()
    try:
        main()
    except SystemExit as end:
        if "ray" not in sys.modules:
            raise
        from smoe_ray.cluster.runtime import leave

        leave(end.code if isinstance(end.code, int) else int(end.code is not None))


def _fail(error: SmoeRayError, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    else:
        say(f"smoe-ray: {' '.join(str(error).split())}", err=True)
    sys.exit(1)


def _local_folder(to: str, option: str = "--to") -> Path:
    """A folder of this machine. Raises SmoeRayError for a URI, and for what would be no place for results either."""
    from smoe_ray.results import check_place

    check_place(to)
    if "://" in to:
        raise SmoeRayError(f"{option} {to}: give a folder of this machine; copy from there to a URI")
    return Path(to).expanduser()


def _study_name(study: str) -> str:
    """The name of a study in OUT, or that in its YAML file (which may lack what `--set` gave it when it was run)."""
    if not study.endswith((".yaml", ".yml")):
        return study
    from smoe_ray.spec import read_name

    return read_name(study)


def _read(out: str, study: str) -> pd.DataFrame:
    """The table of a study without trials of unreadable files, which are told."""
    from smoe_ray.results import read_results

    results = read_results(out, study, skip_broken=True)
    _tell(results.attrs["problems"], results.attrs["notices"])
    return results


_MOST_PROBLEMS = 10
"""Lines about unreadable files; more are counted instead."""


def _tell(problems: Sequence[str], notices: Sequence[str]) -> None:
    for notice in notices[:_MOST_PROBLEMS]:
        say(f"note: {' '.join(notice.split())}", err=True)
    if len(notices) > _MOST_PROBLEMS:
        say(f"note: {len(notices) - _MOST_PROBLEMS:,} more", err=True)
    for problem in problems[:_MOST_PROBLEMS]:
        say(f"left out: {' '.join(problem.split())}", err=True)
    if len(problems) > _MOST_PROBLEMS:
        say(f"left out: {count(len(problems) - _MOST_PROBLEMS, 'more trial')} with unreadable files", err=True)


_RECOMMENDED = ("experts", "fitted_loss", "low", "high", "above_best", "tied", "chance", "gaussian_process", "runs")

_WIDTH_IN_A_FILE = 200
"""Columns of text when there is no terminal to ask."""

_LEAST_LABEL = 18
"""Columns of text that the label of an arm keeps, on more lines, where others would else be left out."""


def _print_summary(results: pd.DataFrame, epochs: bool = False) -> None:
    """The trials at their last epoch, or all their epochs, and what to beware of in these numbers."""
    from smoe_ray.analysis.outcomes import comparable_metric, families, loss_unit
    from smoe_ray.analysis.summary import epoch_summary, trial_summary

    columns = trial_table(families(results))
    is_mixed = comparable_metric(results) == "test.psnr"
    if is_mixed:
        columns.remove("test.psnr")
        columns.insert(columns.index("test.reconstruction"), "test.psnr")
    _print_frame(epoch_summary(results) if epochs else trial_summary(results), columns)
    if is_mixed:
        say(f"losses have different units, {loss_unit(results)}: compare the PSNR (dB)", err=True)
    _warn_of_collapse(results)


def _warn_of_collapse(results: pd.DataFrame) -> None:
    from smoe_ray.analysis.posterior import posterior_warning

    if warning := posterior_warning(results):
        say(f"warning: {warning}", err=True)


def _job_state(address: str, study: str, out: str) -> str:
    """State of the newest job that ran `study` into `out`, in words; one that cannot be known is no error here."""
    from smoe_ray.cluster import jobs

    place = jobs.absolute(out)
    try:
        for listed in jobs.list_jobs(address):
            if (listed.job.study, listed.job.out) == (study, place):
                return f"{listed.state} ({listed.job.id})"
    except ClusterError as error:
        return f"unknown: {error}"
    return f"none on {address}"


def _of_dataset(results: pd.DataFrame, name: str | None) -> pd.DataFrame:
    from smoe_ray.analysis import of_dataset

    return results if name is None else of_dataset(results, name)


def _print_status(status: StudyStatus, out: str, job: str | None) -> None:
    unended = "running" if job and job.startswith(("pending", "running")) else "running or interrupted"
    counts = {unended: status.running, "failed": status.failed, "pruned": status.pruned}
    trials = [f"{status.finished} of {status.total} finished", *(f"{n} {what}" for what, n in counts.items() if n)]
    lines = {"job": job, "trials": ", ".join(trials)}
    if status.best is not None:
        lines["best"] = f"{COLUMNS[status.best.metric].heading} {status.best.value:.4g} (trial {status.best.trial_id})"
    if status.updated_at is not None:
        lines["updated"] = _local_time(status.updated_at)
    say(f"{status.study} in {printable(out)}")
    for what, said in lines.items():
        if said is not None:
            say(f"  {what:<10} {said}")


def _write_csv(text: str, with_bom: bool) -> None:
    if with_bom:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        text = "\N{ZERO WIDTH NO-BREAK SPACE}" + text
    sys.stdout.write(text) if not sys.stdout.isatty() else say(text, nl=False)


def _print_json(*parts: Any) -> None:
    """Print one document: a single part, or an object with the fields of all."""
    from smoe_ray.results import as_json, to_json

    sys.stdout.write(
        to_json(parts[0] if len(parts) == 1 else {k: v for part in parts for k, v in as_json(part).items()})
    )


def _unplanned(study: str, out: str, job: str | None, ends: Counter[Status]) -> dict[str, Any]:
    """`StudyStatus` for programs where it is not known how many trials are planned, and which is the best."""
    unknown: dict[str, Any] = {"total": None, "best": None, "updated_at": None, "problems": [], "notices": []}
    counts = {status: ends[status] for status in ("finished", "running", "failed", "pruned")}
    return {"out": out, "job": job, "study": study, **counts, **unknown}


def _print_counts(study: str, out: str, error: StudyError, job: str | None, as_json: bool) -> None:
    """Status of a study whose study.yaml cannot be read: its trials, without how many are planned."""
    from smoe_ray.results import read_trials

    ends = Counter(record.status for record in read_trials(out, study, skip_broken=True))
    if as_json:
        _print_json(_unplanned(study, out, job, ends))
    else:
        trials = ", ".join(f"{number} {status}" for status, number in sorted(ends.items())) or "none has started yet"
        say(f"{study} in {printable(out)}\n  trials     {trials}")
    say(f"left out: {error}; copy it again, or run the study again, which writes it", err=True)


def _local_time(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _print_frame(frame: pd.DataFrame, names: Sequence[str] = TRIAL_TABLE) -> None:
    """Print columns of a frame as a table, without those on the right for which the terminal is too narrow."""
    import pandas as pd

    columns = [COLUMNS[name] for name in names if name in frame.columns]
    text_of = {
        column.name: ["" if pd.isna(value) else column.number_format.format(value) for value in frame[column.name]]
        for column in columns
    }
    width_of = {column.name: max(map(cell_len, [column.heading, *text_of[column.name]])) for column in columns}
    wraps = {name: min(width, _LEAST_LABEL) if name == "arm" else width for name, width in width_of.items()}
    width, shown = _output_width(), list(columns)
    while len(shown) > 1 and sum(wraps[column.name] + 2 for column in shown) - 2 > width:
        shown.pop()
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in shown:
        justify: Literal["left", "right"] = "left" if column.is_text else "right"
        table.add_column(column.heading, justify=justify, no_wrap=column.name != "arm")
    for row in zip(*(text_of[column.name] for column in shown), strict=True):
        table.add_row(*row)
    _print_wide(table)
    if left_out := [column.heading for column in columns[len(shown) :]]:
        say(f"not shown in {width} columns of text: {', '.join(left_out)}", err=True)


def _print_wide(shown: Table) -> None:
    PlainConsole(width=_output_width()).print(shown, highlight=False, markup=False)


def _output_width() -> int:
    """Columns of text that standard output takes. FORCE_COLOR alone, as in CI, makes no terminal."""
    return PlainConsole().width if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_IN_A_FILE


@contextmanager
def _bars(*columns: ProgressColumn) -> Iterator[Callable[[str, int, int], None]]:
    """Bars on the terminal, none in a file; inside, a callback (what, done, in all)."""
    console = PlainConsole(stderr=True)
    text = TextColumn("{task.description}", markup=False)
    with Progress(text, BarColumn(), *columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


if __name__ == "__main__":
    main()
