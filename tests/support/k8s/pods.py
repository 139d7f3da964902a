"""Pods without Kubernetes: namespaces of network, processes and mounts, user and limits, on this machine. Needs root.

A pod's root file system is this machine's, read-only; its volumes are folders of the test. Its processes run as the
user of the manifest, without capabilities, with exactly the environment of the manifest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.k8s.kuberay_pods import Manifest, container, quantity
from support.network_namespaces import network

ROOT = Path(__file__).resolve().parents[3]
IMAGE = {
    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": str(ROOT),  # the images have the package installed, including the dashboard
}

INIT = """
import os, signal, socket, sys
import warnings  # os.spawnvp does, when /root and with it the library may be hidden
os.umask(0o022)
name, python, etc, *mounts = sys.argv[1:]
socket.sethostname(name)

def mount(*words):
    if os.spawnvp(os.P_WAIT, "mount", ["mount", *words]):
        sys.exit(f"mount {words}")

mount("--bind", etc, "/etc")
if python.startswith("/root/"):  # not readable by other users
    os.makedirs(f"{etc}/python")
    mount("--bind", python, "/etc/python")
    mount("-t", "tmpfs", "-o", "mode=755", "none", "/root")
    os.makedirs(python)
    mount("--bind", "/etc/python", python)
mount("-t", "tmpfs", "-o", "mode=755", "none", "/mnt")
for kind, source, place in zip(mounts[::3], mounts[1::3], mounts[2::3]):
    os.makedirs(place, exist_ok=True)
    if kind == "memory":
        mount("-t", "tmpfs", "-o", f"size={source},mode=1777", "none", place)
    else:
        mount("--bind", source, place)
        if kind == "ro":
            mount("-o", "remount,bind,ro", place)
for place in ("/", "/etc", "/mnt"):
    mount("-o", "remount,bind,ro", place)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps orphans
print("ready", flush=True)
while True:
    signal.pause()
"""


@dataclass
class Pod:
    """A pod that processes can be started in."""

    name: str
    address: str
    template: Manifest
    process_id: int
    log: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a container's command as the manifest's user; its output goes to the log."""
        process = self._popen(command, environment)
        self.started.append(process)
        return process

    def run(self, command: Sequence[str], environment: Mapping[str, str], timeout_s: float = 300) -> str:
        """Run a command to its end; its output."""
        before = self.log.stat().st_size if self.log.exists() else 0
        code = self._popen(command, environment).wait(timeout_s)
        said = self.log.read_bytes()[before:].decode(errors="replace")
        assert code == 0, f"in {self.name}: {command}\n{said}"
        return said

    def main_process(self) -> int:
        """The process that Kubernetes would signal: the container's first."""
        [child] = Path(f"/proc/{self.started[-1].pid}/task/{self.started[-1].pid}/children").read_text().split()
        return int(child)

    def kill(self) -> None:
        """End all processes of the pod at once, as a lost node does."""
        os.kill(self.process_id, 9)
        for process in self.started:
            process.wait(30)

    def _popen(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        security = self.template["spec"]["securityContext"]
        inside = ["nsenter", f"--target={self.process_id}", "--net", "--pid", "--mount", "--uts", "--wd=/"]
        user = [
            "setpriv", f"--reuid={security['runAsUser']}", f"--regid={security['runAsGroup']}", "--clear-groups",
            "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
        ]  # fmt: skip
        words = [f"{name}={value}" for name, value in {**IMAGE, **environment}.items()]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*inside, *user, "env", "--ignore-environment", *words, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


class Node:
    """Makes pods with names and addresses, and the volumes that they share."""

    def __init__(self, folder: Path, addresses: Mapping[str, tuple[str, str]], stack: ExitStack) -> None:
        self._folder, self._addresses, self._stack = folder, addresses, stack
        self.aliases: dict[str, str] = {}
        """Name of a Service: the pod behind it."""
        self.files: dict[str, Mapping[str, str]] = {}
        """Name of a ConfigMap or Secret: its files."""
        self.pods: list[Pod] = []

    def claim(self, name: str) -> Path:
        """The folder behind a PersistentVolumeClaim."""
        return _owned(self._folder / "claims" / name)

    def pod(self, name: str, template: Manifest) -> Pod:
        """A pod with the volumes of its template."""
        namespace, address = self._addresses[name]
        etc = self._folder / "etc" / name
        shutil.copytree("/etc", etc, symlinks=True, ignore=shutil.ignore_patterns("shadow*", "gshadow*"))
        known = {pod: address for pod, (_, address) in self._addresses.items()}
        names = {**known, **{service: known[pod] for service, pod in self.aliases.items()}}
        (etc / "hosts").unlink()
        (etc / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in names.items()))
        (etc / "resolv.conf").unlink()
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")  # refuses at once
        python = str(Path(os.path.realpath(sys.executable)).parents[1])
        command = [
            "ip", "netns", "exec", namespace, "unshare", "--fork", "--kill-child", "--uts", "--mount", "--pid",
            "--mount-proc", "python3", "-c", INIT, name, python, str(etc), *self._mounts(name, template, etc),
        ]  # fmt: skip
        process = self._stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        self._stack.callback(process.kill)  # and with it, by --kill-child, all processes of the pod
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        pod = Pod(name, address, template, int(child), self._folder / f"{name}.log")
        self.pods.append(pod)
        return pod

    def _mounts(self, pod: str, template: Manifest, etc: Path) -> list[str]:
        volumes = {each["name"]: each for each in template["spec"]["volumes"]}
        words: list[str] = []
        mounts: list[Any] = container(template)["volumeMounts"]
        # /tmp last: what lies below it on this machine is hidden then.
        for mount in sorted(mounts, key=lambda each: str(each["mountPath"]) == "/tmp"):
            volume, place = volumes[mount["name"]], mount["mountPath"]
            if "persistentVolumeClaim" in volume:
                source = self.claim(volume["persistentVolumeClaim"]["claimName"])
            elif volume.get("emptyDir", {}).get("medium") == "Memory":
                words += ["memory", str(int(quantity(volume["emptyDir"]["sizeLimit"]))), place]
                continue
            elif "emptyDir" in volume:
                source = _owned(self._folder / "empty" / pod / volume["name"])
            else:
                source = self._written(volume.get("configMap", {}).get("name") or volume["secret"]["secretName"])
            words += ["ro" if mount.get("readOnly") else "rw", str(source), place]
        return words

    def _written(self, name: str) -> Path:
        folder = _owned(self._folder / "files" / name)
        for file, content in self.files[name].items():
            (folder / file).write_text(content)
            (folder / file).chmod(0o444)
        return folder


@contextmanager
def node(folder: Path, names: Sequence[str]) -> Iterator[Node]:
    """A machine for pods with these names. Everything ends with it."""
    with network(tuple(names)) as addresses:
        with ExitStack() as stack:
            machine = Node(folder, addresses, stack)
            yield machine
        for process in (each for pod in machine.pods for each in pod.started):
            process.wait(30)


def _owned(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, 1000, 100)  # fsGroup
    folder.chmod(0o775)
    return folder
