"""The program kubectl, with its errors told in one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from smoe_ray.errors import ClusterError

_TIMEOUT_S = 300.0

NO_KUBERAY = (
    "the cluster does not know {what}: KubeRay is not installed there; helm install kuberay-operator "
    "kuberay/kuberay-operator --version 1.7.0"
)
NO_CLUSTER = "no Kubernetes answers ({what}); kubectl config current-context says which one was asked"
NO_CONTEXT = "context {what}: not in the kubeconfig; kubectl config get-contexts lists them"
NO_CONFIG = "no kubeconfig says where a cluster is ({what}); set KUBECONFIG, or write ~/.kube/config"
NO_NAMESPACE = "namespace {what}: not there; smoe-ray k8s init makes it"

_KNOWN = (
    (r'no matches for kind "([^"]+)" in version "ray\.io', NO_KUBERAY),
    (r'doesn\'t have a resource type "(ray\w+)"', NO_KUBERAY),
    (
        r'no matches for kind ("[^"]+" in version "[^"]+")',
        "the cluster does not know {what}: install what brings it, or leave the component that uses it out",
    ),
    (
        r'context was not found for specified context: (\S+)|context "([^"]+)" does not exist',
        NO_CONTEXT,
    ),
    (r'namespaces "([^"]+)" not found', NO_NAMESPACE),
    (r"(?:dial tcp|The connection to the server) (\S+?):? (?:.*refused|.*no such host|.*timeout)", NO_CLUSTER),
    (r"[Ff]orbidden: (.+)", "forbidden: {what}; ask whoever runs the cluster for the right"),
    (r"([Ii]nvalid configuration: no configuration has been provided)", NO_CONFIG),
)


class Target(NamedTuple):
    """Which cluster, as kubeconfig names it."""

    context: str | None = None

    @property
    def options(self) -> list[str]:
        """For kubectl."""
        return [] if self.context is None else [f"--context={self.context}"]


def kubectl(
    arguments: Sequence[str], target: Target | None = None, stdin: str | None = None, fine: Sequence[int] = (0,)
) -> str:
    """Run kubectl, and return what it prints.

    Args:
        arguments: of kubectl. They reach no shell.
        target: which cluster; None for what needs none.
        stdin: what it reads.
        fine: exit codes that are no error.

    Raises:
        ClusterError: kubectl is not there, or says that something is wrong.
    """
    command = [_program(), *(target.options if target else ()), *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # a list of arguments, no shell
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            env=os.environ | {"KUBECTL_EXTERNAL_DIFF": "diff -u -N"},  # its own default, which we read
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"kubectl {arguments[0]}: no end after {_TIMEOUT_S:g} s; does the cluster answer?") from None
    if done.returncode not in fine:
        raise ClusterError(_explain(arguments[0], done.stderr or done.stdout))
    return done.stdout


def attach(arguments: Sequence[str], target: Target) -> None:
    """Run kubectl on this terminal until it ends. Raises ClusterError when it fails."""
    code = subprocess.run([_program(), *target.options, *arguments], check=False).returncode  # noqa: S603
    if code:
        raise ClusterError(f"kubectl {arguments[0]}: ended with {code}; what it says above tells why")


def _explain(verb: str, said: str) -> str:
    """What kubectl said, in one line; where it is known, with what to do."""
    for pattern, words in _KNOWN:
        if match := re.search(pattern, said):
            return words.format(what=next(group for group in match.groups() if group is not None))
    lines = [line for line in said.splitlines() if line.strip() and not re.match(r"[EWI][0-9]{4} ", line)]
    words = lines[-1].removeprefix("error: ").strip()[:500] if lines else "it failed without a word"
    return f"kubectl {verb}: {words}"


def _program() -> str:
    program = shutil.which("kubectl")
    if program is None:
        raise ClusterError("kubectl: not on the path; https://kubernetes.io/docs/tasks/tools/ tells how to install it")
    return program
