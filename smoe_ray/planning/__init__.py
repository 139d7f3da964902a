"""From a study's spec to its trials: the grid, the search space, and the plan that holds both. Reads no files."""

from smoe_ray.planning.grid import identity_of, plan_grid
from smoe_ray.planning.plan import StudyPlan
from smoe_ray.planning.search_space import corners, distributions, parameters_of, points, suggest, trial_of
from smoe_ray.planning.size import MAX_TRIALS, trials_to_plan

__all__ = [
    "MAX_TRIALS",
    "StudyPlan",
    "corners",
    "distributions",
    "identity_of",
    "parameters_of",
    "plan_grid",
    "points",
    "suggest",
    "trial_of",
    "trials_to_plan",
]
