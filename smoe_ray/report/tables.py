"""Tables of the report: results of the analysis as frames with the columns of `columns.COLUMNS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pandas as pd

from smoe_ray.analysis import (
    Difference,
    Homogeneity,
    MeanInterval,
    Recommendations,
    arm_summary,
    bimodality_tests,
    collapse_rates,
    expert_survival,
    trial_summary,
)
from smoe_ray.analysis import style_agreements as agreements_by_arm
from smoe_ray.analysis.encoding import first_split, input_specificity
from smoe_ray.analysis.outcomes import reconstructs
from smoe_ray.errors import ResultsError
from smoe_ray.report.evidence import Evidence
from smoe_ray.report.trial_analysis import TrialAnalysis
from smoe_ray.report.trial_encoding import TrialEncoding

Answer = TypeVar("Answer")
Of = TypeVar("Of", TrialAnalysis, TrialEncoding)


_NOT_ALWAYS = (
    "psnr",
    "max_violation",
    "regret",
    "label_accuracy",
    "nmi",
    "kl",
    "latents",
    "linear",
    "linear_untrained",
    "neighbours",
)
"""Measures that trials of earlier versions, of other routings or of another family of models lack."""


def arms(results: pd.DataFrame) -> pd.DataFrame:
    """`arm_summary` without the columns of statuses that no trial has, and of what no trial measured."""
    frame = arm_summary(results)
    empty = [status for status in ("failed", "pruned", "running") if not frame[status].any()]
    if not reconstructs(results):
        empty += [f"{name}{end}" for name in ("loss", "loss_soft", "gap") for end in ("", "_sd")]
    empty += [f"{name}{end}" for name in _NOT_ALWAYS if frame[name].isna().all() for end in ("", "_sd")]
    return frame.drop(columns=empty)


def recommended_counts(found: Recommendations) -> pd.DataFrame:
    """The counts that are tied or inside the interval, per arm. Raises ResultsError if no arm has an answer."""
    return pd.concat([_of_arm(arm.table, arm.label) for arm in found.answered().arms], ignore_index=True)


def surface_fits(found: Recommendations) -> pd.DataFrame:
    """Parameters and quality of the fitted surface of each arm. Raises ResultsError if no arm has one."""
    fits = [(arm.label, arm.surface.fit) for arm in found.fitted().arms if arm.surface is not None]
    return pd.DataFrame(
        [
            {"arm": label, **fit.form._asdict(), "rmse": fit.rmse, "noise": fit.noise.sd, "r_squared": fit.r_squared}
            for label, fit in fits
        ]
    )


def held_out_errors(found: Recommendations) -> pd.DataFrame:
    """Error of the fit at each held-out amount. Raises ResultsError if there is none."""
    rows = [
        {"arm": arm.label, "amount": held.amount, "rmse": held.rmse, "noise": held.noise.sd, "n": held.n}
        for arm in found.fitted().arms
        if arm.surface is not None
        for held in arm.surface.fit.held_out
    ]
    if not rows:
        raise ResultsError("held-out error: too few amounts to leave one out; add cells with another amount of data")
    return pd.DataFrame(rows)


def differences(found: Iterable[Difference]) -> pd.DataFrame:
    """Differences between arms, one row per cell."""
    frame = pd.DataFrame(found, columns=Difference._fields)
    counts = frame["n_arm"].astype(str)
    unpaired = counts + " vs " + frame["n_reference"].astype(str)
    frame["runs_compared"] = unpaired.where(~frame["paired"], counts + " pairs")
    front = ["arm", "reference", "label", "verdict", "estimate", "low", "high", "p_holm", "runs_compared"]
    untested = ["p_equivalent"] if frame["p_equivalent"].isna().all() else []
    rest = frame.columns.difference([*front, "paired", "n_arm", "n_reference", *untested], sort=False)
    return frame[[*front, *rest]]


def conditions(found: Homogeneity) -> pd.DataFrame:
    """Outcomes of one expert, one row per condition."""
    return pd.DataFrame(
        [
            {
                "condition": condition.label,
                "num_classes": condition.num_classes,
                "images": condition.train_images,
                "steps": condition.steps,
                "mean": condition.mean,
                "mean_sd": condition.sd,
                "n": len(condition.loss_R),
                "left_out": condition.left_out,
            }
            for condition in found.conditions
        ]
    )


def half_lives(results: pd.DataFrame) -> pd.DataFrame:
    """Experts of each arm at the end of their runs, by state, and their half-life in epochs."""
    return pd.DataFrame(
        [
            {
                "arm": arm.label,
                "experts": arm.experts,
                "alive": arm.alive,
                "dead": arm.dead,
                "never_used": arm.never_used,
                "half_life": arm.half_life,
                "half_life_least": arm.half_life_R[0],
                "half_life_most": arm.half_life_R[-1],
                "n": len(arm.half_life_R),
            }
            for arm in expert_survival(results).arms
        ]
    )


def collapse_shares(results: pd.DataFrame) -> pd.DataFrame:
    """How often the trials of each arm collapsed."""
    frame = pd.DataFrame(collapse_rates(results))
    return frame.rename(columns={"label": "arm", "low": "share_low", "high": "share_high"})


def basins(results: pd.DataFrame) -> pd.DataFrame:
    """Bimodality test of each arm. Raises ResultsError if no arm has enough runs."""
    tests = bimodality_tests(results)
    if all(test.verdict.startswith("cannot tell") for test in tests):
        raise ResultsError(f"bimodality test: {tests[0].verdict} in every arm; add seeds")
    frame = pd.DataFrame(tests).rename(columns={"label": "arm", "sd": "basin_sd"})
    means = frame.pop("means")
    frame.insert(2, "mean_low", means.str[0])
    frame.insert(3, "mean_high", means.str[1])
    return frame


def agreements(trials: Sequence[TrialAnalysis]) -> pd.DataFrame:
    """Agreement of experts with classes and styles, one row per trial and partition."""
    rows = []
    for trial, agreement_of in that_have(trials, lambda trial: trial.agreements).items():
        used = {"active": trial.routing.active, "effective": trial.routing.effective}
        for target, agreement in agreement_of.items():
            rows.append({"arm": trial.title, "target": target, **used, **agreement._asdict()})
    return pd.DataFrame(rows)


def tree_routings(evidence: Evidence) -> pd.DataFrame:
    """Layers of hierarchical gates, one row per arm. Raises ResultsError if no trial has one."""
    rows: list[dict[str, Any]] = []
    for arm, tree in evidence.tree_routings.items():
        row: dict[str, Any] = {"arm": arm, "expert_groups": tree.groups, "n": tree.first_classes.n}
        for name in ("first_classes", "regrouped", "second_classes", "second_styles"):
            row |= _mean_and_ends(name, getattr(tree, name))
        rows.append(row | {"off_path": tree.off_path.mean})
    return pd.DataFrame(rows)


def style_agreements(evidence: Evidence) -> pd.DataFrame:
    """Experts in use and their agreement with classes and styles, one row per arm. Raises ResultsError if none has."""
    rows = []
    for arm in agreements_by_arm(evidence.with_styles):
        row: dict[str, Any] = {"arm": arm.label, "styles": arm.styles, "configured": arm.configured}
        row |= {"active": arm.active.mean, "effective": arm.effective.mean, "n": arm.style_ami.n}
        rows.append(row | _mean_and_ends("class_ami", arm.class_ami) | _mean_and_ends("style_ami", arm.style_ami))
    return pd.DataFrame(rows)


def _mean_and_ends(name: str, found: MeanInterval) -> dict[str, float]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def encodings(trials: Sequence[TrialEncoding]) -> pd.DataFrame:
    """What each expert encodes, in numbers; one row per trial and expert. Columns without a value are left out."""
    rows = [row for trial, found in that_have(trials, _encoding_rows).items() for row in found]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def _encoding_rows(trial: TrialEncoding) -> list[dict[str, Any]]:
    preference, ablation, beyond = trial.preference, trial.ablation, trial.beyond_class
    orientation = next((curves for curves in trial.tuning.routing if curves.period is not None), None)
    exciting = {
        target: input_specificity(cross_EE)
        for target, cross_EE in zip(trial.probe.record.targets, trial.probe.arrays["cross"], strict=True)
    }
    rows = []
    for expert, share in enumerate(preference.selectivity.routing.share_E):
        row: dict[str, Any] = {
            "arm": trial.title,
            "expert": expert,
            "share": share,
            "selectivity": preference.selectivity.routing.selectivity_E[expert],
            "gate_sparseness": preference.selectivity.sparseness_E[expert],
            "divergence": preference.mismatch.divergence_E[expert],
            "regret": preference.mismatch.regret_E[expert],
            "loss_increase": ablation.increase_E[expert],
            "feature_gain": beyond.gain[expert].value,
            "feature_p": beyond.gain[expert].p,
        }
        if orientation is not None:
            curve = orientation.curves[expert]
            row |= {"orientation_index": curve.orientation_index, "preferred_orientation": curve.preferred}
        row |= {f"{target}_margin": found.margin_E[expert] for target, found in exciting.items()}
        rows.append(row)
    return rows


def tunings(trials: Sequence[TrialEncoding]) -> pd.DataFrame:
    """Tuning curves in numbers; one row per trial, expert and parameter."""
    rows = []
    for trial, found in that_have(trials, lambda trial: trial.tuning).items():
        for expert in range(len(found.routing[0].curves)):
            for routed, decoded in zip(found.routing, found.decoding, strict=True):
                by_gate, by_precision = routed.curves[expert], decoded.curves[expert]
                rows.append(
                    {
                        "arm": trial.title,
                        "expert": expert,
                        "parameter": routed.parameter,
                        "preferred": by_gate.preferred,
                        "tuning_width": by_gate.width,
                        "tuning_breadth": by_gate.breadth,
                        "explained": by_gate.modulation.value,
                        "explained_p": by_gate.modulation.p,
                        "decoding_breadth": by_precision.breadth,
                        "decoding_explained": by_precision.modulation.value,
                        "decoding_p": by_precision.modulation.p,
                    }
                )
    return pd.DataFrame(rows)


def hidden_separabilities(trials: Sequence[TrialEncoding]) -> pd.DataFrame:
    """How well each expert's hidden values separate the classes; one row per trial and expert."""
    return pd.DataFrame(
        [
            {
                "arm": trial.title,
                "expert": expert,
                "class_accuracy": everything.accuracy,
                "class_ridge": everything.ridge.value,
                "class_chance": everything.ridge.chance,
                "class_p": found.adjusted_p_E[expert],
                "routed_accuracy": routed.accuracy,
                "d_prime": everything.d_prime,
                "fisher": everything.fisher.value,
                "fisher_chance": everything.fisher.chance,
            }
            for trial, found in that_have(trials, lambda trial: trial.class_separability).items()
            for expert, (everything, routed) in enumerate(zip(found.everything, found.routed, strict=True))
        ]
    )


