"""The plan of a study: its trials, expanded once and shared by all that need them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from smoe_ray.planning.grid import trials_by_identity
from smoe_ray.planning.search_space import corners, points
from smoe_ray.spec import (
    Choices,
    GridStudy,
    PluginReference,
    ResourcesSpec,
    SearchStudy,
    TrialSpec,
    plugin_paths,
    plugin_references,
)


class StudyPlan:
    """What a study will run. Each part is computed on first use and kept.

    A large grid takes seconds to expand, so one plan is passed along instead of the study where several steps need it.

    Raises:
        StudyError: from every property: a combination of values is not a valid trial.
    """

    def __init__(self, study: GridStudy | SearchStudy) -> None:
        self.study = study

    @classmethod
    def of(cls, study: GridStudy | SearchStudy | StudyPlan) -> StudyPlan:
        """The plan of a study; a plan as it is."""
        return study if isinstance(study, StudyPlan) else cls(study)

    @cached_property
    def grid(self) -> dict[str, TrialSpec]:
        """Trials of a grid by `identity_of` each, in the order of the grid; empty for a search."""
        return trials_by_identity(self.study) if isinstance(self.study, GridStudy) else {}

    @cached_property
    def corners(self) -> Sequence[TrialSpec]:
        """Trials at the edges of a search space (`search_space.corners`); none for a grid."""
        return corners(self.study) if isinstance(self.study, SearchStudy) else ()

    @property
    def known_trials(self) -> Sequence[TrialSpec]:
        """Trials known before the study runs: all of a grid; of a search its base, since it proposes as it runs."""
        return list(self.grid.values()) if isinstance(self.study, GridStudy) else [self.study.base]

    @cached_property
    def points(self) -> Sequence[dict[str, Any]] | None:
        """All proposals of a search whose space has no more trials than it is to reach; None for any other study."""
        return points(self.study) if isinstance(self.study, SearchStudy) else None

    @property
    def total(self) -> int:
        """Trials of the grid, or the number that the search is to reach: at most as many as its space has."""
        if isinstance(self.study, GridStudy):
            return len(self.grid)
        return self.study.num_trials if self.points is None else len(self.points)

    @cached_property
    def plugins(self) -> Sequence[PluginReference]:
        """The plug-ins of the study's trials, each with its parameters; for a search, of its base and corners."""
        trials = self.known_trials
        if isinstance(self.study, SearchStudy):
            choices = {path: one.choices for path, one in self.study.space.items() if isinstance(one, Choices)}
            trials = [*trials, *(self.corners if plugin_paths(self.study.base, choices) else ())]
        references = (reference for trial in trials for reference in plugin_references(trial))
        return list({(one.kind, json.dumps(one.identity(), sort_keys=True)): one for one in references}.values())

    def check_plugins(self) -> None:
        """Import the plug-ins and validate their parameters.

        Raises:
            PluginError: a plug-in is not allowed, not installed or fails.
            StudyError: a parameter is wrong.
        """
        for reference in self.plugins:
            reference.resolve()

    @cached_property
    def resources(self) -> Sequence[ResourcesSpec]:
        """The distinct resource requests of the study's trials; for a search, of its base and corners."""
        trials = self.known_trials
        if isinstance(self.study, SearchStudy) and any(path.startswith("resources") for path in self.study.space):
            trials = [*trials, *self.corners]
        return list(dict.fromkeys(trial.resources for trial in trials))
