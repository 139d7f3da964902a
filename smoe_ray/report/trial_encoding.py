"""What the experts of one probed trial encode, computed from its probe and its stored test images."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding import (
    Ablation,
    BeyondClass,
    ClassPreference,
    ExcitingInputs,
    ExpertSeparability,
    ExpertSimilarity,
    ExpertTuning,
    SeedEncoding,
    ablate_experts,
    beyond_class,
    class_preference,
    exciting_inputs,
    expert_separability,
    expert_similarity,
    expert_tuning,
    pixel_features,
    relative_precision,
    seed_encoding,
)
from smoe_ray.errors import ResultsError
from smoe_ray.report.trial_analysis import TrialAnalysis
from smoe_ray.results import Probe, read_probe


class TrialEncoding(TrialAnalysis):
    """One probed trial. Each analysis is computed once, when first used.

    Every attribute below may raise ResultsError: a file is stale or damaged, or lacks what the analysis needs.
    """

    @cached_property
    def probe(self) -> Probe:
        """As `read_probe` returns it."""
        return read_probe(self._out, self.record.study, self.record.trial_id)

    @property
    def expert_B(self) -> IntArray:  # noqa: N802 - named by its shape
        """Expert of each test image."""
        expert_B: IntArray = self.probe.arrays["expert"].astype(np.int64)
        return expert_B

    @cached_property
    def gate_BE(self) -> FloatArray:  # noqa: N802
        """Gate probabilities of the test images."""
        return _softmax(self.probe.arrays["logit"])

    @property
    def _image_BI(self) -> npt.NDArray[np.uint8]:  # noqa: N802
        image_BI: npt.NDArray[np.uint8] = self.embeddings["image"]
        return image_BI

    @cached_property
    def exciting(self) -> tuple[ExcitingInputs, ...]:
        """What excites each expert most, by target."""
        return exciting_inputs(self.probe.arrays, self.probe.record.targets, self._image_BI)

    @cached_property
    def features_BF(self) -> FloatArray:  # noqa: N802
        """Pixel features of the test images."""
        return pixel_features(self._image_BI).value_BF

    @cached_property
    def preference(self) -> ClassPreference:
        """Classes that each expert is given, and is good at."""
        return class_preference(self.gate_BE, self._error_BE, self.expert_B, self._label_B, self.class_names)

    @cached_property
    def tuning(self) -> ExpertTuning:
        """Tuning curves over the stimuli."""
        found = self.probe.arrays
        return expert_tuning(
            [parameter.name for parameter in self.probe.record.parameters],
            found["stimulus_parameter"],
            found["stimulus_value"],
            found["stimulus_repeat"],
            _softmax(found["stimulus_logit"]),
            found["stimulus_error"],
        )

    @property
    def decoding_EB(self) -> FloatArray:  # noqa: N802
        """Relative precision of each expert on each test image."""
        return relative_precision(self._error_BE).T

    @cached_property
    def hidden_EBH(self) -> npt.NDArray[np.float16]:  # noqa: N802
        """Hidden values of every expert on every test image."""
        if "hidden" not in self.probe.arrays:
            raise ResultsError(f"trial {self.record.trial_id}: its experts show no hidden values")
        return self.probe.arrays["hidden"]

    @cached_property
    def class_separability(self) -> ExpertSeparability:
        """Of the classes, from each expert's hidden values."""
        return expert_separability(self.hidden_EBH, self._label_B, self.expert_B)

    @cached_property
    def similarity(self) -> ExpertSimilarity:
        """Of the experts' hidden values."""
        return expert_similarity(self.hidden_EBH)

    @cached_property
    def beyond_class(self) -> BeyondClass:
        """What pixel features explain beyond the class."""
        return beyond_class(self.decoding_EB.T, self.features_BF, self._label_B)

    @cached_property
    def ablation(self) -> Ablation:
        """Test loss without each expert."""
        return ablate_experts(
            self.probe.arrays["logit"], self._error_BE, self.expert_B, self._label_B, self.class_names
        )

    @cached_property
    def measures(self) -> SeedEncoding:
        """What the three findings need."""
        try:
            separability = self.class_separability
        except ResultsError:
            separability = None
        return seed_encoding(self.gate_BE, self._error_BE, self._label_B, self.features_BF, separability)

    @property
    def _error_BE(self) -> npt.NDArray[np.float32]:  # noqa: N802
        return self.probe.arrays["error"]

    @property
    def _label_B(self) -> IntArray:  # noqa: N802
        label_B: IntArray = self.probe.arrays["label"].astype(np.int64)
        return label_B


def _softmax(logit_BE: npt.NDArray[np.float32]) -> FloatArray:
    from scipy.special import softmax

    gate_BE: FloatArray = softmax(logit_BE.astype(np.float64), axis=1)
    return gate_BE
