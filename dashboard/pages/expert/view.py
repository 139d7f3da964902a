"""Expert: one expert of a trial on one page, with links to those before and after it."""

from __future__ import annotations

import streamlit as st

from smoe_ray.analysis.gallery import Choice
from smoe_ray.errors import ResultsError
from smoe_ray.report.encoding_export import exciting_strip
from smoe_ray.report.sections import reading
from smoe_ray.report.trial_encoding import TrialEncoding

from ... import load, page, style, trial_analysis, url_state
from ...pictures import png
from ..experts.charts import block_strip
from . import PAGE, charts, data

CHOICES: dict[str, Choice] = {
    "most confident": "most_confident",
    "least confident": "least_confident",
    "random": "random",
}
TARGETS = {"gate_logit": "What the gate sends it", "advantage": "What it draws better than any other expert"}
"""In words, the probe's targets."""

SHARE = st.column_config.NumberColumn(format="percent")
LOSS = st.column_config.NumberColumn(format="%+.3g")
CLASS_COLUMNS = {
    "of the expert's images": SHARE,
    "of the class's images": SHARE,
    "mean gate probability": SHARE,
    "loss without the expert": LOSS,
}
TUNING_COLUMNS = dict.fromkeys(("gate: explained", "decoding: explained"), SHARE) | dict.fromkeys(
    ("gate: prefers", "decoding: prefers"), st.column_config.NumberColumn(format="%.3g")
)


def body(study: str) -> None:
    """Everything about one expert."""
    trials = trial_analysis.finished_trials(study)
    if not trials:
        raise ResultsError(f"{study}: no trial has finished yet")
    left, right = st.columns([3, 1])
    with left:
        trial = trial_analysis.pick(trials)
    count = trial.record.spec.model.num_experts
    with right:
        busiest = str(int(trial.routing.share_E.argmax()))
        expert = int(url_state.one("Expert", list(map(str, range(count))), "expert", busiest))
    found = None
    with page.boundary():
        found = data.encoding(trial)
    with page.boundary():
        page.answer(data.answer(expert, trial.routing, found))
    neighbours(study, trial.record.trial_id, expert, count)
    with page.section("Its test images"):
        show_members(trial, expert)
    if found is None:
        where = f"smoe-ray probe {load.out()} {study} --trial {trial.record.trial_id}"
        st.info(style.markdown(f"What excites it is not measured; to measure it: {where}"), icon=":material/info:")
        return
    with page.section("What excites it most"):
        show_exciting(found, expert)
    with page.section("Its classes"):
        st.dataframe(data.classes(found, expert), hide_index=True, column_config=CLASS_COLUMNS)
    with page.section("What it is tuned to"):
        page.chart(charts.tuning(found.tuning, expert), "tuning")
        st.dataframe(data.tuned(found, expert), hide_index=True, column_config=TUNING_COLUMNS)
        st.caption(
            style.markdown(
                f"Sketches of which one parameter varies ({data.units(found)}). Relative precision: how well the "
                "expert decodes a sketch, relative to all experts. Prefers: where its curve is highest. Explained: "
                "share of the variance over sketches; p against permuted values."
            )
        )
    with page.section("Experts like it in other runs"):
        show_alike(study, trial, expert, trials)
    page.how_to_read(reading("encoding"))


def neighbours(study: str, trial_id: str, expert: int, count: int) -> None:
    """Links to the experts before and after, and to all."""
    with st.container(horizontal=True):
        for other, arrow in ((expert - 1, "\N{LEFTWARDS ARROW}"), (expert + 1, "\N{RIGHTWARDS ARROW}")):
            if 0 <= other < count:
                page.link("expert", f"{arrow} Expert {other}", study=study, trial=trial_id, expert=str(other))
        page.link("experts", "All experts", study=study, trial=trial_id)
        page.link("trial", "Details of this trial", study=study, trial=trial_id)


def show_members(trial: trial_analysis.CachedTrialAnalysis, expert: int) -> None:
    """Inputs above reconstructions."""
    choice = CHOICES[url_state.choice("Images", list(CHOICES), "images")]
    block = data.members(trial, expert, choice)
    if block is None:
        st.text("It has none: it is never chosen.")
        return
    mix = ", ".join(f"{name} {share:.0%}" for name, share in block.class_mix[:5])
    alt = f"{len(block.index_N)} images of expert {expert} above their reconstructions: {mix}"
    st.image(png(block_strip(block)), width="content", alt=alt)
    gate = f"gate probability {block.confidence_N.min():.2f} to {block.confidence_N.max():.2f}"
    st.caption(style.markdown(f"Inputs above reconstructions; {block.num_images:,} images: {mix}; {gate}"))


def show_exciting(found: TrialEncoding, expert: int) -> None:
    """By target: the image found on pixels, the decoded latent vector, the best test images."""
    for inputs in found.exciting:
        alt = f"images that excite expert {expert} most, by {inputs.target}"
        st.image(png(exciting_strip(inputs, expert)), width="content", alt=alt)
        st.caption(
            style.markdown(
                f"{TARGETS.get(inputs.target, inputs.target)}. From the left: the image found by gradient ascent on "
                "pixels, what the expert makes of the latent vector found likewise, the best test images."
            )
        )


def show_alike(
    study: str, trial: trial_analysis.CachedTrialAnalysis, expert: int, trials: trial_analysis.Trials
) -> None:
    """The most similar expert of the arm's other seeds, with links."""
    others = [other for seed, other in trials[trial.arm].items() if seed != trial.record.spec.seed]
    alike = data.alike(trial, expert, others)
    if not alike:
        st.text("No other seed of this arm has a probe on the same test images.")
    for one in alike:
        label = f"Seed {one.trial.record.spec.seed}, expert {one.expert}: correlation {one.correlation:.2f}"
        page.link("expert", label, study=study, trial=one.trial.record.trial_id, expert=str(one.expert))
    if alike:
        st.caption("Correlation over the test images of how well an expert decodes them, relative to all experts.")


def show() -> None:
    """The page."""
    page.show(PAGE, body)
