"""Analyses of one finished trial, computed from the arrays that it stored over the fixed test set."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from smoe_ray.analysis import (
    Agreement,
    ColouredMap,
    LatentMap,
    Routing,
    Separability,
    TreeRouting,
    coloured_map,
    latent_map,
    routing,
    routing_within_classes,
    separability,
    tree_routing,
)
from smoe_ray.errors import ResultsError
from smoe_ray.results import DataFacts, TrialRecord, read_embeddings
from smoe_ray.results.trial import Arrays
from smoe_ray.spec.gates import HierarchicalGateSpec

if TYPE_CHECKING:
    from smoe_ray.training.inference import TrainedModel


class TrialAnalysis:
    """One finished trial. Each analysis is computed once, when first used.

    Every attribute below may raise ResultsError: the trial did not store what the analysis needs.
    """

    def __init__(self, out: str, record: TrialRecord, arm: str) -> None:
        self._out = out
        self.record = record
        self.arm = arm
        self.title = f"{arm}, seed {record.spec.seed}"

    @cached_property
    def embeddings(self) -> Arrays:
        """Arrays over the fixed test set, as `read_embeddings` returns them."""
        return read_embeddings(self._out, self.record.study, self.record.trial_id)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self._data.class_names

    @property
    def style_names(self) -> tuple[str, ...]:
        """Names of the styles (sub-categories); empty when the data have none."""
        return self._data.style_names if "style" in self.embeddings else ()

    @property
    def test_set(self) -> str:
        """Fingerprint of the data: trials with equal fingerprints share the same test images in the same order."""
        return self._data.fingerprint

    @cached_property
    def routing(self) -> Routing:
        """Experts against classes."""
        return routing(self.embeddings["expert"], self.embeddings["label"], self._num_experts, self.class_names)

    @cached_property
    def style_routing(self) -> Routing:
        """Experts against styles; those of a hierarchical gate by number, so that a group stands together."""
        if not self.style_names:
            raise ResultsError("routing against styles: these data have no styles; synthetic data do")
        found = routing(self.embeddings["expert"], self.embeddings["style"], self._num_experts, self.style_names)
        return found if self.groups is None else found._replace(reading_order=np.sort(found.reading_order))

    @property
    def groups(self) -> int | None:
        """Groups of experts of a hierarchical gate; None of another gate."""
        gate = self.record.spec.model.gate
        return gate.groups if isinstance(gate, HierarchicalGateSpec) else None

    @cached_property
    def tree_routing(self) -> TreeRouting:
        """Layers of a hierarchical gate against classes and styles."""
        groups = self._groups()
        stored = self.embeddings
        return tree_routing(stored["gate"], stored["expert"], stored["label"], stored.get("style"), groups)

    @cached_property
    def group_routing(self) -> Routing:
        """Groups of a hierarchical gate against classes."""
        groups = self._groups()
        group_B = self.embeddings["expert"] // (self._num_experts // groups)
        return routing(group_B, self.embeddings["label"], groups, self.class_names)._replace(block="group")

    @cached_property
    def agreements(self) -> dict[str, Agreement]:
        """Agreement of the experts with the classes, with the styles, and with the styles within each class."""
        found = {"classes": self.routing.agreement}
        if self.style_names:
            within = routing_within_classes(
                self.embeddings["expert"],
                self.embeddings["label"],
                self.embeddings["style"],
                self._num_experts,
                self.class_names,
                self.style_names,
            )
            found["styles"] = self.style_routing.agreement
            found |= {f"styles of {name}": within[name].agreement for name in within}
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
    def latent_map(self) -> LatentMap:
        """t-SNE map of the latent space, all test images."""
        return latent_map(self.embeddings["mu"])

    @cached_property
    def coloured_map(self) -> ColouredMap:
        """The same map coloured by expert, class and, if the data have them, style."""
        return coloured_map(
            self.latent_map,
            self.embeddings["expert"],
            self.embeddings["label"],
            self.class_names,
            self.embeddings["style"] if self.style_names else None,
            self.style_names,
        )

    @cached_property
    def model(self) -> TrainedModel:
        """The trained model."""
        from smoe_ray.training.inference import load_model

        return load_model(self._out, self.record.study, self.record.trial_id)

    @property
    def _data(self) -> DataFacts:
        if self.record.data is None:
            raise ResultsError(f"trial {self.record.trial_id}: its record names no data; run the trial again")
        return self.record.data

    def _groups(self) -> int:
        if self.groups is None:
            raise ResultsError(f"trial {self.record.trial_id}: its gate is not hierarchical")
        return self.groups

    @property
    def _num_experts(self) -> int:
        return int(self.embeddings["gate"].shape[1])
