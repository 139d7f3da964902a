"""The memory of this machine, and whether the trials of a study fit into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from smoe_ray.columns import count
from smoe_ray.errors import StudyError

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")

TOLERANCE = 1.25
"""How much too high an estimate of memory may be (benchmarks/results/memory.md): less than that is not refused."""


class MachineMemory(NamedTuple):
    """Bytes of memory, those of a container where its control groups allow less than the machine has."""

    total: int
    available: int
    """Without what programs use now; what the system keeps of files may be dropped."""


def machine_memory() -> MachineMemory | None:
    """The memory that processes started here may use; None where the system does not say."""
    known = _of_machine()
    for limit, used in _limits():
        known = MachineMemory(min(known.total, limit), min(known.available, max(0, limit - used))) if known else None
    return known


def fitting_jobs(peak: int, available: int) -> int:
    """How many processes of `peak` bytes fit at once: at least 1."""
    return max(1, available // peak)


def note_on_memory(peak: int, memory: MachineMemory, jobs: int = 1) -> str | None:
    """What to lower where `jobs` processes that need `peak` bytes each exceed what is available; else None."""
    if peak * jobs <= memory.available:
        return None
    needed = f"{count(jobs, 'process', 'processes')} of up to {in_gb(peak)}" if jobs > 1 else in_gb(peak)
    several = f"lower --jobs to {fitting_jobs(peak, memory.available)}, or " if jobs > 1 else "lower "
    return (
        f"a trial may run out of memory: about {needed} needed, {in_gb(memory.available)} available on this machine; "
        f"{several}training.batch_size or model.num_experts"
    )


def refuse_beyond(peak: int, total: int, where: str) -> None:
    """Raise StudyError if a process would need more than `total` bytes, even if the estimate `peak` is too high."""
    if peak > TOLERANCE * total:
        raise StudyError(
            f"a trial needs about {in_gb(peak)} of memory, and {where} has {in_gb(total)}: lower training.batch_size "
            "or model.num_experts, or use a larger machine"
        )


def in_gb(size: int) -> str:
    """Bytes in words, e.g. ``1.5 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _of_machine() -> MachineMemory | None:
    with suppress(OSError, KeyError, ValueError):
        lines = (line.split() for line in (_PROC / "meminfo").read_text().splitlines())
        kilobytes = {name.rstrip(":"): int(number) for name, number, *_ in lines}
        return MachineMemory(1024 * kilobytes["MemTotal"], 1024 * kilobytes["MemAvailable"])
    with suppress(OSError, ValueError):  # not Linux: what is used is not known
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return MachineMemory(total, total)
    return None


def _limits() -> Iterator[tuple[int, int]]:
    """Limit and use of each control group of this process that limits memory, bytes.

    Files that were not read lately do not count as used: the kubelet counts the same.
    """
    for folder in _groups():
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # absent, or "max"
                most, now = int((folder / limit).read_text()), int((folder / used).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                files = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
                yield most, max(0, now - files)


def _groups() -> Iterator[Path]:
    """Folders of the control groups of this process, and of those around them: the tightest limit counts."""
    yield from (_CGROUPS, _CGROUPS / "memory")  # what a container sees of itself
    with suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                root = _CGROUPS / controllers
                group = root / path.lstrip("/")
                yield from (one for one in (group, *group.parents) if one.is_relative_to(root) and one != root)
