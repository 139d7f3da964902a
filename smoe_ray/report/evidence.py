"""Input of a report: the results of its studies, read once, and the analyses that several sections share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from smoe_ray.analysis import (
    ArmComparison,
    DatasetVerdict,
    LabelRouting,
    Recommendations,
    Representatives,
    TreeRouting,
    TreeRoutingOverTrials,
    arms,
    compare_arms,
    dataset_names,
    dataset_verdict,
    has_label_routing,
    label_routing,
    of_dataset,
    recommend,
    representatives,
    tree_routing_over_trials,
)
from smoe_ray.analysis.encoding import (
    EncodingFinding,
    SeedAgreement,
    SeedSimilarity,
    animate_classes,
    partition_agreement,
    similarity_across_seeds,
    three_findings,
    tuning_agreement,
)
from smoe_ray.analysis.style_agreement import CLASS_AMI, STYLE_AMI, STYLES
from smoe_ray.errors import ResultsError, StudyError
from smoe_ray.report.trial_analysis import TrialAnalysis
from smoe_ray.report.trial_encoding import TrialEncoding
from smoe_ray.results import Store, TrialFolder, TrialRecord, read_together, read_trials
from smoe_ray.results.probe import read_probe_record
from smoe_ray.results.study_file import read_study_text
from smoe_ray.spec.gates import HierarchicalGateSpec

MOST_TRIALS = 4
"""Maximum number of arms with analyses of a single trial, each of which takes up to a minute."""


MOST_TRIALS_WITH_STYLES = 500
"""Maximum number of trials whose embeddings are read to compare experts with styles, a tenth of a second each."""


MOST_PROBED_SEEDS = 10
"""Maximum number of seeds of an arm whose experts are compared, up to half a minute each."""


_IMAGES_OF_TUNING = 2000
"""Test images, evenly spread, on which the experts of two seeds are matched."""


class Stability(NamedTuple):
    """Experts of one arm compared between seeds."""

    seeds: int
    partition: SeedAgreement
    tuning: SeedAgreement
    hidden: SeedSimilarity | None
    """None: the experts show no hidden values."""


class Evidence:
    """Results of one or several studies as one table."""

    def __init__(self, out: str | Path, studies: Sequence[str], dataset: str | None = None) -> None:
        """Read the results of readable trials, of all datasets or of one.

        Raises:
            ResultsError: a study is absent or unreadable, or none is on that dataset.
        """
        self.out = str(out)
        self.studies = tuple(studies)
        self.results = read_together(out, studies, skip_broken=True)
        if dataset is not None:
            self.results = of_dataset(self.results, dataset)
        read = set(self.results["trial_id"])
        found = (record for study in studies for record in read_trials(out, study, skip_broken=True))
        self.records = tuple(record for record in found if record.trial_id in read)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line per file that cannot be read, whose trial is left out."""
        return tuple(self.results.attrs["problems"])

    @property
    def notices(self) -> tuple[str, ...]:
        """One line per reason why older trials are left out, and per damaged file of other trials."""
        return tuple(self.results.attrs["notices"])

    @property
    def equivalence_margin(self) -> float | None:
        """Within which the studies call test losses equivalent; None if they name none, or not the same."""
        margin: float | None = self.results.attrs["equivalence_margin"]
        return margin

    @cached_property
    def recommendations(self) -> Recommendations:
        """The recommended number of experts at the largest amount of data. Raises ResultsError."""
        return recommend(self.results)

    @cached_property
    def comparison(self) -> ArmComparison:
        """Every arm against the supervised arm or, if there is none, the first. Raises ResultsError."""
        return compare_arms(self.results)

    @property
    def has_label_routing(self) -> bool:
        """Whether unsupervised arms can be compared with label-routed ones."""
        return has_label_routing(self.results)

    @cached_property
    def label_routing(self) -> LabelRouting:
        """Every unsupervised arm against every label-routed one. Raises ResultsError."""
        return label_routing(self.results)

    @property
    def has_styles(self) -> bool:
        """Whether some finished trial is on data with styles."""
        return any(record.data is not None and record.data.style_names for record in self._finished())

    @cached_property
    def with_styles(self) -> pd.DataFrame:
        """The results with the columns that `style_agreements` needs. Raises ResultsError for too many trials."""
        scores = {}
        styled = [record for record in self._finished() if record.data is not None and record.data.style_names]
        if len(styled) > MOST_TRIALS_WITH_STYLES:
            raise ResultsError(
                f"agreement with styles: {len(styled):,} trials have styles, and it is computed for "
                f"{MOST_TRIALS_WITH_STYLES} at most; report fewer studies at once"
            )
        for record in styled:
            trial = TrialAnalysis(self.out, record, "")  # not kept: its arrays are large
            with suppress(ResultsError):  # it stored no embeddings
                styles = trial.style_routing
                scores[record.trial_id] = (len(styles.class_names), trial.routing.agreement.ami, styles.agreement.ami)
        frame = pd.DataFrame.from_dict(scores, orient="index", columns=[STYLES, CLASS_AMI, STYLE_AMI])
        joined = self.results.join(frame, on="trial_id")
        joined.attrs = dict(self.results.attrs)
        return joined

    @property
    def has_trees(self) -> bool:
        """Whether some finished trial has a hierarchical gate."""
        return any(_has_tree(record) for record in self._finished())

    @cached_property
    def tree_routings(self) -> dict[str, TreeRoutingOverTrials]:
        """By arm, the layers of hierarchical gates. Raises ResultsError if no such trial stored its embeddings."""
        found: dict[str, list[TreeRouting]] = {}
        problems = []
        arm_of = self.arm_of()
        for record in filter(_has_tree, self._finished()):
            try:
                tree = TrialAnalysis(self.out, record, "").tree_routing
            except ResultsError as error:
                problems.append(error)
            else:
                found.setdefault(arm_of[record.trial_id], []).append(tree)
        if not found:
            raise (
                problems[0] if problems else ResultsError("layers of a gate: no finished trial has a hierarchical one")
            )
        return {arm: tree_routing_over_trials(trees) for arm, trees in found.items()}

    @cached_property
    def encodings(self) -> dict[str, tuple[TrialEncoding, ...]]:
        """By arm, its probed trials in the order of their seeds, of at most `MOST_TRIALS` arms."""
        found: dict[str, list[TrialEncoding]] = {}
        arm_of = self.arm_of()
        for record in self.probed():
            arm = arm_of[record.trial_id]
            found.setdefault(arm, []).append(TrialEncoding(self.out, record, arm))
        return {
            arm: tuple(sorted(found[arm], key=lambda trial: trial.record.spec.seed)[:MOST_PROBED_SEEDS])
            for arm in list(found)[:MOST_TRIALS]
        }

    @property
    def has_probes(self) -> bool:
        """Whether some finished trial was probed."""
        return bool(self.encodings)

    @cached_property
    def encoding_findings(self) -> dict[str, tuple[EncodingFinding, ...]]:
        """By arm, the three findings over its probed trials. Raises ResultsError if no arm can be asked."""
        found: dict[str, tuple[EncodingFinding, ...]] = {}
        problems = []
        for arm, trials in self.encodings.items():
            animate_C = animate_classes(trials[0].class_names)
            dichotomy = None if animate_C is None else ("animate-inanimate", animate_C)
            try:
                found[arm] = three_findings([trial.measures for trial in trials], dichotomy)
            except ResultsError as error:
                problems.append(error)
        if not found:
            raise problems[0]
        return found

    @cached_property
    def stability(self) -> dict[str, Stability]:
        """By arm with two probed seeds or more. Raises ResultsError if there is none."""
        found = {arm: _stability(trials) for arm, trials in self.encodings.items() if len(trials) > 1}
        if not found:
            raise ResultsError("stability of experts: no arm has two probed seeds; probe more trials")
        return found

    def probed(self) -> Iterator[TrialRecord]:
        """Finished trials that have a probe, whether good or not."""
        return filter(self._is_probed, self._finished())

    def _is_probed(self, record: TrialRecord) -> bool:
        try:
            return read_probe_record(TrialFolder(Store(self.out), record.study, record.trial_id)) is not None
        except ResultsError:
            return True  # damaged: its exhibits say so

    def _finished(self) -> Iterator[TrialRecord]:
        return (record for record in self.records if record.status == "finished")

    @property
    def has_several_datasets(self) -> bool:
        """Whether the losses of the trials have no common scale."""
        return dataset_names(self.results).nunique() > 1

    @cached_property
    def datasets(self) -> DatasetVerdict:
        """The verdict on each dataset. Raises ResultsError."""
        return dataset_verdict(self.results)

    @cached_property
    def representatives(self) -> Representatives:
        """The trials that are analysed individually. Raises ResultsError."""
        return representatives(self.results, MOST_TRIALS)

    @cached_property
    def trials(self) -> tuple[TrialAnalysis, ...]:
        """Analyses of the representative trials."""
        record_of = {(record.study, record.trial_id): record for record in self.records}
        return tuple(
            TrialAnalysis(self.out, record_of[trial.study, trial.trial_id], trial.label)
            for trial in self.representatives.trials
        )

    def arm_of(self) -> dict[str, str]:
        """Label of each trial by its id."""
        return {str(trial): str(label) for trial, label in arms(self.results).items()}

    @cached_property
    def study_files(self) -> dict[str, str]:
        """By study, the text of its study.yaml as it was run; empty if absent or damaged."""
        store = Store(self.out)
        found = {}
        for study in self.studies:
            try:
                found[study] = read_study_text(store, study) or ""
            except StudyError:
                found[study] = ""
        return found

    def question(self, study: str) -> str:
        """The question of the study; empty if its file has none."""
        import yaml

        try:
            said: Any = yaml.safe_load(self.study_files[study])
        except yaml.YAMLError:
            return ""
        return str(said.get("question") or "") if isinstance(said, dict) else ""


def _has_tree(record: TrialRecord) -> bool:
    return isinstance(record.spec.model.gate, HierarchicalGateSpec)


def _stability(trials: tuple[TrialEncoding, ...]) -> Stability:
    if len({trial.test_set for trial in trials}) > 1:
        raise ResultsError("stability of experts: the seeds of an arm have different test images")
    some = slice(None, None, max(1, len(trials[0].expert_B) // _IMAGES_OF_TUNING))
    try:
        hidden = similarity_across_seeds([trial.hidden_EBH for trial in trials])
    except ResultsError:
        hidden = None
    return Stability(
        len(trials),
        partition_agreement([trial.expert_B for trial in trials]),
        tuning_agreement([trial.decoding_EB[:, some] for trial in trials]),
        hidden,
    )
