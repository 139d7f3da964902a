"""How fast the dashboard is on 2,000 trials of 20 epochs: first page, interactions, memory; local and S3 on loopback.

    python benchmarks/dashboard.py                 # prints a table
    python benchmarks/dashboard.py --write         # also benchmarks/results/dashboard.md
    python benchmarks/dashboard.py --browser       # also in a real Chromium: from the address to the drawn table
    python benchmarks/dashboard.py --out FOLDER    # results to measure instead of synthetic ones (no S3 then)

Cold: a process that has imported Streamlit, as its server has, and nothing of ours. Each page is run as the server runs
it (Streamlit's AppTest), so the browser's own work comes on top: `--browser` measures with it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
import numpy as np

from smoe_ray.results import DataFacts, Packer, Store, Timings, TrialRecord, Versions
from smoe_ray.results.columns import to_parquet
from smoe_ray.spec import GridStudy, TrialSpec, dump_study, parse_study
from smoe_ray.study import plan_grid

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
EPOCHS = 20
STUDY = """
name: synthetic
question: How fast is the dashboard on two thousand trials?
base:
  data: {source: synthetic, train_per_class: 100, test_per_class: 20}
  model: {encoder: lite}
  training: {budget: 20 epochs}
axes:
  objective.name: [blend, likelihood]
  model.num_experts: [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 35, 40, 45, 50, 60, 80, 100]
  data.train_per_class: [50, 100, 200, 400, 800]
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
"""
LIMITS = {"local": 3.0, "S3": 6.0}
Taken = tuple[float, float]
"""Wall seconds, and CPU seconds of the dashboard: what else the machine does shows in the first alone."""
READ_AHEAD_S = 10
"""After which a server has read OUT and imported what pages need."""
WARM_LIMIT, MEMORY_LIMIT = 1.0, 1024

MEASURE = """
import json, resource, sys, time
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash
import streamlit, streamlit.web.bootstrap
app, out = sys.argv[1:3]
sys.argv = ["app.py", out]
taken = {}

def timed(name, run):
    started, used = time.perf_counter(), time.process_time()
    at = run()
    taken[name] = time.perf_counter() - started, time.process_time() - used
    assert not at.exception, at.exception
    return at

AppTest.from_string("").run()  # looks for installed components, as the server does when it starts
at = AppTest.from_file(app, default_timeout=600)
at.query_params["study"] = "synthetic"
timed("first page, cold", at.run)
timed("the same again", at.run)
for view in ("trial", "loss_surface", "collapse", "routing"):
    at._page_hash = calc_hash(view)
    timed(f"{view}, first time", at.run)
    timed(f"{view} again", at.run)
at._page_hash = calc_hash("trial")
at.run()
at.selectbox(key="trial").select_index(1234)
timed("another trial", at.run)
taken["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 0
print(json.dumps(taken))
"""


def make(out: Path) -> None:
    """Two thousand trials as a run leaves them; a fiftieth of them failed."""
    study = parse_study(STUDY)
    assert isinstance(study, GridStudy)
    (out / study.name / "trials").mkdir(parents=True)
    (out / study.name / "study.yaml").write_text(dump_study(study))
    rng = np.random.default_rng(0)
    for number, spec in enumerate(plan_grid(study)):
        folder = out / study.name / "trials" / f"{number:012x}"
        folder.mkdir()
        (folder / "trial.json").write_text(record(study.name, folder.name, spec, failed=number % 50 == 0))
        (folder / "epochs.parquet").write_bytes(to_parquet(list(rows(spec, rng))))
        for name in ("model.safetensors", "embeddings.npz"):  # listed, never read here
            (folder / name).write_bytes(b"x")


def record(study: str, trial: str, spec: TrialSpec, *, failed: bool) -> str:
    started = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    end: dict[str, Any] = {"status": "finished"}
    if failed:
        end = {"status": "failed", "error": "diverged", "error_kind": "DivergedError", "traceback": "Traceback\n" * 20}
    images = (spec.data.train_per_class or 1) * 5
    return TrialRecord(
        study=study,
        trial_id=trial,
        spec=spec,
        host="node-1",
        versions=Versions.here(),
        timings=Timings(started_at=started, finished_at=started + datetime.timedelta(minutes=1), seconds=60),
        data=DataFacts(fingerprint="f" * 64, train_images=images, test_images=100, class_names=tuple("abcde")),
        **end,
    ).model_dump_json(indent=2)


def rows(spec: TrialSpec, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    experts, images = spec.model.num_experts, (spec.data.train_per_class or 1) * 5
    floor = 20 + 2000 / images + 3 * np.log(experts / 8) ** 2 + rng.normal(0, 0.3)
    for epoch in range(1, EPOCHS + 1):
        alive = max(1, round(experts * 0.95**epoch))
        loss = floor + 60 * np.exp(-0.3 * epoch)
        usage = np.zeros(experts)
        usage[:alive] = rng.dirichlet(np.full(alive, 5.0))
        yield {
            "epoch": epoch,
            **{f"train.{name}": float(loss) for name in ("loss", "reconstruction", "kl", "balance", "entropy")},
            "test.reconstruction": float(loss),
            "test.reconstruction_soft": float(loss - 1),
            "test.kl": 5.0,
            "experts.configured": experts,
            "experts.active": alive,
            "experts.effective": float(alive) * 0.9,
            "experts.active_fraction": alive / experts,
            "experts.max_share": float(usage.max()),
            "experts.usage": usage.tolist(),
            "cost.params_total": 1000 * experts,
            "cost.params_active": 5000,
            "cost.flops": 1e9 * epoch,
            "cost.images": images * epoch,
            "cost.steps": images * epoch // 32,
            "cost.wall_s": 3.0,
            "cost.images_per_s": 1000.0,
        }


@contextmanager
def bucket(out: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The same results in an S3 server on loopback, a process of its own; its URI and the environment to reach it."""
    import boto3
    from moto.server import ThreadedMotoServer  # noqa: F401 - said here when it is not installed

    program = (
        "from moto.server import ThreadedMotoServer as S; import logging, time; logging.disable()\n"
        "s = S(ip_address='127.0.0.1', port=0, verbose=False); s.start(); print(s.get_host_and_port()[1], flush=True)\n"
        "time.sleep(1e6)"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.stdout.readline().strip()}", **keys}
        os.environ.update(environment)
        client = boto3.client("s3")
        client.create_bucket(Bucket="benchmark")

        def put(path: Path) -> None:
            client.put_object(Bucket="benchmark", Key=f"out/{path.relative_to(out)}", Body=path.read_bytes())

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(put, (path for path in out.rglob("*") if path.is_file())))
        Packer(Store("s3://benchmark/out"), "synthetic").write()  # as a run into a bucket does
        yield "s3://benchmark/out", environment
    finally:
        server.terminate()
        server.wait()


