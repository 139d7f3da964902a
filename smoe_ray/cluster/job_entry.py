"""Entry point of a job: ``python -m smoe_ray.cluster.job_entry``, in the folder that `jobs.submit` sent.

Does the same as ``smoe-ray run`` on the cluster of the job, but takes no command line arguments.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from smoe_ray import job_payload
from smoe_ray.errors import SmoeRayError
from smoe_ray.terminal_output import keep_libraries_quiet, print_whatever_the_encoding


def main() -> None:
    """Run the study; exit code 1 with one line for an error, 130 when stopped."""
    from smoe_ray.cluster.runtime import leave

    answer_sigterm_as_ctrl_c()
    print_whatever_the_encoding()
    keep_libraries_quiet()
    code = 0
    try:
        run()
    except SmoeRayError as error:
        print(f"smoe-ray: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        code = 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    leave(code)


def run() -> None:
    """Run the study in the working directory.

    Raises:
        SmoeRayError: also if a trial failed; if it diverged, only in a strict job, since a retry would repeat it.
    """
    from smoe_ray.cluster.ray_executor import RayExecutor
    from smoe_ray.spec import load_study
    from smoe_ray.study import refuse_failures, run_study
    from smoe_ray.study.progress import StudyProgress

    study = load_study(job_payload.STUDY_FILE)
    job = Path(job_payload.JOB_FILE).read_text(encoding="utf-8")
    out = job_payload.out_of(job)
    with StudyProgress(study) as progress, RayExecutor(address="auto") as executor:
        records = run_study(study, out, executor, data_jobs=executor.map, on_event=progress)
    diverged = refuse_failures(records, strict=job_payload.is_strict(job))
    if diverged:
        print(f"smoe-ray: {' '.join(diverged.split())}")  # noqa: T201


def answer_sigterm_as_ctrl_c() -> None:
    """Make SIGTERM, by which Ray stops a job, act like Ctrl-C. Call in the main thread, before any other is started.

    A signal handler would be replaced by that of `ray.init`. So SIGTERM is blocked, here and in all later threads, and
    one thread waits for it. (Ray also starts the processes of jobs with SIGINT blocked.)
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        signal.pthread_kill(main_thread, signal.SIGINT)

    main_thread = threading.get_ident()
    threading.Thread(target=wait, name="sigterm", daemon=True).start()


if __name__ == "__main__":
    main()
