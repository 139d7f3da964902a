"""The `smoe-ray` command. Every verb is one call into the floors below; an error prints as one line, exit code 1."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from smoe_ray.errors import DataError, ResultsError, SmoeRayError

if TYPE_CHECKING:
    import pandas as pd

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
data_app = typer.Typer(no_args_is_help=True, help="Drawings and image sets: fetch them, look at them.")
app.add_typer(data_app, name="data")

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


@app.command(epilog="Example: smoe-ray check studies/quickstart.yaml --set training.budget='5 epochs'")
def check(study: StudyFile, overrides: Overrides = None) -> None:
    """Validate a study; show its trials, parameters, FLOPs and the data it needs. Starts nothing."""
    from smoe_ray.spec import GridStudy, load_study
    from smoe_ray.study.preview import preview

    spec = load_study(study, overrides or ())
    seen = preview(spec)
    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    rows = {"study": f"{spec.name} (preset {spec.preset})", "question": spec.question}
    if isinstance(spec, GridStudy):
        rows["trials"] = f"{seen.trials:,} = {seen.cells:,} configurations x {len(spec.seeds)} seeds"
        rows |= {f"  {path}": _listed(values) for path, values in spec.axes.items()}
        total = "in all"
    else:
        rows["trials"] = f"{seen.trials:,} proposed by {spec.sampler.name}"
        rows |= {f"  {path}": _distribution(parameter) for path, parameter in spec.space.items()}
        total = "if every trial were like base"
    rows["parameters"] = f"{_span(seen.params_total)}, {_span(seen.params_active)} active for an image"
    if seen.train_images and seen.flops is not None:
        rows["training images"] = _span(seen.train_images)
        rows["training"] = f"{seen.flops:.3g} FLOPs {total}"
    else:
        rows["training images"] = "known once the files are read"
    for key, value in rows.items():
        table.add_row(key, value)
    for position, need in enumerate(seen.needs):
        size = f", {need.size_bytes / 1e6:.1f} MB" if need.size_bytes is not None else ""
        table.add_row("data" if position == 0 else "", f"{need.what}: {need.state} ({need.where}{size})")
    console.print(table, highlight=False, markup=False)
    if seen.absent:
        first = seen.absent[0]
        raise DataError(
            f"{first.where}: absent ({len(seen.absent)} of {len(seen.needs)} files are); set data.root to the folder "
            "that has them, or data.download: true where Google has them"
        )


@app.command(epilog="Example: smoe-ray run studies/drawings.yaml --out results --jobs 2 --set data.root=drawings")
def run(
    study: StudyFile,
    out: Annotated[str, typer.Option("--out", help="Folder or URI for the results.", show_default=False)],
    executor: Annotated[Literal["local"], typer.Option(help="Where trials run.")] = "local",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trials at once. Default: as many as the CPUs allow, one on a GPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    overrides: Overrides = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train diverged trials again, too.")] = False,
) -> None:
    """Run a study. Trials that are finished are not run again: to resume, give the same command."""
    assert executor == "local"
    from smoe_ray.spec import load_study
    from smoe_ray.study import LocalExecutor, run_study
    from smoe_ray.study.preview import preview
    from smoe_ray.study.progress import StudyProgress
    from smoe_ray.training.images import resolve_device

    spec = load_study(study, overrides or ())
    preview(spec)  # refuses what cannot run before anything is written, and so does resolve_device
    default_jobs = 1 if resolve_device(device).type == "cuda" else max(1, _cpus() // spec.base.resources.cpus)
    with StudyProgress(spec) as progress:
        records = run_study(
            spec,
            out,
            LocalExecutor(jobs or default_jobs, device),
            data_jobs=_cpus(),
            retry_failed=retry_failed,
            on_event=progress,
        )
    _print_summary(_read(out, spec.name))
    failed = [record for record in records if record.status == "failed"]
    if failed:
        raise SmoeRayError(
            f"{len(failed)} of {len(records)} trials failed, the first ({failed[0].trial_id}) with: {failed[0].error}"
        )


@app.command(epilog="Example: smoe-ray table results quickstart --csv > quickstart.csv")
def table(
    out: Out,
    study: StudyName,
    csv: Annotated[bool, typer.Option("--csv", help="All columns, as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All columns, as JSON records.")] = False,
    epochs: Annotated[bool, typer.Option("--epochs", help="One row an epoch instead of one a trial.")] = False,
) -> None:
    """Print the results: one row a trial, at its last epoch."""
    from smoe_ray.analysis.summary import trial_summary

    if csv and as_json:
        raise SmoeRayError("--csv and --json exclude one another")
    results = _read(out, _study_name(study))
    frame = results if epochs else trial_summary(results)
    if csv:
        frame.to_csv(sys.stdout, index=False)
    elif as_json:
        sys.stdout.write(json.dumps(json.loads(frame.to_json(orient="records", double_precision=15)), indent=2) + "\n")
    else:
        _print_frame(frame)


@app.command(epilog="Example: smoe-ray figure results quickstart --kind training_curves --to figures")
def figure(
    out: Out,
    study: StudyName,
    to: Annotated[Path, typer.Option("--to", help="Folder for the figures.", show_default=False)],
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of figure; repeatable. Default: every kind that the results allow.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="STUDY", help="Draw another study of OUT beside it, e.g. its baseline."),
    ] = None,
) -> None:
    """Draw figures of a study as SVG and PNG.

    Kinds: training_curves, loss_against_experts, loss_surface, loss_against_samples_per_expert, usage_over_epochs.
    """
    import pandas as pd

    from smoe_ray.figures import FIGURES, save

    for name in kind or ():
        if name not in FIGURES:
            raise SmoeRayError(f"--kind {name}: none of {', '.join(FIGURES)}")
    name = _study_name(study)
    others = [_study_name(other) for other in beside or ()]
    results = pd.concat([_read(out, each) for each in (name, *others)], ignore_index=True)
    drawn, reasons = 0, []
    for wanted in kind or FIGURES:
        try:
            made = FIGURES[wanted].plot(FIGURES[wanted].info(results))
        except ResultsError as error:
            if kind:
                raise
            reasons.append(f"{wanted}: {error}")
            continue
        for path in save(made, to, f"{name}-{wanted.replace('_', '-')}"):
            typer.echo(path)
        drawn += 1
    for reason in reasons:
        typer.echo(f"not drawn: {reason}", err=True)
    if not drawn:
        raise ResultsError(f"no figure could be drawn of study '{name}'; see above")


@data_app.command(epilog="Example: smoe-ray data fetch cat face --to drawings")
def fetch(
    categories: Annotated[
        list[str], typer.Argument(help="Categories as Google names them, e.g. 'The Eiffel Tower'.", show_default=False)
    ],
    to: Annotated[Path | None, typer.Option("--to", help="Folder. Default: the download cache.")] = None,
    layout: Annotated[
        Literal["sketchrnn", "bitmap"], typer.Option(help="Vector drawings (.npz) or 28x28 bitmaps (.npy).")
    ] = "sketchrnn",
) -> None:
    """Download Quick, Draw! categories from Google's public bucket. Resumes; checks sizes and checksums."""
    from smoe_ray.data.download import fetch as download
    from smoe_ray.data.quickdraw import download_folder

    with _bars(DownloadColumn(), TransferSpeedColumn()) as progress:
        paths = download(categories, layout, to or download_folder(), progress=progress)
    for path in paths:
        typer.echo(path)


