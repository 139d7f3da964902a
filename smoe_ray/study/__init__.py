"""From a study to finished trials: the driver, the executor protocol, the local executor, progress."""

from smoe_ray.planning import StudyPlan, plan_grid
from smoe_ray.study.driver import Executor, StudyRun, refuse_failures, run_study
from smoe_ray.study.local import LocalExecutor
from smoe_ray.study.trial_queue import TrialQueue
from smoe_ray.study.trial_run import TrialTask, train_trial

__all__ = [
    "Executor",
    "LocalExecutor",
    "StudyPlan",
    "StudyRun",
    "TrialQueue",
    "TrialTask",
    "plan_grid",
    "refuse_failures",
    "run_study",
    "train_trial",
]
