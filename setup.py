"""Packages of the wheel; everything else is in pyproject.toml, which cannot give found packages another name.

The folders dashboard/, k8s/ and studies/ are installed as packages whose names begin with smoe_ray, as other
distributions may have packages of the short names.
"""

from setuptools import find_packages, setup

FOLDERS = {"smoe_ray_dashboard": "dashboard", "smoe_ray_k8s": "k8s", "smoe_ray_studies": "studies"}

setup(
    packages=[
        *find_packages(include=["smoe_ray", "smoe_ray.*"]),
        *FOLDERS,
        *(f"smoe_ray_dashboard.{name}" for name in find_packages("dashboard")),
    ],
    package_dir=FOLDERS,
)
