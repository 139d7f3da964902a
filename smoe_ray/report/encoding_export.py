"""What each expert of the probed trials encodes, as files: ``smoe-ray probe --export DIR``.

DIR/<trial_id>/expert-<e>.json    the numbers
DIR/<trial_id>/expert-<e>.png     the images: most confident test images above their reconstructions; below, by
                                  target: image found on pixels, decoded latent vector, best test images
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smoe_ray.analysis import expert_gallery
from smoe_ray.analysis.encoding import ExcitingInputs
from smoe_ray.atomic_write import write_whole
from smoe_ray.errors import ResultsError
from smoe_ray.figures.pictures import Pixels, below_each_other, png, strip
from smoe_ray.report.trial_encoding import TrialEncoding
from smoe_ray.results import TrialRecord

_IMAGES = 8
"""Test images of an expert, at most, in its picture."""


def export_encodings(out: str, records: Sequence[TrialRecord], arm_of: dict[str, str], folder: Path) -> Iterator[Path]:
    """Write the files of probed trials; yields the folder of each trial.

    Args:
        out: folder or URI of the results.
        records: of probed trials.
        arm_of: label of each trial's arm, by its id.
        folder: where to; files of an earlier export are replaced.

    Raises:
        ResultsError: a file of a probe is stale or damaged, or the folder cannot be written to.
    """
    for record in records:
        trial = TrialEncoding(out, record, arm_of[record.trial_id])
        place = folder / record.trial_id
        for expert in range(record.spec.model.num_experts):
            content = json.dumps(_finite(expert_facts(trial, expert)), indent=2, allow_nan=False)
            picture = png(_picture(trial, expert))
            try:
                write_whole(place / f"expert-{expert}.json", f"{content}\n".encode())
                write_whole(place / f"expert-{expert}.png", picture)
            except OSError as error:
                raise ResultsError(f"{place}: cannot be written ({error.strerror}); give another --export") from None
        yield place


def expert_facts(trial: TrialEncoding, expert: int) -> dict[str, Any]:
    """All numbers of one expert that are computed from its trial's probe; docs/metrics.md has the formulas."""
    selectivity, mismatch, without = trial.preference.selectivity, trial.preference.mismatch, trial.ablation
    routing = selectivity.routing
    return {
        "trial_id": trial.record.trial_id,
        "study": trial.record.study,
        "arm": trial.arm,
        "seed": trial.record.spec.seed,
        "expert": expert,
        "share": routing.share_E[expert],
        "class_selectivity": routing.selectivity_E[expert],
        "gate_sparseness": selectivity.sparseness_E[expert],
        "routing_tuning_mismatch": mismatch.divergence_E[expert],
        "loss_without": without.increase_E[expert],
        "classes": [
            {
                "name": name,
                "share_of_the_experts_images": routing.class_given_expert_EC[expert, label],
                "share_of_the_classes_images": routing.expert_given_class_EC[expert, label],
                "mean_gate_probability": selectivity.gate_EC[expert, label],
                "loss_without": without.increase_EC[expert, label],
            }
            for label, name in enumerate(without.class_names)
        ],
        "exciting_inputs": [
            {
                "target": inputs.target,
                "margin_over_other_experts": inputs.specificity.margin_E[expert],
                "best_test_images": trial.probe.arrays["data_image"][number, expert],
            }
            for number, inputs in enumerate(trial.exciting)
        ],
        "tuning": [
            {
                "parameter": parameter.name,
                "unit": parameter.unit,
                "values": gate.value_K,
                "gate_probability": _curve(gate.curves[expert]),
                "relative_precision": _curve(decoding.curves[expert]),
            }
            for parameter, gate, decoding in zip(
                trial.probe.record.parameters, trial.tuning.routing, trial.tuning.decoding, strict=True
            )
        ],
    }


def _curve(curve: Any) -> dict[str, Any]:
    names = ("mean_K", "sd_K", "preferred", "orientation_index", "width", "breadth")
    tested = {"explained": curve.modulation.value, "p": curve.modulation.p}
    return {name.removesuffix("_K"): getattr(curve, name) for name in names} | tested


def _finite(value: Any) -> Any:
    """Plain numbers and lists for JSON, which has no NaN: null instead."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _picture(trial: TrialEncoding, expert: int) -> Pixels:
    """Strips of images, below each other."""
    experts = trial.record.spec.model.num_experts
    found = expert_gallery(trial.embeddings, trial.class_names, n=_IMAGES, choice="most_confident", limit=experts)
    members = [strip(images) for block in found.blocks if block.expert == expert for images in block.rows]
    return below_each_other([*members, *(exciting_strip(inputs, expert) for inputs in trial.exciting)])


def exciting_strip(found: ExcitingInputs, expert: int) -> Pixels:
    """The image found on pixels, what the expert makes of the latent vector, and the best test images."""
    at = int(np.flatnonzero(found.expert_E == expert)[0])
    return strip(np.stack([found.image_EI[at], found.decoded_EI[at], *(found.test_KEI[:, at] / np.float32(255))]))
