"""Scaling and hyperparameter studies of sparse mixture-of-experts VAEs (arXiv:2509.10025).

>>> import smoe_ray
>>> study = smoe_ray.load_study("studies/quickstart.yaml")  # doctest: +SKIP
>>> smoe_ray.run_study(study, "results", smoe_ray.RayExecutor())  # doctest: +SKIP
>>> table = smoe_ray.read_results("results", study.name)  # doctest: +SKIP

Names are resolved when first used (PEP 562): importing this package loads neither torch nor pandas.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "GridStudy": "smoe_ray.spec",
    "SearchStudy": "smoe_ray.spec",
    "TrialSpec": "smoe_ray.spec",
    "load_study": "smoe_ray.spec",
    "trial_with": "smoe_ray.spec",
    "SmoeRayError": "smoe_ray.errors",
    "load_splits": "smoe_ray.data",
    "SMoEVAE": "smoe_ray.model",
    "build_model": "smoe_ray.model",
    "model_cost": "smoe_ray.model",
    "Runtime": "smoe_ray.training",
    "fit": "smoe_ray.training",
    "read_embeddings": "smoe_ray.results",
    "read_results": "smoe_ray.results",
    "read_trials": "smoe_ray.results",
    "as_json": "smoe_ray.results",
    "preview": "smoe_ray.inspect.preview",
    "study_status": "smoe_ray.inspect.status",
    "scrub": "smoe_ray.inspect.integrity",
    "trial_summary": "smoe_ray.analysis.summary",
    "recommend": "smoe_ray.analysis",
    "draw": "smoe_ray.figures",
    "LocalExecutor": "smoe_ray.study",
    "run_study": "smoe_ray.study",
    "RayExecutor": "smoe_ray.cluster.ray_executor",
    "export_model": "smoe_ray.export",
    "export_study": "smoe_ray.export",
    "write_report": "smoe_ray.report",
    "Job": "smoe_ray.cluster.jobs",
    "list_jobs": "smoe_ray.cluster.jobs",
    "submit": "smoe_ray.cluster.jobs",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'smoe_ray' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
