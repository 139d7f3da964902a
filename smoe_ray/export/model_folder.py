"""A trained model as a folder that loads by itself: weights, configuration, and a card that says what it is.

The layout is that of Hugging Face's hub: ``model.safetensors``, ``config.json`` and ``README.md`` with a YAML head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.analysis.summary import trial_summary
from smoe_ray.atomic_write import write_whole
from smoe_ray.columns import EPOCHS
from smoe_ray.errors import ResultsError, SmoeRayError
from smoe_ray.export.history import refuse_existing
from smoe_ray.figures import draw, render
from smoe_ray.results import TrialRecord, as_json, read_results, read_trials, read_weights
from smoe_ray.results.table import flatten

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = {"training_curves": "Error by epoch", "usage_over_epochs": "Share of the test images of each expert"}


def export_model(out: str | Path, study: str, trial_id: str, folder: str | Path) -> Path:
    """Write a finished trial's model: ``SMoEVAE.from_pretrained(folder)`` loads it.

    Args:
        out: folder or URI of the results.
        study: name of the study.
        trial_id: the trial.
        folder: on this machine; must not exist yet.

    Returns:
        The folder.

    Raises:
        ResultsError: no such trial, it is not finished, or its weights are damaged.
        SmoeRayError: the folder is there already or cannot be written.
    """
    record = _record(out, study, trial_id)
    weights = read_weights(out, study, trial_id)
    results = read_results(out, study, skip_broken=True)
    own = results[results["trial_id"] == trial_id].reset_index(drop=True)
    pictures = dict(_pictures(own))
    place = refuse_existing(Path(folder))
    files = {
        "model.safetensors": _safetensors(weights),
        "config.json": (json.dumps(_config(record), indent=2) + "\n").encode(),
        **{f"{kind}.png": content for kind, content in pictures.items()},
        "README.md": _card(record, own, list(pictures)).encode(),
    }
    try:
        for name, content in files.items():
            write_whole(place / name, content)
    except OSError as error:
        raise SmoeRayError(f"{place}: cannot be written: {error.strerror}; choose another folder") from None
    return place


def _record(out: str | Path, study: str, trial_id: str) -> TrialRecord:
    for record in read_trials(out, study, skip_broken=True):
        if record.trial_id == trial_id:
            if record.status != "finished":
                raise ResultsError(f"{study}: trial {trial_id} is {record.status}; only a finished one has a model")
            return record
    raise ResultsError(f"{study}: no trial '{trial_id}'; 'smoe-ray table {out} {study} --json' lists them")


def _config(record: TrialRecord) -> dict[str, Any]:
    assert record.data is not None, "a finished trial knows its data"
    config: dict[str, Any] = as_json(
        {
            "model_type": record.spec.model.family,
            "image_shape": record.data.image_shape,
            "model": record.spec.model,
            "trial": {
                "study": record.study,
                "trial_id": record.trial_id,
                "spec": record.spec,
                "data": record.data,
                "versions": record.versions,
            },
        }
    )
    return config


def _safetensors(weights: dict[str, Any]) -> bytes:
    from safetensors.numpy import save

    content: bytes = save(weights, metadata={"format": "pt"})  # what other loaders look for
    return content


def _pictures(results: pd.DataFrame) -> Iterator[tuple[str, bytes]]:
    for kind in _FIGURES:
        try:
            yield kind, render(draw(results, kind).figure, "png")
        except ResultsError:  # not what this trial measured
            continue


class _About(NamedTuple):
    """What a model card says of a family of models."""

    title: str
    source: str
    task: str
    tag: str
    loader: str


_ABOUT = {
    "smoe_vae": _About(
        "Sparse mixture-of-experts VAE",
        "arXiv:2509.10025",
        "unconditional-image-generation",
        "variational-autoencoder",
        "SMoEVAE",
    ),
    "contrastive": _About(
        "Contrastive convolutional mixture of experts",
        "for the questions of arXiv:2605.20610",
        "image-feature-extraction",
        "contrastive-learning",
        "ContrastiveMoE",
    ),
}


def _card(record: TrialRecord, results: pd.DataFrame, pictures: list[str]) -> str:
    assert record.data is not None
    [last] = as_json(trial_summary(results))
    metrics = [
        f"| {column.heading} | {column.number_format.format(last[column.name])} | {column.unit} |"
        for column in EPOCHS
        if column.name.startswith(("test.", "experts.", "latent.", "cost.params")) and _is_number(last[column.name])
    ]
    config = [f"| `{path}` | {value} |" for path, value in flatten(as_json(record.spec)).items() if value is not None]
    classes = ", ".join(record.data.class_names)
    about = _ABOUT[record.spec.model.family]
    made = "trained"
    if record.imported is not None:
        made = f"imported from {record.imported.file} (SHA-256 {record.imported.sha256}), which is said to be trained"
    lines = [
        "---", "library_name: smoe-ray", f"pipeline_tag: {about.task}", "tags:",
        "- mixture-of-experts", f"- {about.tag}", "---", "",
        f"# {about.title}: trial {record.trial_id} of the study {record.study}", "",
        f"{record.spec.model.num_experts} experts behind one gate ({about.source}), {made} on "
        f"{record.data.train_images:,} images of shape {' x '.join(map(str, record.data.image_shape))} "
        f"of these classes: {classes}.", "",
        "```python", f"from smoe_ray.model import {about.loader}", "",
        f'model = {about.loader}.from_pretrained("this/folder")', "```",
        "", f"## Results at epoch {last['epoch']}", "",
        f"Measured on {record.data.test_images:,} test images; formulas are in smoe-ray's docs/metrics.md.", "",
        "| | | unit |", "|---|---|---|", *metrics, "",
        *(line for kind in pictures for line in (f"![{_FIGURES[kind]}]({kind}.png)", "")),
        "## Configuration", "", "| key | value |", "|---|---|", *config, "",
        f"Data fingerprint {record.data.fingerprint}; smoe-ray {record.versions.smoe_ray}, "
        f"torch {record.versions.torch}.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
