"""What is known of one expert: from the trial's embeddings, and from its probe where it has one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from smoe_ray.analysis import ExpertBlock, Routing, expert_gallery
from smoe_ray.analysis.curves import FloatArray
from smoe_ray.analysis.gallery import Choice
from smoe_ray.columns import format_cell
from smoe_ray.report.encoding_export import expert_facts
from smoe_ray.report.trial_encoding import TrialEncoding
from smoe_ray.results import TrialRecord
from smoe_ray.results.probe import RECORD

from ... import load
from ...trial_analysis import CachedTrialAnalysis

IMAGES = 12
"""Test images of an expert that are shown."""
CLASS_HEADS = {
    "name": "class",
    "share_of_the_experts_images": "of the expert's images",
    "share_of_the_classes_images": "of the class's images",
    "mean_gate_probability": "mean gate probability",
    "loss_without": "loss without the expert",
}
MOST_OTHERS = 4
"""Other seeds in which experts like this one are looked for; a probe has tens of megabytes."""


def encoding(trial: CachedTrialAnalysis) -> TrialEncoding | None:
    """What the trial's probe tells; None where it was not probed. Raises ResultsError if its files are not good."""
    record = trial.record
    version = load.tag(record.study, record.trial_id, RECORD)
    if not version:
        return None
    found = _encoding(load.out(), record, trial.arm, version)
    _ = found.probe  # a stale one is told once, before anything is made of it
    return found


@st.cache_resource(max_entries=6, show_spinner=False, hash_funcs={TrialRecord: lambda record: record.trial_id})
def _encoding(out: str, record: TrialRecord, arm: str, _version: str) -> TrialEncoding:
    return TrialEncoding(out, record, arm)


def members(trial: CachedTrialAnalysis, expert: int, choice: Choice) -> ExpertBlock | None:
    """The expert's share, classes and some of its test images; None if it has none."""
    experts = trial.record.spec.model.num_experts
    found = expert_gallery(trial.embeddings, trial.class_names, n=IMAGES, choice=choice, limit=experts)
    return next((block for block in found.blocks if block.expert == expert), None)


def answer(expert: int, routing: Routing, found: TrialEncoding | None) -> str:
    """What the expert receives, and what is lost without it, as sentences."""
    if not routing.share_E[expert] > 0:
        return f"No test image goes to expert {expert}."
    largest = int(routing.class_given_expert_EC[expert].argmax())
    said = (
        f"Expert {expert} receives {routing.share_E[expert]:.0%} of the test images, "
        f"{routing.class_given_expert_EC[expert, largest]:.0%} of them {routing.class_names[largest]}."
    )
    if found is None:
        return said
    without = found.ablation
    worst = int(np.nanargmax(without.increase_EC[expert]))
    return (
        f"{said} Without it the test loss changes by {without.increase_E[expert]:+.3g}, most for "
        f"{without.class_names[worst]} ({without.increase_EC[expert, worst]:+.3g})."
    )


def classes(found: TrialEncoding, expert: int) -> pd.DataFrame:
    """One row per class: what the expert is given of it, and what is lost without the expert."""
    return pd.DataFrame(expert_facts(found, expert)["classes"]).rename(columns=CLASS_HEADS)


class Alike(NamedTuple):
    """The expert of another seed that is most like this one."""

    trial: CachedTrialAnalysis
    expert: int
    correlation: float
    """Of the relative precision over the test images."""


def alike(trial: CachedTrialAnalysis, expert: int, others: Iterable[CachedTrialAnalysis]) -> list[Alike]:
    """The most similar expert of each of some other probed trials with the same test images, most similar first."""
    mine = encoding(trial)
    assert mine is not None
    found: list[Alike] = []
    for other in others:
        if other.record.trial_id == trial.record.trial_id or (theirs := encoding(other)) is None:
            continue
        if theirs.test_set == mine.test_set and len(found) < MOST_OTHERS:
            correlation_F = _correlations(mine.decoding_EB[expert], theirs.decoding_EB)
            best = int(np.nanargmax(correlation_F))
            found.append(Alike(other, best, float(correlation_F[best])))
    return sorted(found, key=lambda each: -each.correlation)


def _correlations(one_B: FloatArray, other_FB: FloatArray) -> FloatArray:
    """Pearson's, of one expert with each of others: (F,)."""
    one_B, other_FB = one_B - one_B.mean(), other_FB - other_FB.mean(axis=1, keepdims=True)
    norm_F = np.linalg.norm(one_B) * np.linalg.norm(other_FB, axis=1)
    correlation_F: FloatArray = (other_FB @ one_B) / np.maximum(norm_F, np.finfo(float).tiny)
    return correlation_F


def tuned(found: TrialEncoding, expert: int) -> pd.DataFrame:
    """One row per parameter of the stimuli: how strongly the expert depends on it, and what it prefers."""
    rows = []
    for one in expert_facts(found, expert)["tuning"]:
        row = {"parameter": one["parameter"]}
        for name, curve in (("gate", one["gate_probability"]), ("decoding", one["relative_precision"])):
            row |= {
                f"{name}: prefers": one["values"][int(np.argmax(curve["mean"]))],
                f"{name}: explained": curve["explained"],
                f"{name}: p": format_cell("p_holm", curve["p"]),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def units(found: TrialEncoding) -> str:
    """Unit of each parameter, as a sentence."""
    return "; ".join(f"{parameter.name}: {parameter.unit}" for parameter in found.probe.record.parameters)
