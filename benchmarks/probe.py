"""What a probe costs, and whether its exciting inputs excite: seconds, peak memory, and what they beat.

    python benchmarks/probe.py                         # 10 experts, 12,500 synthetic test images; ten minutes
    python benchmarks/probe.py --drawings drawings     # five Quick, Draw! categories (bitmaps) from this folder instead
    python benchmarks/probe.py --pictures sheet.png    # also the exciting inputs of the first trial
    python benchmarks/probe.py --write                 # also benchmarks/results/probe.md

A trial of each of two objectives is trained. Then `smoe-ray probe --executor local --jobs 1` probes both in a process
of its own: its wall and CPU seconds from start to end, per trial, and the most memory that it ever held. An expert is
*live* that is the argmax of the gate for at least one test image. *Beats*: the share of live experts whose best
exciting image has a higher value than any test image; *from any start*: whose starts end higher than that in the
median. *Own*: the share of live experts whose exciting image has a higher value for its own expert than for any other.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
import numpy.typing as npt
import yaml

from smoe_ray.results import Probe, read_embeddings, read_probe, read_trials

RESULTS = Path(__file__).parent / "results"
CLASSES = {
    "synthetic": ["face", "eye", "cat", "snowflake", "pencil"],
    "quickdraw": ["cat", "eye", "snowflake", "flower", "banana"],
}
NAME = "probed"


def study(drawings: str | None) -> dict[str, Any]:
    source = "synthetic" if drawings is None else "quickdraw"
    data = {"source": source, "classes": CLASSES[source], "train_per_class": 2500, "ink": "white_on_black"}
    own = (
        {"test_per_class": 2500} if drawings is None else {"test_per_class": 500, "root": drawings, "layout": "bitmap"}
    )
    return {
        "kind": "grid",
        "name": NAME,
        "question": "What do its experts encode?",
        "preset": "recommended",
        "base": {
            "data": data | own,
            "model": {"num_experts": 10, "encoder": "lite"},
            "training": {"budget": "8 epochs"},
        },
        "axes": {
            "objective": [
                {"name": "likelihood", "lambda_balance": 400},
                {"name": "blend", "lambda_balance": 200, "lambda_entropy": 400},
            ]
        },
        "seeds": [0],
    }


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_gib: float


def run(*words: str) -> Cost:
    """Run a command; what it costs."""
    started = time.perf_counter()
    process = subprocess.Popen([str(Path(sys.executable).with_name("smoe-ray")), *words])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"smoe-ray {' '.join(words)} failed")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def measure(out: str, drawings: str | None) -> Cost:
    """Train, then probe: seconds per trial, and peak memory."""
    file = Path(out) / "study.yaml"
    file.write_text(yaml.safe_dump(study(drawings)))
    run("run", str(file), "--out", out, "--executor", "local", "--jobs", "1", "--device", "cpu")
    cost, trials = run("probe", out, NAME, "--executor", "local", "--jobs", "1"), len(read_trials(out, NAME))
    return Cost(cost.wall_s / trials, cost.cpu_s / trials, cost.peak_gib)


def quality(probe: Probe) -> list[dict[str, Any]]:
    """What exciting images beat, a row per target."""
    arrays = probe.arrays
    live = np.bincount(arrays["expert"], minlength=arrays["logit"].shape[1]) > 0
    rows = []
    for number, target in enumerate(probe.record.targets):
        found_ES, of_data_E = arrays["exciting_value"][number], arrays["data_value"][number, :, 0]
        cross_EE = arrays["cross"][number]
        others_EE = np.where(np.eye(len(cross_EE), dtype=bool), -np.inf, cross_EE)
        margin_E = np.diag(cross_EE) - others_EE.max(axis=1)
        rows.append(
            {
                "target": target,
                "live": int(live.sum()),
                "beats": float((found_ES.max(axis=1) > of_data_E)[live].mean()),
                "from any start": float((np.median(found_ES, axis=1) > of_data_E)[live].mean()),
                "own": float((margin_E > 0)[live].mean()),
                "specificity": float(margin_E[live].mean()),
            }
        )
    return rows


def sheet(probe: Probe, image_BHW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Per target three rows, a column per expert: best exciting image, the exciting latent's, best test image."""
    arrays, rows = probe.arrays, []
    for target in range(len(probe.record.targets)):
        best_E = arrays["exciting_value"][target].argmax(axis=1)
        exciting = arrays["exciting_image"][target][np.arange(len(best_E)), best_E]
        images = image_BHW[arrays["data_image"][target, :, 0]] / 255
        rows += [exciting, arrays["exciting_decoded"][target], images]
    framed = [np.concatenate([np.pad(image, 1, constant_values=0.4) for image in row], axis=1) for row in rows]
    return np.round(255 * np.concatenate(framed, axis=0).astype(np.float64)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawings", metavar="DIR")
    parser.add_argument("--pictures", metavar="FILE")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="probe-") as out:
        cost = measure(out, asked.drawings and str(Path(asked.drawings).resolve()))
        lines = [f"| trial of | {' | '.join(quality_columns())} |", f"|---|{'---|' * len(quality_columns())}"]
        for record in read_trials(out, NAME):
            probe = read_probe(out, NAME, record.trial_id)
            for row in quality(probe):
                cells = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()]
                lines.append(f"| {record.spec.objective.name} | {' | '.join(cells)} |")
        images = len(probe.arrays["label"])
        first = read_trials(out, NAME)[0].trial_id
        if asked.pictures:
            from PIL import Image

            picture = Image.fromarray(sheet(read_probe(out, NAME, first), read_embeddings(out, NAME, first)["image"]))
            picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.NEAREST).save(asked.pictures)
    seconds = f"{cost.wall_s:.0f} s per trial ({cost.cpu_s:.0f} s of CPU), peak {cost.peak_gib:.2f} GiB"
    summary = f"10 experts, {images:,} test images, one thread: {seconds}"
    print("\n".join([summary, *lines]))
    if asked.write:
        heading = f"# Probes\n\n{datetime.date.today()}, commit {machine.commit()}, {machine.cpu()}.\n"
        data = "five Quick, Draw! categories" if asked.drawings else "synthetic sketches"
        (RESULTS / "probe.md").write_text("\n".join([heading, f"{summary} ({data}).\n", *lines]) + "\n")


def quality_columns() -> list[str]:
    return ["target", "live", "beats", "from any start", "own", "specificity"]


if __name__ == "__main__":
    main()
