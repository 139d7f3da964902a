"""Input of a report: the results of its studies, read once, and the analyses that several sections share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from smoe_ray.analysis import (
    ArmComparison,
    DatasetVerdict,
    LabelRouting,
    Recommendations,
    Representatives,
    arms,
    compare_arms,
    dataset_names,
    dataset_verdict,
    has_label_routing,
    label_routing,
    of_dataset,
    recommend,
    representatives,
)
from smoe_ray.errors import StudyError
from smoe_ray.report.trial_analysis import TrialAnalysis
from smoe_ray.results import Store, read_together, read_trials
from smoe_ray.results.study_file import read_study_text

MOST_TRIALS = 4
"""Maximum number of arms with analyses of a single trial, each of which takes up to a minute."""


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
