"""Experts: what each of them draws, and what they make of a doodle."""

from __future__ import annotations

import streamlit as st

from dashboard import closely, doodling, inference, page, selection, style
from dashboard.charts import gallery as charts
from smoe_ray.analysis import expert_gallery, interpolation, swap_matrix
from smoe_ray.analysis.gallery import Choice
from smoe_ray.errors import ResultsError

CHOICES: dict[str, Choice] = {"any": "random", "most confident": "most_confident", "least confident": "least_confident"}
MOST_EXPERTS = 12


def body(study: str) -> None:
    """One finished trial."""
    trials = closely.finished_trials(study)
    if not trials:
        raise ResultsError(f"{study}: no trial has finished; experts are shown when one has")
    trial = closely.pick(trials)
    page.link("trial", "All about this trial", study=study, trial=trial.record.trial_id)
    shows = {"Gallery": show_gallery, "Swap matrix": show_swap, "Interpolation": show_path, "Doodle": doodling.show}
    view = selection.choice("Show", list(shows), "show")
    with page.boundary():
        shows[view](trial)


def show_gallery(trial: closely.CachedTrialAnalysis) -> None:
    """Inputs of each expert above its reconstructions, with its share and its classes."""
    choice = CHOICES[selection.choice("Images", list(CHOICES), "images")]
    info = expert_gallery(trial.embeddings, trial.class_names, choice=choice, limit=MOST_EXPERTS)
    st.caption(
        f"Inputs above reconstructions, at most {info.n} of each expert's images. Shares are of {info.num_images:,} "
        "test images, gate: its least and greatest probability on the images shown."
    )
    columns = st.columns(2)
    for number, block in enumerate(info.blocks):
        with columns[number % 2]:
            mix = ", ".join(f"{name} {share:.0%}" for name, share in block.class_mix[:3])
            st.markdown(f"**Expert {block.expert}**: {block.share:.1%} of images ({block.num_images:,})")
            st.image(charts.png(charts.block_strip(block)))
            gate = f"gate {block.confidence_N.min():.2f} to {block.confidence_N.max():.2f}"
            st.caption(style.markdown(f"{mix}; {gate}"))
    if info.dead:
        st.text(
            f"Take no test image: {len(info.dead)} of {info.num_experts} experts ({', '.join(map(str, info.dead))})"
        )


def show_swap(trial: closely.CachedTrialAnalysis) -> None:
    """Every expert's decoding of one image of each."""
    choice = CHOICES[selection.choice("Inputs", list(CHOICES), "inputs", "most confident")]
    info = swap_matrix(trial.embeddings, inference.model(trial.record), choice=choice, limit=MOST_EXPERTS)
    page.chart(charts.swap_matrix(info), "swap-matrix")
    st.caption(
        "One test image of each expert that takes any, decoded by every expert from the same latent vector. Numbers: "
        "squared error summed over 784 pixels, the least in bold; framed: the expert that the gate chose."
    )


def show_path(trial: closely.CachedTrialAnalysis) -> None:
    """A straight line from one expert's images to another's."""
    share_E = trial.routing.share_E
    active = [str(expert) for expert in (-share_E).argsort(kind="stable") if share_E[expert] > 0]
    if len(active) < 2:
        raise ResultsError(f"expert {active[0]} takes every test image; a path needs two experts")
    left, right = st.columns(2)
    with left:
        start = selection.one("From expert", active, "from")
    with right:
        end = selection.one("To expert", [expert for expert in active if expert != start], "to")
    model = inference.model(trial.record)
    (path,) = interpolation(trial.embeddings, model, [(int(start), int(end))]).paths
    page.chart(charts.path(path), "interpolation")
    st.caption(
        "Between the mean latent vectors of two experts' images. Chosen: decoded by the expert with the highest gate "
        "probability, whose number stands above; blend: gate-weighted sum of all experts. Grey: the other experts."
    )


page.show("experts", "What does each expert draw, and whom does the gate ask?", body)