def encoding_trials(trials: Sequence[TrialEncoding]) -> pd.DataFrame:
    """What a trial's experts encode together; one row per trial."""
    rows = []
    for trial, preference in that_have(trials, lambda trial: trial.preference).items():
        row: dict[str, Any] = {
            "arm": trial.title,
            "image_sparseness": preference.selectivity.gate_sparseness,
            "regret": preference.mismatch.regret,
            "misrouted": preference.mismatch.misrouted,
            "feature_gain": trial.beyond_class.mean_gain.value,
            "feature_p": trial.beyond_class.mean_gain.p,
        }
        if "hidden" in trial.probe.arrays:
            spread, cka = trial.class_separability.spread, trial.similarity.cka
            row |= {"class_spread": spread.value, "class_spread_chance": spread.chance, "class_spread_p": spread.p}
            row |= {"cka": cka.value, "cka_chance": cka.chance, "cka_p": cka.p, "rsa": trial.similarity.rsa.value}
        for target, cross_EE in zip(trial.probe.record.targets, trial.probe.arrays["cross"], strict=True):
            found = input_specificity(cross_EE)
            row |= {f"{target}_specificity": found.specificity, f"{target}_diagonal": found.diagonal}
        rows.append(row)
    return pd.DataFrame(rows)


def encoding_findings(evidence: Evidence) -> pd.DataFrame:
    """The three findings of each arm, one row per criterion. Raises ResultsError if no arm can be asked."""
    rows = []
    for arm, found in evidence.encoding_findings.items():
        for finding in found:
            for criterion in finding.criteria:
                interval, chance, p = criterion.statistic
                rows.append(
                    {
                        "arm": arm,
                        "finding": finding.name,
                        "answer": finding.answer,
                        "criterion": criterion.text,
                        "met": {True: "met", False: "refuted", None: "open"}[criterion.met],
                        **_mean_and_ends("score", interval),
                        "chance_level": chance,
                        "p": p,
                        "n": interval.n,
                    }
                )
    return pd.DataFrame(rows)


