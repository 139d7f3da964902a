"""From a study to finished trials: planning, the executor protocol, the local executor, progress."""

from smoe_ray.study.local import LocalExecutor
from smoe_ray.study.plan import plan_grid
from smoe_ray.study.run import Executor, StudyRun, TrialTask, refuse_failures, run_study, train_trial

__all__ = [
    "Executor",
    "LocalExecutor",
    "StudyRun",
    "TrialTask",
    "plan_grid",
    "refuse_failures",
    "run_study",
    "train_trial",
]