@data_app.command(epilog="Example: smoe-ray data info studies/drawings.yaml --set data.root=drawings")
def info(study: StudyFile, overrides: Overrides = None) -> None:
    """Read (or draw) the data of a study's base and show what is in it."""
    import numpy as np

    from smoe_ray.data import cache_folder, load_splits
    from smoe_ray.spec import load_study

    spec = load_study(study, overrides or ())
    with _bars() as progress:
        splits = load_splits(spec.base.data, cache_folder() / "data", _cpus(), progress)
    train = np.bincount(splits.train.label_B, minlength=len(splits.class_names))
    test = np.bincount(splits.test.label_B, minlength=len(splits.class_names))
    ink = [float(part.image_BHW.mean()) / 255 for part in (splits.train, splits.test)]
    shown = Table("class", "train", "test", title=f"{spec.base.data.source}, fingerprint {splits.fingerprint[:12]}")
    for name, n_train, n_test in zip(splits.class_names, train.tolist(), test.tolist(), strict=True):
        shown.add_row(name, f"{n_train:,}", f"{n_test:,}")
    shown.add_row("in all", f"{len(splits.train):,}", f"{len(splits.test):,}", style="bold")
    shown.add_row("mean pixel", f"{ink[0]:.3f}", f"{ink[1]:.3f}", style="dim")
    Console().print(shown)
    if splits.style_names:
        typer.echo(f"styles: {', '.join(splits.style_names)}")


