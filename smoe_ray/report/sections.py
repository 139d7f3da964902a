"""The sections of a report: contents, order, and how to read them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from smoe_ray.analysis import (
    expert_gallery,
    expert_survival,
    homogeneity,
    interpolation,
    loss_against_experts,
    loss_against_samples_per_expert,
    loss_surface,
    phase_diagram,
    probe_bars,
    swap_matrix,
    training_curves,
    usage_over_epochs,
)
from smoe_ray.analysis.outcomes import loss_unit, reconstructs
from smoe_ray.errors import ResultsError
from smoe_ray.figures import (
    plot_ablation,
    plot_best_experts,
    plot_class_preference,
    plot_comparison,
    plot_dataset_verdict,
    plot_exciting_inputs,
    plot_expert_similarity,
    plot_expert_survival,
    plot_expert_tuning,
    plot_gallery,
    plot_homogeneity,
    plot_interpolation,
    plot_label_routing,
    plot_loss_against_experts,
    plot_loss_against_samples_per_expert,
    plot_loss_at_amount,
    plot_loss_surface,
    plot_map,
    plot_phase_diagram,
    plot_probes,
    plot_routing,
    plot_surface_fit,
    plot_swap_matrix,
    plot_training_curves,
    plot_usage_over_epochs,
)
from smoe_ray.report import tables
from smoe_ray.report.evidence import Evidence
from smoe_ray.report.tables import Of
from smoe_ray.report.trial_analysis import TrialAnalysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Exhibit(NamedTuple):
    """A figure or a table of a section."""

    name: str
    """Of its files: a-z, 0-9 and '-'; unique in a report."""
    title: str
    make: Callable[[], Figure | pd.DataFrame]
    """Raises ResultsError with the reason if the results lack what it needs."""


class Section(NamedTuple):
    """Exhibits that answer one question."""

    title: str
    reading: str
    """How to read them, in a few sentences."""
    exhibits: Sequence[Exhibit]


def sections(evidence: Evidence) -> Iterator[Section]:
    """Sections on the results of the studies."""
    results = evidence.results
    if evidence.has_several_datasets:
        yield _datasets(evidence)
    yield Section(
        "Arms",
        reading("arms", unit=loss_unit(results)) if reconstructs(results) else reading("arms-contrastive"),
        (
            Exhibit("arms", "Trials by arm", lambda: tables.arms(results)),
            Exhibit("training-curves", "Training curves", lambda: plot_training_curves(training_curves(results))),
        ),
    )
    yield Section(
        "Loss against experts, data and samples",
        reading("loss"),
        (
            Exhibit(
                "loss-against-experts",
                "Test loss against active experts",
                lambda: plot_loss_against_experts(loss_against_experts(results)),
            ),
            Exhibit(
                "loss-surface",
                "Test loss over data and active experts",
                lambda: plot_loss_surface(loss_surface(_several_amounts(results))),
            ),
            Exhibit(
                "loss-against-samples-per-expert",
                "Test loss against images per active expert",
                lambda: plot_loss_against_samples_per_expert(
                    loss_against_samples_per_expert(_several_amounts(results))
                ),
            ),
        ),
    )
    yield Section(
        "Recommended number of experts",
        reading("recommendation"),
        (
            _of_recommendations("best-experts", "Best number of experts against data", plot_best_experts, evidence),
            _of_recommendations(
                "loss-at-amount", "Loss against experts at the largest amount of data", plot_loss_at_amount, evidence
            ),
            Exhibit(
                "recommended-counts",
                "Counts tied with the best or inside its interval",
                lambda: tables.recommended_counts(evidence.recommendations),
            ),
            Exhibit(
                "surface-fit", "Measured against fitted", lambda: plot_surface_fit(evidence.recommendations.fitted())
            ),
            Exhibit("surface-fits", "The fit", lambda: tables.surface_fits(evidence.recommendations)),
            Exhibit(
                "held-out-errors",
                "Error on amounts left out of the fit",
                lambda: tables.held_out_errors(evidence.recommendations),
            ),
        ),
    )
    yield Section(
        "Comparison of arms",
        reading("comparison"),
        (
            Exhibit("comparison", "Differences from the reference", lambda: plot_comparison(evidence.comparison)),
            Exhibit("differences", "The same in numbers", lambda: tables.differences(evidence.comparison.differences)),
        ),
    )
    if evidence.has_label_routing:
        yield _label_routing(evidence)
    yield Section(
        "Collapse of experts",
        reading("collapse"),
        (
            Exhibit(
                "usage-over-epochs",
                "Share of the test images by expert",
                lambda: plot_usage_over_epochs(usage_over_epochs(results)),
            ),
            Exhibit("expert-survival", "Survival", lambda: plot_expert_survival(expert_survival(results))),
            Exhibit(
                "half-lives",
                "Experts alive, dead and never used, and their half-life in epochs",
                lambda: tables.half_lives(results),
            ),
            Exhibit("collapse-rates", "How often runs collapse", lambda: tables.collapse_shares(results)),
            Exhibit(
                "phase-diagram",
                "Experts in use against the ratio of the penalties",
                lambda: plot_phase_diagram(phase_diagram(results)),
            ),
            Exhibit("basins", "Bimodality test", lambda: tables.basins(results)),
        ),
    )
    yield from _single_trial_sections(evidence)
    if evidence.has_probes:
        yield _encoding(evidence)
    yield Section(
        "Homogeneity",
        reading("homogeneity"),
        (
            Exhibit("homogeneity", "Conditions and differences", lambda: plot_homogeneity(homogeneity(results))),
            Exhibit("conditions", "Conditions", lambda: tables.conditions(homogeneity(results))),
            Exhibit(
                "condition-differences",
                "Differences between conditions",
                lambda: tables.differences(homogeneity(results).differences),
            ),
        ),
    )


def _datasets(evidence: Evidence) -> Section:
    return Section(
        "Each dataset alone",
        reading("datasets"),
        (
            Exhibit("datasets", "Loss and active experts", lambda: plot_dataset_verdict(evidence.datasets)),
            Exhibit("dataset-verdicts", "The verdicts in numbers", lambda: evidence.datasets.table),
        ),
    )


def _label_routing(evidence: Evidence) -> Section:
    return Section(
        "Routing by label and without labels",
        reading("label-routing"),
        (
            Exhibit("label-routing", "Loss by arm", lambda: plot_label_routing(evidence.label_routing)),
            Exhibit(
                "label-routing-differences",
                "Each unsupervised arm against each label-routed arm",
                lambda: tables.differences(evidence.label_routing.differences),
            ),
        ),
    )


def _single_trial_sections(evidence: Evidence) -> Iterator[Section]:
    """Sections on single trials."""
    try:
        found = evidence.representatives
    except ResultsError as error:
        why = str(error)
        yield Section(
            "Routing, separability, maps and galleries", "", (Exhibit("routing", "Routing", partial(_absent, why)),)
        )
        return
    trials = evidence.trials
    shown = "Shown is the finished trial with the lowest seed of each arm"
    if found.num_available > len(trials):
        shown += f", for the {len(trials)} of {found.num_available} arms with the lowest mean test loss"
        shown += ", from each dataset in turn" if evidence.has_several_datasets else ""
    yield Section(
        "Routing against classes",
        f"{shown}. {reading('routing')}",
        (
            *_per_trial(trials, "routing", "Experts against classes", lambda trial: plot_routing(trial.routing)),
            *_per_trial(
                [trial for trial in trials if _has_styles(trial)],
                "routing-styles",
                "Experts against styles",
                lambda trial: plot_routing(trial.style_routing),
            ),
            *_per_trial(
                [trial for trial in trials if trial.groups],
                "routing-groups",
                "Groups of experts against classes",
                lambda trial: plot_routing(trial.group_routing),
            ),
            Exhibit("agreements", "Scores of agreement", lambda: tables.agreements(trials)),
            *_over_seeds(evidence),
        ),
    )
    probed = partial(tables.that_have, trials, lambda trial: trial.separability)
    yield Section(
        "What can be read from the latent space",
        f"{shown}. {reading('latent-space')}",
        (
            Exhibit(
                "probes",
                "Linear probes and controls",
                lambda: plot_probes(probe_bars({trial.title: [found] for trial, found in probed().items()})),
            ),
            Exhibit("separability", "Probes, neighbours, silhouettes", lambda: tables.separabilities(trials)),
            *_per_trial(trials, "map", "Map of the latent space", lambda trial: plot_map(trial.coloured_map)),
            Exhibit("maps", "Trustworthiness of the maps", lambda: tables.maps(trials)),
        ),
    )
    yield Section(
        "Images by expert",
        f"{shown}. {reading('drawings')}",
        (
            *_per_trial(trials, "gallery", "Gallery", _gallery),
            *_per_trial(trials, "swap-matrix", "Swap matrix", _swap_matrix),
            *_per_trial(trials, "interpolation", "Paths between experts", _interpolation),
        ),
    )


def _encoding(evidence: Evidence) -> Section:
    trials = [of_arm[0] for of_arm in evidence.encodings.values()]
    return Section(
        "What each expert encodes",
        reading("encoding"),
        (
            Exhibit("encoding-findings", "The three findings", lambda: tables.encoding_findings(evidence)),
            *_per_trial(
                trials,
                "class-preference",
                "Classes given and classes decoded best",
                lambda trial: plot_class_preference(trial.preference),
            ),
            *_per_trial(
                trials, "exciting-inputs", "Exciting inputs", lambda trial: plot_exciting_inputs(trial.exciting)
            ),
            *_per_trial(trials, "expert-tuning", "Tuning curves", lambda trial: plot_expert_tuning(trial.tuning)),
            *_per_trial(
                trials,
                "expert-similarity",
                "Similarity of experts",
                lambda trial: plot_expert_similarity(trial.similarity),
            ),
            *_per_trial(
                trials, "ablation", "Without an expert, and by another", lambda trial: plot_ablation(trial.ablation)
            ),
            Exhibit("encodings", "Each expert in numbers", lambda: tables.encodings(trials)),
            Exhibit("expert-tunings", "Tuning in numbers", lambda: tables.tunings(trials)),
            Exhibit(
                "hidden-separability",
                "Classes in each expert's hidden values",
                lambda: tables.hidden_separabilities(trials),
            ),
            Exhibit("encoding-trials", "All experts together", lambda: tables.encoding_trials(trials)),
            Exhibit("encoding-stability", "Between seeds", lambda: tables.encoding_stability(evidence)),
        ),
    )


@cache
def _readings() -> dict[str, dict[str, str]]:
    return tomllib.loads((resources.files("smoe_ray.report") / "readings.toml").read_text(encoding="utf-8"))


def reading(section: str, **words: str) -> str:
    """How to read a section, from readings.toml, with `words` in place of their names in braces."""
    return " ".join(_readings()[section]["text"].format(**words).split())


def _of_recommendations(name: str, title: str, plot: Callable[..., Figure], evidence: Evidence) -> Exhibit:
    return Exhibit(name, title, lambda: plot(evidence.recommendations.answered()))


def _per_trial(
    trials: Sequence[Of], name: str, title: str, make: Callable[[Of], Figure | pd.DataFrame]
) -> Iterator[Exhibit]:
    for trial in trials:
        yield Exhibit(f"{name}-{trial.record.trial_id}", f"{title}: {trial.title}", partial(make, trial))


def _gallery(trial: TrialAnalysis) -> Figure:
    return plot_gallery(expert_gallery(trial.embeddings, trial.class_names, label=trial.title))


def _swap_matrix(trial: TrialAnalysis) -> Figure:
    return plot_swap_matrix(swap_matrix(trial.embeddings, trial.model, label=trial.title))


def _interpolation(trial: TrialAnalysis) -> Figure:
    return plot_interpolation(interpolation(trial.embeddings, trial.model, label=trial.title))


def _over_seeds(evidence: Evidence) -> Iterator[Exhibit]:
    if evidence.has_trees:
        yield Exhibit(
            "tree-routings", "Layers of hierarchical gates, over seeds", lambda: tables.tree_routings(evidence)
        )
    if evidence.has_styles:
        yield Exhibit(
            "style-agreements",
            "Agreement with classes and styles, over seeds",
            lambda: tables.style_agreements(evidence),
        )


def _has_styles(trial: TrialAnalysis) -> bool:
    try:
        return bool(trial.style_names)
    except ResultsError:  # no embeddings were stored, as the other exhibits report
        return False


def _several_amounts(results: pd.DataFrame) -> pd.DataFrame:
    """The results, unchanged. Raises ResultsError if all trials have the same amount of data."""
    if "data.train_images" in results and results["data.train_images"].nunique() < 2:
        raise ResultsError(
            "all trials have the same number of training images; vary data.fraction or data.train_per_class"
        )
    return results


def _absent(why: str) -> Figure:
    raise ResultsError(why)
