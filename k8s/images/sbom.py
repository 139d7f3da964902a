"""Bills of materials (CycloneDX 1.6, JSON) of the Python packages of the images: ``python k8s/images/sbom.py FOLDER``.

They are taken from the environment that runs this, whose versions are those of constraints.txt as in the images; of it,
only what an image installs is listed. The packages of the base images' operating system, and the CUDA libraries of
smoe-ray-gpu, are not: a scanner of images finds those.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"smoe-ray": ("s3", "gcs"), "smoe-ray-dashboard": ("dashboard", "s3", "gcs")}
"""Image: the extras that it installs."""


def needed(name: str, extras: Iterable[str]) -> set[str]:
    """Names of the distributions that a distribution with extras needs in this environment, itself included."""
    waiting = {(canonicalize_name(name), extra) for extra in ("", *extras)}
    seen: set[tuple[str, str]] = set()
    while waiting:
        one, extra = waiting.pop()
        seen.add((one, extra))
        for text in metadata.requires(one) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found = {(canonicalize_name(requirement.name), more) for more in ("", *requirement.extras)}
                waiting |= found - seen
    return {one for one, _ in seen}


def environment() -> dict[str, Any]:
    """The bill of materials of this whole environment, without times and random numbers."""
    program = Path(sys.executable).with_name("cyclonedx-py")
    options = ["--output-reproducible", "--no-validate", "--spec-version=1.6", f"--pyproject={ROOT / 'pyproject.toml'}"]
    command = [str(program), "environment", *options, sys.executable]
    ran = subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # no shell, no foreign words
    return json.loads(ran.stdout)  # type: ignore[no-any-return]


def part(bill: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """A bill of materials with the components of these names only."""
    components = [each for each in bill["components"] if canonicalize_name(each["name"]) in names]
    kept = {each["bom-ref"] for each in components} | {bill["metadata"]["component"]["bom-ref"]}
    dependencies = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in bill["dependencies"]
        if each["ref"] in kept
    ]
    return {**bill, "components": components, "dependencies": dependencies}


def main(folder: Path) -> None:
    """Write a file per image."""
    folder.mkdir(parents=True, exist_ok=True)
    bill = environment()
    for image, extras in IMAGES.items():
        text = json.dumps(part(bill, needed("smoe-ray", extras)), indent=2, sort_keys=True)
        (folder / f"{image}.cdx.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