def main() -> None:
    """Entry point: run a verb; print a `SmoeRayError` as one line and exit with 1."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="smoe-ray")
    except SmoeRayError as error:  # typer itself ends on Ctrl-C (130) and on a closed pipe
        _fail(error, debug)


def _fail(error: SmoeRayError, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    else:
        typer.echo(f"smoe-ray: {' '.join(str(error).split())}", err=True)
    sys.exit(1)


def _cpus() -> int:
    """CPUs that this process may use: fewer than the machine has, in a container or under taskset."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")  # "<microseconds> <period>", or "max <period>"
    if quota.is_file():
        share, _, period = quota.read_text().partition(" ")
        if share != "max":
            available = min(available, max(1, int(share) // int(period)))
    return available


def _study_name(study: str) -> str:
    """The name of a study in OUT, or that in its YAML file (which may lack what `--set` gave it when it was run)."""
    if not study.endswith((".yaml", ".yml")):
        return study
    from smoe_ray.spec import read_name

    return read_name(study)


def _read(out: str, study: str) -> pd.DataFrame:
    from smoe_ray.results import read_results

    return read_results(out, study)


_SHOWN: dict[str, tuple[str, str]] = {
    "arm": ("arm", "{}"),
    "seed": ("seed", "{:.0f}"),
    "epoch": ("epoch", "{:.0f}"),
    "status": ("status", "{}"),
    "experts.active": ("active", "{:.0f}"),
    "experts.configured": ("of", "{:.0f}"),
    "experts.effective": ("effective", "{:.2f}"),
    "test.reconstruction": ("test hard", "{:.2f}"),
    "test.reconstruction_soft": ("test soft", "{:.2f}"),
    "gap": ("gap", "{:.2f}"),
    "trial_id": ("trial", "{}"),
}
"""Columns of the printed table, with title and format; the files and --csv have them all."""

_WIDTH_IN_A_FILE = 120
"""Columns of text when there is no terminal to ask."""


def _print_summary(results: pd.DataFrame) -> None:
    from smoe_ray.analysis.summary import trial_summary

    _print_frame(trial_summary(results))


def _print_frame(frame: pd.DataFrame) -> None:
    import pandas as pd

    shown = Table(header_style="bold", box=None, pad_edge=False)
    columns = {column: said for column, said in _SHOWN.items() if column in frame.columns}
    for title, form in columns.values():
        shown.add_column(title, justify="left" if form == "{}" else "right", no_wrap=title != "arm")
    for row in frame[list(columns)].itertuples(index=False):
        cells = zip(row, columns.values(), strict=True)
        shown.add_row(*("" if pd.isna(value) else form.format(value) for value, (_, form) in cells))
    terminal = Console()
    width = terminal.width if terminal.is_terminal else _WIDTH_IN_A_FILE
    Console(width=width).print(shown, highlight=False, markup=False)


def _span(low_high: tuple[int, int]) -> str:
    low, high = low_high
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(json.dumps(value) if isinstance(value, dict) else str(value) for value in values)


def _distribution(parameter: Any) -> str:
    said = parameter.model_dump(exclude_defaults=True)
    return ", ".join(str(value) if key == "type" else f"{key} {value}" for key, value in said.items())


@contextmanager
def _bars(*columns: ProgressColumn) -> Iterator[Callable[[str, int, int], None]]:
    """Bars on the terminal, none in a file; inside, a callback (what, done, in all)."""
    console = Console(stderr=True)
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
