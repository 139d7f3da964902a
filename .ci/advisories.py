"""Compare the versions of constraints.txt with the security advisories that a package brings along (safety-db).

Needs no network, and always says the same of the same files. **The newest advisory of safety-db is of July 2021**: no
package of an index has newer ones. For those, `pip-audit --requirement constraints.txt` asks a service.
Usage: python .ci/advisories.py [FILE]; exit code 1 if a version is known to be vulnerable.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
ACCEPTED: dict[str, str] = {}
"""Advisories (pyup.io-...) that do not concern this project: why."""


def pins(text: str) -> dict[str, str]:
    """Version by package."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines if line)}


def findings(versions: dict[str, str]) -> Iterator[str]:
    """One line per vulnerable version; one per accepted advisory that no longer says anything."""
    unused = set(ACCEPTED)
    # The package cannot be imported: it looks for its files in the working directory.
    file = metadata.distribution("safety-db").locate_file("safety_db/insecure_full.json")
    read = json.loads(Path(str(file)).read_text(encoding="utf-8"))
    advisories = {canonicalize_name(name): some for name, some in read.items() if name != "$meta"}
    for name, version in versions.items():
        for advisory in advisories.get(name, ()):
            if not any(SpecifierSet(spec).contains(version, prereleases=True) for spec in advisory["specs"]):
                continue
            if advisory["id"] in ACCEPTED:
                unused.discard(advisory["id"])
            else:
                said = " ".join(advisory["advisory"].split())[:200]
                yield f"{name}=={version}: {advisory['id']} ({advisory['cve'] or 'no CVE'}): {said}"
    yield from (f"{each}: accepted, and concerns no version any more: remove it" for each in sorted(unused))


if __name__ == "__main__":
    found = list(findings(pins(Path(*sys.argv[1:2] or [PINS]).read_text(encoding="utf-8"))))
    print("\n".join(found) or "no version of constraints.txt is known to safety-db as vulnerable")  # noqa: T201
    sys.exit(bool(found))
