"""Hosts of a test's own: namespaces with their own network, processes, names and homes, and one folder that all see."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.network_namespaces import network
from support.ray_cluster import BIN, clean_environment

PATIENCE_S = 300

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


@dataclass
class Host:
    """A host that `run` gives commands to; exported variables stay from one to the next, as in a shell."""

    name: str
    home: Path
    process_id: int
    path: str

    @property
    def enter(self) -> list[str]:
        """The command that begins one on this host."""
        return ["nsenter", f"--target={self.process_id}", "--net", "--pid", "--mount", "--uts"]

    def run(self, program: str, language: str = "bash", fails: bool = False) -> str:
        """What it prints. `fails`: whether it is to end with exit code 1."""
        environment = self.home / "environment"
        if language == "python":
            (self.home / "program.py").write_text(program)
            program = f"python {self.home}/program.py"
        script = (
            f"set -e\n[ ! -e {environment} ] || . {environment}\ncd {self.home}\n{program}\nexport -p > {environment}"
        )
        done = subprocess.run(
            [*self.enter, "bash", "-c", script],
            env=clean_environment(HOME=str(self.home), PATH=self.path, COLUMNS="120"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == int(fails), f"on {self.name}:\n{program}\n{done.stdout}"
        return done.stdout


@contextmanager
def hosts_of_our_own(folder: Path, names: tuple[str, ...], visitor: str) -> Iterator[dict[str, Host]]:
    """Hosts by name, and a visitor that may enter the others; all see ``folder/mnt`` as /mnt."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        pytest.skip("hosts of our own need root, ip, nsenter and unshare")
    with network((*names, visitor)) as addresses, ExitStack() as stack:
        known = folder / "hosts"
        known.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, (_, ip) in addresses.items()))
        # A name server that refuses at once: gRPC also asks for what the file with the names has not (IPv6).
        no_dns = folder / "resolv.conf"
        no_dns.write_text("nameserver 127.0.0.1\n")
        (folder / "mnt" / "results").mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        made: dict[str, Host] = {}
        for name, (namespace, _) in addresses.items():
            home = folder / "home" / name
            (home / "ray").mkdir(parents=True)
            (home / "bin").mkdir()
            over = {"/etc/hosts": known, "/etc/resolv.conf": no_dns, "/mnt": folder / "mnt", "/tmp/ray": home / "ray"}
            command = [
                "ip", "netns", "exec", namespace, "unshare", "--fork", "--kill-child", "--uts", "--mount",
                *(("--pid", "--mount-proc") if name != visitor else ()),  # the visitor may enter the others: ssh
                "python3", "-c", INIT, name, *(word for place, own in over.items() for word in (own, place)),
            ]  # fmt: skip
            # Ended by ending the first process of each.
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)  # and with it, by --kill-child, all processes of the host
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            made[name] = Host(name, home, int(child), f"{home}/bin:{BIN}:{os.environ['PATH']}")
        yield made
