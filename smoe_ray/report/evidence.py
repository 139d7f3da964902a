"""What a report draws from: the results of some studies, read once, and what several of its sections share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoe_ray.analysis import (
    Agreement,
    ArmComparison,
    ColouredMap,
    Recommendations,
    Representative,
    Representatives,
    Routing,
    Separability,
    arms,
    coloured_map,
    compare_arms,
    latent_map,
    recommend,
    representatives,
    routing,
    routing_within_classes,
    separability,
)
from smoe_ray.errors import ResultsError
from smoe_ray.results import Store, TrialRecord, read_embeddings, read_together, read_trials
from smoe_ray.results.trial import Arrays

if TYPE_CHECKING:
    from smoe_ray.training.inference import TrainedModel

MOST_TRIALS = 4
"""Arms of which one trial is looked at closely: each takes up to a minute."""


class Trial:
    """One finished trial, looked at closely. Every attribute may raise ResultsError: then the trial did not keep it."""

    def __init__(self, out: str, record: TrialRecord, of: Representative) -> None:
        self._out = out
        self.record = record
        self.label = of.label
        self.title = f"{of.label}, seed {of.seed}"

    @cached_property
    def embeddings(self) -> Arrays:
        """Arrays over the fixed test set."""
        return read_embeddings(self._out, self.record.study, self.record.trial_id)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        assert self.record.data is not None, "a finished trial has read its data"
        return self.record.data.class_names

    @property
    def style_names(self) -> tuple[str, ...]:
        """Names of the sub-categories; empty for data that have none."""
        assert self.record.data is not None, "a finished trial has read its data"
        return self.record.data.style_names if "style" in self.embeddings else ()

    @cached_property
    def routing(self) -> Routing:
        """Experts against classes."""
        return routing(self.embeddings["expert"], self.embeddings["label"], self._num_experts, self.class_names)

    @cached_property
    def style_routing(self) -> Routing:
        """Experts against styles."""
        if not self.style_names:
            raise ResultsError("routing against styles: the data have none; synthetic data do")
        return routing(self.embeddings["expert"], self.embeddings["style"], self._num_experts, self.style_names)

    @cached_property
    def agreements(self) -> dict[str, Agreement]:
        """Agreement of the experts with the classes, with the styles, and with the styles inside each class."""
        found = {"classes": self.routing.agreement}
        if self.style_names:
            inside = routing_within_classes(
                self.embeddings["expert"],
                self.embeddings["label"],
                self.embeddings["style"],
                self._num_experts,
                self.class_names,
                self.style_names,
            )
            found["styles"] = self.style_routing.agreement
            found |= {f"styles of {name}": inside[name].agreement for name in inside}
        return found

    @cached_property
    def separability(self) -> tuple[Separability, ...]:
        """Probes and controls."""
        return separability(
            self.embeddings["mu"],
            self.embeddings["label"],
            self.embeddings["expert"],
            gate_hidden=self.record.spec.model.gate_hidden,
        )

    @cached_property
    def map(self) -> ColouredMap:
        """t-SNE map of the latent space."""
        return coloured_map(
            latent_map(self.embeddings["mu"]),
            self.embeddings["expert"],
            self.embeddings["label"],
            self.class_names,
            self.embeddings["style"] if self.style_names else None,
            self.style_names,
        )

    @cached_property
    def model(self) -> TrainedModel:
        """Its trained model."""
        from smoe_ray.training.inference import load_model

        return load_model(self._out, self.record.study, self.record.trial_id)

    @property
    def _num_experts(self) -> int:
        return int(self.embeddings["gate"].shape[1])


class Evidence:
    """Results of one or several studies as one table."""

    def __init__(self, out: str | Path, studies: Sequence[str]) -> None:
        """Read them, without trials of unreadable files. Raises ResultsError when a study is absent or unreadable."""
        self.out = str(out)
        self.studies = tuple(studies)
        self.results = read_together(out, studies, skip_broken=True)
        read = set(self.results["trial_id"])
        found = (record for study in studies for record in read_trials(out, study, skip_broken=True))
        self.records = tuple(record for record in found if record.trial_id in read)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line per file that cannot be read, whose trial is left out."""
        return tuple(self.results.attrs["problems"])

    @cached_property
    def recommendations(self) -> Recommendations:
        """The recommended number of experts at the largest amount of data; raises ResultsError."""
        return recommend(self.results)

    @cached_property
    def comparison(self) -> ArmComparison:
        """Every arm against the supervised, or else the first one; raises ResultsError."""
        return compare_arms(self.results)

    @cached_property
    def representatives(self) -> Representatives:
        """The trials that are looked at closely; raises ResultsError."""
        return representatives(self.results, MOST_TRIALS)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """The same, with what they kept."""
        record_of = {(record.study, record.trial_id): record for record in self.records}
        return tuple(Trial(self.out, record_of[one.study, one.trial_id], one) for one in self.representatives.trials)

    def arm_of(self) -> dict[str, str]:
        """Label of each trial by its id."""
        return {str(trial): str(label) for trial, label in arms(self.results).items()}

    def study_files(self) -> dict[str, str]:
        """By study, its study.yaml as it was run; empty text where there is none."""
        store = Store(self.out)
        contents = {study: store.read(f"{study}/study.yaml") or b"" for study in self.studies}
        return {study: content.decode(errors="replace") for study, content in contents.items()}

    def question(self, study: str) -> str:
        """What the study asks; empty where its file does not say."""
        import yaml

        try:
            said: Any = yaml.safe_load(self.study_files()[study])
        except yaml.YAMLError:
            return ""
        return str(said.get("question") or "") if isinstance(said, dict) else ""
