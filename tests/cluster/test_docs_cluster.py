"""docs/cluster.md, command by command, on three hosts: namespaces with their own network, processes and homes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from smoe_ray.results import read_trials
from support.hosts import Host, hosts_of_our_own

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
HOSTS = ("head", "worker-1", "worker-2")

STUDY = """
name: quickstart
question: Does the page tell the truth?
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 40, test_per_class: 10}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 30 epochs, batch_size: 16}
seeds: [0, 1, 2, 3]
"""


class Block(NamedTuple):
    language: str
    hosts: tuple[str, ...]
    text: str


def blocks(page: str) -> list[Block]:
    """The programs of a page; the first line of each says on which hosts it runs."""
    found = []
    for language, on, text in re.findall(
        r"^```(bash|python)\n# on ([^\n]+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    ):
        found.append(Block(language, tuple(on.split(", ")), text))
    return found


def test_every_block_says_where_it_runs() -> None:
    page = PAGE.read_text()
    assert len(blocks(page)) == page.count("```") // 2
    assert {host for block in blocks(page) for host in block.hosts} == {*HOSTS, "laptop"}


@pytest.mark.timeout(1800)
def test_the_page_tells_the_truth(tmp_path: Path) -> None:
    with hosts_of_our_own(tmp_path, HOSTS, visitor="laptop") as hosts:
        follow_the_page(hosts, tmp_path)


def follow_the_page(hosts: dict[str, Host], tmp_path: Path) -> None:
    laptop = hosts["laptop"]
    give_ssh(laptop, hosts)
    (laptop.home / "studies").mkdir()
    (laptop.home / "studies/quickstart.yaml").write_text(STUDY)
    said: dict[str, list[str]] = {name: [] for name in hosts}
    for block in blocks(PAGE.read_text()):
        for name in block.hosts:
            said[name].append(hosts[name].run(block.text, block.language))

    token = (laptop.home / ".ray/auth_token").read_text()
    for name in HOSTS:
        assert (hosts[name].home / ".ray/auth_token").read_text() == token
        assert (hosts[name].home / ".ray/auth_token").stat().st_mode & 0o077 == 0
    # How many CPUs it lists depends on the moment: Ray brings its report up to date every few seconds.
    assert "Node status" in said["head"][1]
    everything = "".join(said["laptop"])
    assert re.search(
        r"^quickstart-[0-9a-f]{8} +(pending|running) .* /mnt/results +first try$", everything, re.MULTILINE
    )
    assert "False JobStatus(state=" in everything
    assert re.search(r"^quickstart-[0-9a-f]{8}: stopped$", everything, re.MULTILINE)
    assert "4 trials, 4 of them done before" in said["laptop"][-1]
    records = read_trials(tmp_path / "mnt/results", "quickstart")
    assert [record.status for record in records] == ["finished"] * 4
    assert {record.host for record in records} <= {"worker-1", "worker-2"}


def give_ssh(laptop: Host, hosts: dict[str, Host]) -> None:
    """`ssh HOST COMMAND`, as far as the page needs it."""
    cases = "".join(
        f'{name}) HOME={hosts[name].home} exec {" ".join(hosts[name].enter)} bash -c "$2";;\n' for name in HOSTS
    )
    script = laptop.home / "bin" / "ssh"
    script.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}*) exit 255;;\nesac\n')
    script.chmod(0o755)