def measure(out: str, environment: dict[str, str]) -> dict[str, Taken]:
    """Seconds of each step, and MiB at most, in a fresh process."""
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(ROOT / "dashboard" / "script" / "app.py"), out],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    taken: dict[str, Taken] = json.loads(done.stdout.splitlines()[-1])
    return taken


def in_a_browser(out: str, environment: dict[str, str]) -> dict[str, Taken]:
    """Seconds from the address to the drawn table, on servers that nobody has asked before: at once, and later."""
    sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
    import screenshots
    from playwright.sync_api import sync_playwright

    taken = {}
    for wait_s, name in ((0, "at the start of the server"), (READ_AHEAD_S, f"{READ_AHEAD_S} s after it")):
        with screenshots.serving(out, **environment) as url, sync_playwright() as playwright:
            time.sleep(wait_s)
            browser = playwright.chromium.launch(executable_path=screenshots.chromium(), args=screenshots.FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            for visit in ("first page", "the same again"):
                started = time.perf_counter()
                page.goto(url)
                page.get_by_test_id("stDataFrame").nth(1).wait_for(timeout=120_000)
                taken[f"{visit}, in Chromium, {name}"] = time.perf_counter() - started, float("nan")
            browser.close()
    return taken


def report(taken: dict[str, dict[str, Taken]]) -> str:
    places = list(taken)
    steps = [step for step in taken[places[0]] if step != "memory"]
    load = f"{os.getloadavg()[0]:.1f}"
    lines = [
        "# The dashboard on 2,000 trials of 20 epochs",
        "",
        f"{datetime.date.today()}, {machine.cpu()}, load {load} at the end, commit {machine.commit()}.",
        "Wall seconds (CPU seconds of the dashboard), in a process that has read nothing before. S3: moto's server on",
        f"loopback, on the same CPUs. Limits: page {LIMITS['local']:g} s ({LIMITS['S3']:g} s through S3), interactions",
        f"{WARM_LIMIT:g} s, memory {MEMORY_LIMIT:,} MiB. Command: `python benchmarks/dashboard.py --browser --write`",
        "",
        f"| step | {' | '.join(places)} |",
        f"|---|{'---|' * len(places)}",
        *(f"| {step} | {' | '.join(_written(taken[place][step]) for place in places)} |" for step in steps),
        f"| memory at most, MiB | {' | '.join('{:,.0f}'.format(taken[place]['memory'][0]) for place in places)} |",
    ]
    return "\n".join(lines) + "\n"


def _written(taken: Taken) -> str:
    wall, cpu = taken
    return f"{wall:.2f}" if cpu != cpu else f"{wall:.2f} ({cpu:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="results to measure, of a study `synthetic`")
    parser.add_argument("--browser", action="store_true", help="measure in a real Chromium, too")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/dashboard.md")
    arguments = parser.parse_args()

    def all_of(out: str, environment: dict[str, str]) -> dict[str, Taken]:
        return measure(out, environment) | (in_a_browser(out, environment) if arguments.browser else {})

    if arguments.out:
        taken = {"local": all_of(str(arguments.out), {})}
    else:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            make(out)
            taken = {"local": all_of(str(out), {})}
            with bucket(out) as (uri, environment):
                taken["S3"] = all_of(uri, environment)
    text = report(taken)
    print(text)
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "dashboard.md").write_text(text)


if __name__ == "__main__":
    main()