def encoding_stability(evidence: Evidence) -> pd.DataFrame:
    """Experts compared between seeds, one row per arm and measure. Raises ResultsError if no arm has two seeds."""
    rows: list[dict[str, Any]] = []
    for arm, found in evidence.stability.items():
        for measure, agreement in (
            ("AMI of the partitions of the test images", found.partition),
            ("correlation of matched experts, precision by image", found.tuning),
        ):
            tested = agreement.mean
            row = {"score": tested.value, "chance_level": tested.chance, "p": tested.p}
            rows.append({"arm": arm, "measure": measure, **row, "n": found.seeds})
        if found.hidden is not None:
            score = found.hidden.ceiling
            rows.append({"arm": arm, "measure": "linear CKA of matched experts", "score": score, "n": found.seeds})
        rows += _first_splits(arm, evidence.encodings[arm])
    return pd.DataFrame(rows)


def _first_splits(arm: str, trials: Sequence[TrialEncoding]) -> list[dict[str, Any]]:
    """Which classes the gate of each seed divides first."""
    rows: list[dict[str, Any]] = []
    for trial in trials:
        if len(trial.class_names) < 2:
            continue
        split = first_split(trial.preference.selectivity.gate_EC.T)
        sides = [
            ", ".join(name for name, side in zip(trial.class_names, split.side_C, strict=True) if side == which)
            for which in (True, False)
        ]
        row = {"measure": f"first split of seed {trial.record.spec.seed}: {sides[0]} | {sides[1]}"}
        rows.append({"arm": arm, **row, "score": split.share, "n": 1})
    return rows


