"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from smoe_ray.results import TrialRecord
    from smoe_ray.spec import TrialSpec

pytest.register_assert_rewrite("support", "smoe_ray.testing")

os.environ.pop("COLUMNS", None)  # the width of a terminal; pytest-xdist sets it

# A busy machine is no failure: the wall clock decides no test.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """All is said: leave as our commands do, since tests have used Ray in this process (see `runtime.leave`)."""
    session = config.pluginmanager.get_plugin("session")
    if "ray" in sys.modules and isinstance(session, pytest.Session):
        from smoe_ray.cluster.runtime import leave

        leave(int(session.exitstatus))


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the real data, so that README can tell how many tests a clone without them skips."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)


_CLUSTERS = frozenset(
    {
        "test_distributed.py",
        "test_docs_cluster.py",
        "test_faults_on_hosts.py",
        "test_job_packages.py",
        "test_jobs.py",
        "test_k8s_rehearsal.py",
        "test_nodes.py",
        "test_plugins_on_hosts.py",
        "test_ray_executor.py",
    }
)
"""Files that start clusters of several Ray processes: two such clusters at once are too much for two cores."""


def _in_one_process(file: str) -> bool:
    """Clusters and browsers: where those make or remove a network interface, these drop what they are loading."""
    return "/browser/" in file or file.rsplit("/")[-1] in _CLUSTERS


class _OneClusterAtATime(LoadFileScheduling):  # type: ignore[misc] - xdist has no types
    """A file's tests in one process, and some files in the same one (what ``xdist_group`` would do)."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "clusters and browsers" if _in_one_process(file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _OneClusterAtATime:
    """Asked by ``pytest --numprocesses``."""
    return _OneClusterAtATime(config, log)


def _shared_data() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("SMOE_RAY_TEST_DATA", default))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests share few cores, and small tensors gain nothing from more threads."""
    if "torch" in sys.modules:  # modules are collected first, so a test that needs torch has loaded it
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real drawings and published numbers; tests that need it are skipped where it is absent."""
    folder = _shared_data()
    if not folder.is_dir():
        if os.environ.get("SMOE_RAY_REQUIRE_DATA"):
            pytest.fail(f"real data absent at {folder}; SMOE_RAY_REQUIRE_DATA says that these tests must run")
        pytest.skip(f"real data absent at {folder} (set SMOE_RAY_TEST_DATA)")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a study of the test puts its results."""
    return tmp_path / "out"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where toy trainings note what they computed."""
    return tmp_path / "log"


@pytest.fixture
def make_record() -> Callable[..., TrialRecord]:
    """Make the record of a trial that ended just now."""
    from smoe_ray.results import Timings, TrialRecord, Versions
    from smoe_ray.results.record import now

    def make(spec: TrialSpec, **changes: Any) -> TrialRecord:
        fields: dict[str, Any] = {
            "study": "demo",
            "trial_id": "aaaaaaaaaaaa",
            "status": "finished",
            "spec": spec,
            "host": "here",
            "versions": Versions.here(),
            "timings": Timings(started_at=now()),
        }
        return TrialRecord(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the toy study, run at once."""
    from smoe_ray.study import LocalExecutor, run_study
    from smoe_ray.testing.toy_training import Toy
    from support.toy_runs import STUDY

    out = tmp_path_factory.mktemp("undisturbed")
    run_study(STUDY, out, LocalExecutor(fit=Toy()))
    return out


@pytest.fixture(scope="module")
def private_ray() -> Iterator[None]:
    """A Ray of the module's own: two CPUs, on this machine alone; its processes find `support`."""
    from smoe_ray.cluster.runtime import connected, environment
    from support.processes import seeing_tests

    with environment(seeing_tests()), connected(None, num_cpus=2):
        yield


@pytest.fixture
def smoe_ray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: (exit code, standard output, standard error)."""
    from smoe_ray.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["smoe-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run
