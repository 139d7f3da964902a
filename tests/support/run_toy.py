"""Run the toy study as a program: ``python -m support.run_toy OUT JOBS|ray toy|real FIELDS_AS_JSON``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from smoe_ray.cluster.ray_executor import RayExecutor
from smoe_ray.cluster.runtime import leave
from smoe_ray.errors import SmoeRayError
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.events import Event, Notice
from smoe_ray.study.stop_signals import stopping_like_ctrl_c
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.toy_training import RealFit


def _say(event: Event) -> None:
    if isinstance(event, Notice):
        sys.stderr.write(event.text + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell started the tests with "&"
    out, executor = Path(sys.argv[1]), sys.argv[2]
    training = {"toy": Toy, "real": RealFit}[sys.argv[3]]
    fit = training(log=out.parent / "log", **json.loads(sys.argv[4]))
    try:
        with stopping_like_ctrl_c():
            made = RayExecutor(fit=fit) if executor == "ray" else LocalExecutor(int(executor), fit=fit)
            run_study(toy_grid(), out, made, on_event=_say)
    except KeyboardInterrupt:
        leave(130)
    except SmoeRayError as error:
        sys.stderr.write(f"error: {error}\n")
        leave(1)
