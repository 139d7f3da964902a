"""docs/cluster.md, command by command, on three hosts: namespaces with their own network, processes and homes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from ray_cluster import BIN, clean_environment

from smoe_ray.results import read_trials

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
HOSTS = ("head", "worker-1", "worker-2")
PATIENCE_S = 300

STUDY = """
name: quickstart
question: Does the page tell the truth?
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 40, test_per_class: 10}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 30 epochs, batch_size: 16}
seeds: [0, 1, 2, 3]
"""

INIT = """
import os, signal, socket, sys
os.umask(0o022)
socket.sethostname(sys.argv[1])
for place, over in zip(sys.argv[2::2], sys.argv[3::2]):
    if os.system(f"mount --bind {place} {over}"):
        sys.exit(1)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel buries orphans, as init would
print("ready", flush=True)
while True:
    signal.pause()
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


@dataclass
class Host:
    """A host that `run` gives commands to; exported variables stay from one to the next, as in a shell."""

    name: str
    home: Path
    process_id: int
    path: str

    def run(self, block: Block) -> str:
        environment = self.home / "environment"
        program = block.text
        if block.language == "python":
            (self.home / "program.py").write_text(program)
            program = f"python {self.home}/program.py"
        script = (
            f"set -e\n[ ! -e {environment} ] || . {environment}\ncd {self.home}\n{program}\nexport -p > {environment}"
        )
        done = subprocess.run(
            [*enter(self.process_id), "bash", "-c", script],
            env=clean_environment(HOME=str(self.home), PATH=self.path, COLUMNS="120"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"on {self.name}:\n{block.text}\n{done.stdout}"
        return done.stdout


def enter(process_id: int) -> list[str]:
    return ["nsenter", f"--target={process_id}", "--net", "--pid", "--mount", "--uts"]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, Host]]:
    """Three hosts and a laptop that see one shared folder as /mnt. Ended by ending the first process of each."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        pytest.skip("hosts of our own need root, ip, nsenter and unshare")
    with network((*HOSTS, "laptop")) as addresses, ExitStack() as stack:
        names = tmp_path / "hosts"
        names.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, (_, ip) in addresses.items()))
        # A name server that refuses at once: gRPC also asks for what the file with the names has not (IPv6).
        no_dns = tmp_path / "resolv.conf"
        no_dns.write_text("nameserver 127.0.0.1\n")
        (tmp_path / "mnt" / "results").mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        made: dict[str, Host] = {}
        for name, (namespace, _) in addresses.items():
            home = tmp_path / "home" / name
            (home / "ray").mkdir(parents=True)
            (home / "bin").mkdir()
            over = {"/etc/hosts": names, "/etc/resolv.conf": no_dns, "/mnt": tmp_path / "mnt", "/tmp/ray": home / "ray"}
            command = [
                "ip", "netns", "exec", namespace, "unshare", "--fork", "--kill-child", "--uts", "--mount",
                *(("--pid", "--mount-proc") if name != "laptop" else ()),  # the laptop may enter the others: ssh
                "python3", "-c", INIT, name, *(word for place, own in over.items() for word in (own, place)),
            ]  # fmt: skip
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)  # and with it, by --kill-child, all processes of the host
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            made[name] = Host(name, home, int(child), f"{home}/bin:{BIN}:{os.environ['PATH']}")
        yield made


@contextmanager
def network(names: tuple[str, ...]) -> Iterator[dict[str, tuple[str, str]]]:
    """A network namespace for each name, on one bridge: name -> (namespace, its address)."""
    tag = f"sm{os.getpid() % 100_000}"
    subnet = f"10.{os.getpid() % 200 + 20}.73"
    with ExitStack() as stack:

        def ip(*words: str, undo: tuple[str, ...] = ()) -> None:
            subprocess.run(["ip", *words], check=True)
            if undo:
                stack.callback(subprocess.run, ["ip", *undo], check=False)

        bridge = f"{tag}b"
        ip("link", "add", bridge, "type", "bridge", undo=("link", "del", bridge))
        ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        made = {}
        for number, name in enumerate(names, 1):
            space = f"{tag}-{name}"
            ip("netns", "add", space, undo=("netns", "del", space))
            ip("link", "add", f"{tag}v{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", f"{tag}v{number}", "master", bridge, "up")
            for words in (
                ("addr", "add", f"{subnet}.{number}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
                ("route", "add", "default", "via", f"{subnet}.254"),  # leads nowhere; Ray asks which way is out
            ):
                ip("-n", space, *words)
            made[name] = (space, f"{subnet}.{number}")
        yield made


@pytest.mark.timeout(1800)
def test_the_page_tells_the_truth(hosts: dict[str, Host], tmp_path: Path) -> None:
    laptop = hosts["laptop"]
    give_ssh(laptop, hosts)
    (laptop.home / "studies").mkdir()
    (laptop.home / "studies/quickstart.yaml").write_text(STUDY)
    said: dict[str, list[str]] = {name: [] for name in hosts}
    for block in blocks(PAGE.read_text()):
        for name in block.hosts:
            said[name].append(hosts[name].run(block))

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
        f'{name}) HOME={hosts[name].home} exec {" ".join(enter(hosts[name].process_id))} bash -c "$2";;\n'
        for name in HOSTS
    )
    script = laptop.home / "bin" / "ssh"
    script.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}*) exit 255;;\nesac\n')
    script.chmod(0o755)
