"""What a job of a cluster runs: ``python -m smoe_ray.cluster.job_entry``, in the folder that `jobs.submit` sent.

It is the same as ``smoe-ray run`` on the cluster that it finds itself in, but takes nothing from a command line.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from smoe_ray import job_payload
from smoe_ray.errors import SmoeRayError


def main() -> None:
    """Run the study; exit code 1 with one line for an error, 130 when stopped."""
    from smoe_ray.cluster.runtime import leave

    answer_sigterm_as_ctrl_c()
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
    """Run the study of this folder. Raises SmoeRayError, also when a trial failed."""
    from smoe_ray.cluster.ray_executor import RayExecutor
    from smoe_ray.spec import load_study
    from smoe_ray.study import refuse_failures, run_study
    from smoe_ray.study.progress import StudyProgress

    study = load_study(job_payload.STUDY_FILE)
    out = job_payload.out_of(Path(job_payload.JOB_FILE).read_text(encoding="utf-8"))
    with StudyProgress(study) as progress, RayExecutor(address="auto") as executor:
        records = run_study(study, out, executor, data_jobs=executor.map, on_event=progress)
    refuse_failures(records)


def answer_sigterm_as_ctrl_c() -> None:
    """Ray ends a job by SIGTERM; let it do what Ctrl-C does. Call it in the main thread, before any other starts.

    A handler would not last, since `ray.init` installs its own. So SIGTERM is blocked, here and in all threads to come,
    and one of them waits for it. (Ray also starts the processes of jobs with SIGINT blocked.)
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
