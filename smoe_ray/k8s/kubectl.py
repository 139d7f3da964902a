"""Calls of kubectl, with its errors in one line."""

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
NO_CLUSTER = "no Kubernetes API server answers ({what}); kubectl config current-context shows which one was asked"
NO_CONTEXT = "context {what}: not in the kubeconfig; kubectl config get-contexts lists them"
NO_CONFIG = "no kubeconfig with a cluster ({what}); set KUBECONFIG, or write ~/.kube/config"
NO_NAMESPACE = "namespace {what}: does not exist; smoe-ray k8s init creates it"

NO_PERMISSION = "permission denied: {what}; ask the cluster's administrator for the permission"

_KNOWN = (
    (r'no matches for kind "([^"]+)" in version "ray\.io', NO_KUBERAY),
    (r'doesn\'t have a resource type "(ray\w+)"', NO_KUBERAY),
    (
        r'no matches for kind ("[^"]+" in version "[^"]+")',
        "the cluster does not know {what}: install its CustomResourceDefinition, or omit the component that uses it",
    ),
    (
        r'context was not found for specified context: (\S+)|context "([^"]+)" does not exist',
        NO_CONTEXT,
    ),
    (r'namespaces "([^"]+)" not found', NO_NAMESPACE),
    (r"(?:dial tcp|The connection to the server) (\S+?):? (?:.*refused|.*no such host|.*timeout)", NO_CLUSTER),
    (
        r'The (\w+ "[^"]+") is invalid:(?s:.)*immutable',
        "{what}: the change is to a field that is immutable after creation; keep its value, or delete the object and "
        "apply again (deleting a PersistentVolumeClaim deletes its data)",
    ),
    (r"forbidden: (User .+)", NO_PERMISSION),
    (r"((?:\S+ )?\S+ is forbidden: .+)", "refused by the cluster's policy: {what}"),
    (r"([Ii]nvalid configuration: no configuration has been provided)", NO_CONFIG),
)


class Target(NamedTuple):
    """A cluster, by its context in the kubeconfig."""

    context: str | None = None

    @property
    def options(self) -> list[str]:
        """Options of kubectl."""
        return [] if self.context is None else [f"--context={self.context}"]


def kubectl(
    arguments: Sequence[str], target: Target | None = None, stdin: str | None = None, fine: Sequence[int] = (0,)
) -> str:
    """Run kubectl and return its standard output.

    Args:
        arguments: of kubectl. No shell interprets them.
        target: which cluster; None for commands that need none.
        stdin: standard input.
        fine: exit codes that mean success.

    Raises:
        ClusterError: kubectl is not installed, or fails.
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
            env=os.environ | {"KUBECTL_EXTERNAL_DIFF": "diff -u -N"},  # kubectl's default, whose output `diff` parses
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"kubectl {arguments[0]}: timed out after {_TIMEOUT_S:g} s; check that the cluster responds"
        ) from None
    if done.returncode not in fine:
        raise ClusterError(_explain(arguments[0], done.stderr or done.stdout))
    return done.stdout


def attach(arguments: Sequence[str], target: Target) -> None:
    """Run kubectl attached to this terminal until it ends. Raises ClusterError when it fails."""
    code = subprocess.run([_program(), *target.options, *arguments], check=False).returncode  # noqa: S603
    if code:
        raise ClusterError(f"kubectl {arguments[0]}: exit code {code}; see its output above")


def _explain(verb: str, said: str) -> str:
    """The error of kubectl in one line; for known errors with what to do."""
    for pattern, words in _KNOWN:
        if match := re.search(pattern, said):
            return words.format(what=next(group for group in match.groups() if group is not None))
    lines = [line for line in said.splitlines() if line.strip() and not re.match(r"[EWI][0-9]{4} ", line)]
    words = lines[-1].removeprefix("error: ").strip()[:500] if lines else "failed without a message"
    return f"kubectl {verb}: {words}"


def _program() -> str:
    program = shutil.which("kubectl")
    if program is None:
        raise ClusterError("kubectl: not on the PATH; see https://kubernetes.io/docs/tasks/tools/ to install it")
    return program
