"""Experts: what each expert reconstructs, and how a doodle or another image is routed."""

from __future__ import annotations

import streamlit as st

from smoe_ray.analysis import expert_gallery, interpolation, swap_matrix
from smoe_ray.analysis.gallery import Choice
from smoe_ray.columns import count
from smoe_ray.errors import ResultsError
from smoe_ray.figures.pictures import size_of

from ... import page, style, trial_analysis, url_state
from ...pictures import png
from . import PAGE, charts, image_panel, inference
from .strokes import ink_of_doodles

CHOICES: dict[str, Choice] = {
    "random": "random",
    "most confident": "most_confident",
    "least confident": "least_confident",
}
MAX_EXPERTS = 12
SHORT_ROW_WIDTH = 52
"""Width of a small image in a row of fewer than are asked for, in pixels."""
MAX_PIXELS_IN_COLUMN = 64
"""Images wider than this have the whole page for a strip of them."""


def body(study: str) -> None:
    """One of the views of a finished trial."""
    trials = trial_analysis.finished_trials(study)
    if not trials:
        raise ResultsError(f"{study}: no trial has finished yet")
    trial = trial_analysis.pick(trials)
    with page.boundary():
        page.answer(in_use(trial))
    page.link("trial", "Details of this trial", study=study, trial=trial.record.trial_id)
    shows = {"Gallery": show_gallery, "Swap matrix": show_swap, "Interpolation": show_path}
    shows["One image" if ink_of_doodles(trial.record) is None else "Doodle"] = image_panel.show
    view = url_state.choice("Show", list(shows), "show")
    with page.boundary():
        shows[view](trial)


def in_use(trial: trial_analysis.CachedTrialAnalysis) -> str:
    """How many experts the gate chooses, and how unevenly, as a sentence."""
    share_E = trial.routing.share_E
    busiest = int(share_E.argmax())
    return (
        f"{trial.routing.active} of {count(len(share_E), 'expert')} receive test images; the busiest, expert "
        f"{busiest}, receives {share_E[busiest]:.0%} of them."
    )


def show_gallery(trial: trial_analysis.CachedTrialAnalysis) -> None:
    """Inputs of each expert above its reconstructions, with its share and its classes."""
    choice = CHOICES[url_state.choice("Images", list(CHOICES), "images")]
    info = expert_gallery(trial.embeddings, trial.class_names, choice=choice, limit=MAX_EXPERTS)
    st.caption(
        f"Inputs above reconstructions, at most {info.n} images per expert. Shares are of {info.num_images:,} test "
        "images; gate: lowest and highest gate probability of the images shown."
    )
    columns = st.columns(2 if info.blocks[0].image_NHW.shape[-1] <= MAX_PIXELS_IN_COLUMN else 1)
    for number, block in enumerate(info.blocks):
        with columns[number % len(columns)]:
            mix = ", ".join(f"{name} {share:.0%}" for name, share in block.class_mix[:3])
            st.markdown(f"**Expert {block.expert}**: {block.share:.1%} of images ({block.num_images:,})")
            shown = len(block.index_N)
            # A whole row is as wide as the column, and the images of a shorter one are about as large as those of it.
            width = round(shown * size_of(block.image_NHW, SHORT_ROW_WIDTH)[0])
            st.image(
                png(charts.block_strip(block)),
                width="content" if shown == info.n else width,
                alt=f"{shown} images of expert {block.expert} above their reconstructions: {mix}",
            )
            gate = f"gate {block.confidence_N.min():.2f} to {block.confidence_N.max():.2f}"
            st.caption(style.markdown(f"{mix}; {gate}"))
    if info.dead:
        st.text(
            f"Without test images: {len(info.dead)} of {info.num_experts} experts ({', '.join(map(str, info.dead))})"
        )


def show_swap(trial: trial_analysis.CachedTrialAnalysis) -> None:
    """One image of each active expert, decoded by every expert."""
    choice = CHOICES[url_state.choice("Inputs", list(CHOICES), "inputs", "most confident")]
    info = swap_matrix(trial.embeddings, inference.model(trial.record), choice=choice, limit=MAX_EXPERTS)
    page.chart(charts.swap_matrix(info), "swap-matrix")
    st.caption(
        "One test image per active expert, decoded by every expert from the same latent vector. Numbers: squared error "
        "summed over all values of the image, the lowest in bold. Frame: the expert that the gate chose."
    )


def show_path(trial: trial_analysis.CachedTrialAnalysis) -> None:
    """Interpolation in the latent space, from one expert's images to another's."""
    share_E = trial.routing.share_E
    active = [str(expert) for expert in (-share_E).argsort(kind="stable") if share_E[expert] > 0]
    if len(active) < 2:
        raise ResultsError(f"expert {active[0]} receives every test image; interpolation needs two active experts")
    left, right = st.columns(2)
    with left:
        start = url_state.one("From expert", active, "from")
    with right:
        end = url_state.one("To expert", [expert for expert in active if expert != start], "to")
    model = inference.model(trial.record)
    (path,) = interpolation(trial.embeddings, model, [(int(start), int(end))]).paths
    page.chart(charts.path(path), "interpolation")
    st.caption(
        "From the mean latent vector of one expert's images to that of another. Chosen: decoded by the expert with the "
        "highest gate probability (number above). Blend: gate-weighted sum of all experts. Grey: other experts."
    )


def show() -> None:
    """The page."""
    page.show(PAGE, body)