def separabilities(trials: Sequence[TrialAnalysis]) -> pd.DataFrame:
    """Probes, neighbours and silhouettes of partitions and controls, one row per trial and partition."""
    rows = []
    for trial, targets in that_have(trials, lambda trial: trial.separability).items():
        for measured in targets:
            row: dict[str, Any] = {"arm": trial.title, **measured._asdict()}
            del row["accuracy_F"]
            row["accuracy"], row["accuracy_sd"] = measured.accuracy, measured.accuracy_sd
            rows.append(row)
    front = ["arm", "target", "control", "accuracy", "accuracy_sd", "holdout_accuracy", "majority", "permuted"]
    front += ["neighbour_accuracy", "silhouette"]
    frame = pd.DataFrame(rows)
    return frame[[*front, *frame.columns.difference(front, sort=False)]]


def maps(trials: Sequence[TrialAnalysis]) -> pd.DataFrame:
    """Trustworthiness of each map."""
    return pd.DataFrame(
        [
            {
                "arm": trial.title,
                "trustworthiness": drawn.trustworthiness,
                "perplexity": drawn.perplexity,
                "images": len(drawn.xy_B2),
            }
            for trial, drawn in that_have(trials, lambda trial: trial.latent_map).items()
        ]
    )


def not_finished(evidence: Evidence) -> pd.DataFrame:
    """Trials that failed, were pruned or have not ended, and why. Raises ResultsError if all have finished."""
    summary = trial_summary(evidence.results)
    epoch_of = dict(zip(summary["trial_id"], summary["epoch"], strict=True))
    arm_of = evidence.arm_of()
    rows = [
        {
            "study": record.study,
            "trial_id": record.trial_id,
            "arm": arm_of[record.trial_id],
            "seed": record.spec.seed,
            "status": record.status,
            "epoch": epoch_of[record.trial_id],
            "why": record.error or record.reason or "has not ended: still running, or interrupted",
        }
        for record in evidence.records
        if record.status != "finished"
    ]
    if not rows:
        raise ResultsError("all trials have finished")
    return pd.DataFrame(rows)


def imported(evidence: Evidence) -> pd.DataFrame:
    """Checkpoints that trials were imported from. Raises ResultsError if none was."""
    rows = [
        {"study": record.study, "trial_id": record.trial_id, "seed": record.spec.seed, **record.imported.model_dump()}
        for record in evidence.records
        if record.imported is not None
    ]
    if not rows:
        raise ResultsError("no trial was imported")
    return pd.DataFrame(rows)


def versions(evidence: Evidence) -> pd.DataFrame:
    """Software versions of the trials, one row per combination."""
    frame = pd.DataFrame(
        [
            {
                "study": record.study,
                **record.versions.model_dump(),
                "started": record.timings.started_at,
                "ended": record.timings.finished_at,
            }
            for record in evidence.records
        ]
    )
    if frame.empty:
        raise ResultsError("versions: no trial was started; run the study first")
    by = ["study", "smoe_ray", "torch", "numpy", "python", "numerics"]
    made = frame.groupby(by, sort=True).agg(
        trials=("started", "size"), first_started=("started", "min"), last_ended=("ended", "max")
    )
    for column in ("first_started", "last_ended"):
        made[column] = pd.to_datetime(made[column], utc=True).dt.strftime("%Y-%m-%d %H:%M")
    return made.reset_index()


def that_have(trials: Sequence[Of], ask: Callable[[Of], Answer]) -> dict[Of, Answer]:
    """Values of `ask` for the trials that have them. Raises the first ResultsError if none does."""
    found, problems = {}, []
    for trial in trials:
        try:
            found[trial] = ask(trial)
        except ResultsError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return found


def _of_arm(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    frame.insert(0, "arm", label)
    return frame
