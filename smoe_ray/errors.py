"""One tree of errors. Each prints as one line that says what, where and what to do next.

::

    SmoeRayError
    ├── StudyError       a study file, a key, a value or an override is wrong
    ├── PluginError      a plug-in is absent, not allowed, or fails
    ├── DataError        a dataset is absent, unreadable or not what the study asks for
    ├── ResultsError     results are absent, unreadable or made by something else
    │   ├── StorageError     the place of the results does not answer or refuses; that may pass
    │   └── DamagedError     a file of the results is not what was written
    ├── ClusterError     a cluster or a job on it does not answer, refuses, or does not exist
    └── TrialError       a trial could not be finished
        ├── DivergedError    its loss became NaN or infinite
        └── WorkerDiedError  the process that trained it ended without a word
"""

from __future__ import annotations


class SmoeRayError(Exception):
    """Base of every error that a user can cause or mend; the CLI prints it as one line, exit code 1."""


class StudyError(SmoeRayError):
    """A study file, a key, a value or an override is wrong."""


class PluginError(SmoeRayError):
    """A plug-in (a user's own Python) is absent, not allowed, or fails; the message names it."""


class DataError(SmoeRayError):
    """A dataset is absent, unreadable or not what the study asks for."""


class ResultsError(SmoeRayError):
    """Results are absent, unreadable or made by something else."""


class StorageError(ResultsError):
    """The place of the results does not answer or refuses; that may pass."""


class DamagedError(ResultsError):
    """A file of the results is absent, cut or changed since it was written, or was never a file of a trial.

    Args:
        problem: which file, and what is wrong with it.
        advice: what to do, where the reader can do something.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem, advice)
        self.problem, self.advice = problem, advice

    def __str__(self) -> str:
        """The problem and the advice."""
        return f"{self.problem}; {self.advice}" if self.advice else self.problem


class ClusterError(SmoeRayError):
    """A cluster or a job on it does not answer, refuses, or does not exist."""


class TrialError(SmoeRayError):
    """A trial could not be finished."""


class DivergedError(TrialError):
    """The loss of a trial became NaN or infinite; the message holds the epoch and the terms."""


class WorkerDiedError(TrialError):
    """The process that trained a trial ended without a word (killed, or out of memory)."""


def out_of_memory(error: BaseException) -> str | None:
    """What to lower, if memory was short; else None.

    Python, torch on a CPU and torch on a GPU each raise another error.
    """
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
    ):
        return (
            "out of memory: lower training.batch_size or model.num_experts, or train fewer trials at once (--jobs), or "
            "each with more resources.workers, which share a batch"
        )
    return None
