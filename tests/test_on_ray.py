"""Workers on a Ray cluster: what every executor must do, and what happens to nodes; on real clusters."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from test_execution import TRAINS_ON, Driver, ExecutorContract, trial

from harness.errors import InputError, TroubleError
from harness.execution.base import Died, EpochDone, Executor, Job
from harness.execution.data import cache
from harness.execution.executors import Ray
from harness.execution.machine import devices
from harness.execution.ray.connection import connect
from harness.execution.ray.share import Share, share
from harness.execution.ray.workplace import RayWorkplace
from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Trial
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import project_root

if find_spec("ray") is None:  # not imported here, since Ray reads its environment when it is
    pytest.skip("Ray comes with the extra `cluster`", allow_module_level=True)

TOKEN = secrets.token_hex(32)
NODE = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


class Nodes:
    """A cluster with a head that has no room for workers, and nodes with room for one each."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self._folder = folder
        self._cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "node_name": "head"})
        self.address = str(self._cluster.address)

    def add(self, name: str, num_cpus: int = 1, **environment: str) -> Any:
        environment = {"XDG_STATE_HOME": str(self._folder / "state"), **environment}
        return self._cluster.add_node(**NODE, num_cpus=num_cpus, node_name=name, env_vars=environment)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def ray_environment() -> Iterator[None]:
    """A token for these clusters alone, and nothing printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        yield


@pytest.fixture(scope="module")
def node_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a node that has no data yet."""
    return tmp_path_factory.mktemp("node data")


@pytest.fixture(scope="module")
def two_nodes(
    ray_environment: None, tmp_path_factory: pytest.TempPathFactory, digits_folder: Path, node_data: Path
) -> Iterator[Nodes]:
    """For tests that leave it as it is: one node has the data, one has none."""
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    nodes.add("node-0", HARNESS_DATA=str(digits_folder.parent))
    nodes.add("node-1", HARNESS_DATA=str(node_data))
    yield nodes
    nodes.close()


@pytest.fixture
def nodes(ray_environment: None, tmp_path: Path) -> Iterator[Nodes]:
    """For tests that add nodes and kill them."""
    nodes = Nodes(tmp_path)
    yield nodes
    nodes.close()


def executor_on(address: str, spec: SweepSpec, folder: Path, said: list[str], workers: int | None = None) -> Executor:
    workplace = RayWorkplace(Ray(address), workers, said.append)
    return workplace.executor(spec, folder, Path("unused"))


class TestRayExecutor(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, two_nodes: Nodes, smoke: SweepSpec, digits_folder: Path) -> Iterator[Executor]:
        with closing(executor_on(two_nodes.address, smoke, digits_folder, [])) as executor:
            yield executor

    def test_places_are_shares_of_nodes(self, driver: Driver) -> None:
        places = driver.executor.places
        assert {place.node for place in places} == {"node-0", "node-1"}
        assert [(place.threads, place.sharing, place.gpu) for place in places] == [(1, 1, None)] * 2

    def test_a_node_without_the_data_has_them_now(
        self, driver: Driver, node_data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver.wait_until_idle()
        monkeypatch.setenv("HARNESS_DATA", str(node_data))
        assert [check.problem for check in cache.verify("digits")] == [None] * 6

    def test_a_trial_from_weights_that_are_not_there_crashes(self, driver: Driver, tmp_path: Path) -> None:
        result = driver.finish(driver.start(Job(trial(), load_from=tmp_path / "gone.npz")))
        assert result.outcome is Outcome.CRASHED
        assert result.error is not None
        assert "No such file" in result.error

    def test_closing_ends_all_workers(self, driver: Driver) -> None:
        driver.wait_until_idle()
        workers = processes("worker-0") + processes("worker-1")
        assert len(workers) == 2
        driver.executor.close()
        assert psutil.wait_procs(workers, timeout=5.0)[1] == []


def processes(worker: str, name: str = "RAY_AUTH_TOKEN", value: str = TOKEN) -> list[psutil.Process]:
    """The processes that train as `worker` and have `value` in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            if environment.get("HARNESS_WORKER") == worker and environment.get(name) == value:
                found.append(process)
    return found


def raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def lose(node: Any) -> None:
    """Ends a node as if it were switched off, but leaves the workers on it to themselves."""
    for process in [raylet(node), *raylet(node).children()]:
        process.kill()


def raylet_of(process: psutil.Process) -> int:
    """The raylet that has started a worker's host."""
    return int(process.environ()["RAY_RAYLET_PID"])


# Nodes and hosts that are lost


@pytest.mark.slow
def test_a_lost_node_costs_its_attempt_and_a_new_one_is_used(
    nodes: Nodes, smoke: SweepSpec, digits_folder: Path
) -> None:
    by_pid = {raylet(node).pid: node for node in (nodes.add("node-0"), nodes.add("node-1"))}
    said: list[str] = []
    with closing(executor_on(nodes.address, smoke, digits_folder, said)) as executor:
        driver = Driver(executor)
        lost, other = driver.start(Job(trial(epochs=3))), driver.start(Job(trial(epochs=3)))
        driver.wait(EpochDone, lost)
        (worker,) = processes(lost)
        name = next(place.node for place in executor.places if place.name == lost)
        lose(by_pid[raylet_of(worker)])
        died = driver.wait(Died, lost)
        assert died == Died(lost, f"lost with its host on {name}", out_of_memory=False)
        assert psutil.wait_procs([worker], timeout=10.0)[1] == []
        assert [place.name for place in executor.places] == [other]
        assert driver.finish(other).outcome is Outcome.COMPLETED
        nodes.add("node-2")
        driver.wait_for(lambda: len(executor.places) == 2)
        # Not always as `lost`: while Ray took the lost node for a living one, there was room for a third worker, too.
        (new,) = {place.name for place in executor.places} - {other}
        assert driver.wait_until_idle() == {new, other}
        assert {place.node for place in executor.places} == {"node-0", "node-1", "node-2"} - {name}
        assert driver.finish(driver.start(Job(trial()))).outcome is Outcome.COMPLETED
        assert f"{new} is on node-2" in said
        nodes.add("node-3")  # and one more than there were
        driver.wait_for(lambda: len(executor.places) == 3)
        driver.wait_until_idle()


@pytest.mark.slow
def test_a_lost_host_is_replaced(nodes: Nodes, smoke: SweepSpec, digits_folder: Path) -> None:
    nodes.add("node-0")
    with closing(executor_on(nodes.address, smoke, digits_folder, [], workers=1)) as executor:
        driver = Driver(executor)
        driver.start(Job(trial()))
        driver.wait(EpochDone, "worker-0")
        (worker,) = processes("worker-0")
        worker.parent().kill()
        assert driver.wait(Died, "worker-0") == Died("worker-0", "lost with its host on node-0", out_of_memory=False)
        assert psutil.wait_procs([worker], timeout=10.0)[1] == []
        assert driver.finish(driver.start(Job(trial()))).outcome is Outcome.COMPLETED


@pytest.mark.slow
def test_a_host_that_hangs_is_given_up_when_its_worker_is_killed(
    nodes: Nodes, smoke: SweepSpec, digits_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.execution.ray.workplace.KILL_TIMEOUT_S", 1.0)
    nodes.add("node-0")
    with closing(executor_on(nodes.address, smoke, digits_folder, [])) as executor:
        driver = Driver(executor)
        driver.start(Job(trial()))
        driver.wait(EpochDone, "worker-0")
        (worker,) = processes("worker-0")
        worker.parent().suspend()
        executor.kill("worker-0")
        assert driver.wait(Died, "worker-0") == Died("worker-0", "says nothing, on node-0", out_of_memory=False)
        assert psutil.wait_procs([worker], timeout=10.0)[1] == []
        assert driver.finish(driver.start(Job(trial()))).outcome is Outcome.COMPLETED


def test_a_node_takes_no_code_from_the_working_folder(
    nodes: Nodes, smoke: SweepSpec, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself puts the coordinator's in front of all else, where a node has a folder of that name."""
    for name in ("harness", "baselines"):
        (tmp_path / "trap" / name).mkdir(parents=True)
        (tmp_path / "trap" / name / "__init__.py").write_text(f"raise ImportError('{name} of the working folder')")
    monkeypatch.chdir(tmp_path / "trap")
    nodes.add("node-0")
    with closing(executor_on(nodes.address, smoke, digits_folder, [], workers=1)) as executor:
        driver = Driver(executor)
        assert driver.finish(driver.start(Job(trial()))).outcome is Outcome.COMPLETED


COORDINATOR = (
    """
import sys
from pathlib import Path
from harness.execution.ray.workplace import RayWorkplace
from harness.execution.executors import Ray
from harness.study.spec import SweepSpec
spec = SweepSpec.model_validate_json(sys.argv[1])
workplace = RayWorkplace(Ray(sys.argv[3] or None), 1, print)
executor = workplace.executor(spec, Path(sys.argv[2]), Path())
"""
    + TRAINS_ON
)


@pytest.mark.slow
@pytest.mark.parametrize("is_private", [False, True])
def test_workers_do_not_outlive_their_coordinator(
    nodes: Nodes, smoke: SweepSpec, digits_folder: Path, is_private: bool
) -> None:
    nodes.add("node-0")
    arguments = [smoke.model_dump_json(), str(digits_folder), "" if is_private else nodes.address]
    with subprocess.Popen([sys.executable, "-c", COORDINATOR, *arguments], stdout=subprocess.PIPE) as coordinator:
        assert coordinator.stdout.readline() == b"training\n"
        workers = processes("worker-0")
        assert len(workers) == 1
        coordinator.kill()
    assert psutil.wait_procs(workers, timeout=10.0)[1] == []


@pytest.mark.slow
def test_a_private_cluster_is_locked_and_leaves_no_file(smoke: SweepSpec, digits_folder: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", COORDINATOR, smoke.model_dump_json(), str(digits_folder), ""]
    with subprocess.Popen(
        command, env={**environment, "HOME": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as coordinator:
        assert coordinator.stdout.readline() == b"training\n"
        (worker,) = processes("worker-0", "HOME", str(tmp_path))
        locked = worker.environ()
        coordinator.kill()
        assert coordinator.stderr.read() == b""
    assert (locked["RAY_AUTH_MODE"], len(locked["RAY_AUTH_TOKEN"])) == ("token", 64)
    assert not (tmp_path / ".ray").exists()


# What is asked for


def test_a_worker_holds_a_cpu_or_a_gpu_with_its_share_of_them() -> None:
    cpus = {"CPU": 8.0, "memory": 64e9}
    gpus = {"CPU": 32.0, "GPU": 4.0, "memory": 256e9}
    assert share(Ray(), [cpus]) == Share(1, 0.0)
    assert share(Ray(), [cpus, gpus]) == Share(8, 1.0)
    assert share(Ray(gpus_per_worker=0.33), [gpus]) == Share(2, 1 / 3)
    assert share(Ray(gpus_per_worker=0.0), [gpus]) == Share(1, 0.0)
    assert share(Ray(cpus_per_worker=4), [cpus, gpus]) == Share(4, 1.0)
    with pytest.raises(InputError, match=r"^--gpus-per-worker is 1; allowed where no node has a GPU: 0$"):
        share(Ray(gpus_per_worker=1.0), [cpus])


def test_a_worker_that_can_never_fit_is_refused_where_no_node_can_join() -> None:
    here = {"CPU": 8.0, "memory": 64e9}
    message = r"^a worker of 9 CPUs does not fit on this machine; allowed: up to 8 CPUs; Ray may use 61,035 MiB"
    with pytest.raises(InputError, match=message):
        share(Ray(cpus_per_worker=9), [here])
    with pytest.raises(InputError, match=r"^a worker of 1 CPU does not .* Ray may use 95 MiB, of which each"):
        share(Ray(), [here | {"memory": 1e8}])
    assert share(Ray(address="auto", cpus_per_worker=9), [here]) == Share(9, 0.0)  # for a node that joins


def test_a_node_has_room_for_what_all_its_resources_allow() -> None:
    assert Share(1, 0.0).room({"CPU": 8.0, "memory": 64e9}) == 8
    assert Share(1, 0.0).room({"CPU": 8.0, "memory": 3.5e9}) == 2
    assert Share(2, 1 / 3).room({"CPU": 32.0, "GPU": 2.0, "memory": 64e9}) == 6
    assert Share(2, 1.0).room({"CPU": 32.0, "memory": 64e9}) == 0
    assert [str(Share(1, 0.0)), str(Share(2, 0.5))] == ["1 CPU", "2 CPUs and 0.5 GPUs"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cpus_per_worker": 0}, "--cpus-per-worker is 0; allowed: 1 to 1024"),
        ({"gpus_per_worker": 0.7}, "--gpus-per-worker is 0.7; allowed: 0, 1, or a whole part of one"),
        ({"gpus_per_worker": -0.0}, "--gpus-per-worker is -0; allowed: 0, 1, or a whole part of one"),
        ({"gpus_per_worker": 2.0}, "--gpus-per-worker is 2; allowed: 0, 1, or a whole part of one"),
        ({"address": "ray://head:10001"}, "--address is 'ray://head:10001'; allowed: auto, or HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        Ray(**asked)


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^--executor ray needs Ray.*: pip install 'harness\[cluster\]'$"):
        connect("127.0.0.1:6379")


@pytest.mark.parametrize("address", ["head", "head:http", ":6379"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=f"^--address is '{address}'; allowed: auto, or HOST:PORT"):
        connect(address)


def test_an_address_where_nobody_answers_is_trouble() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(TroubleError, match=f"^no Ray cluster at {address}: .*refused$"):
            connect(address)


def test_an_address_where_something_else_answers_is_trouble() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TroubleError, match=f"^no Ray cluster at {address}: something else answers there$"):
            connect(address)
        thread.join()


# The command, from end to end


@pytest.fixture
def environment(
    ray_environment: None, environment_of: Callable[[Path], dict[str, str]], tmp_path: Path
) -> dict[str, str]:
    return environment_of(tmp_path / "home")


def harness(*arguments: str) -> list[str]:
    return [sys.executable, "-u", "-m", "harness.cli", *arguments]


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(harness(*arguments), env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done


def runs_of(home: Path, study: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], "tags.role != 'sweep'", max_results=1000)


@pytest.mark.slow
def test_a_study_is_the_same_as_on_this_machine(nodes: Nodes, environment: dict[str, str], tmp_path: Path) -> None:
    num_cores = devices.num_usable_cores()
    nodes.add("node-0", num_cpus=num_cores)
    sweep = ("sweep", "smoke", "--trials", "4", "--budget", "1h", "--workers", "1", "--no-reuse", "--as")
    on_ray = ("--executor", "ray", "--address", nodes.address, "--cpus-per-worker", str(num_cores))
    run(environment, *sweep, "here")
    said = run(environment, *sweep, "there", *on_ray).stdout
    assert "nodes     node-0 (1)" in said
    home = tmp_path / "home"
    boards = (pd.read_csv(home / "leaderboards" / f"{study}.csv") for study in ("here", "there"))
    here, there = (board.sort_values("trial", ignore_index=True) for board in boards)  # ranks may be shared
    assert list(here) == list(there)
    same = ["trial", "role", "outcome", "error_rate_pct", "units_1", "units_2", "epochs", "seed", "timing_class"]
    pd.testing.assert_frame_equal(here[same], there[same])
    kinds = [
        {name: set(getattr(run.data, name)) for name in ("metrics", "params", "tags")}
        for study in ("here", "there")
        for run in sorted(runs_of(home, study), key=lambda run: int(run.data.tags["trial"]))
    ]
    assert kinds[: len(kinds) // 2] == kinds[len(kinds) // 2 :]
    for study in ("here", "there"):
        assert run(environment, "doctor", "--audit", study).stdout == f"{study}: no differences\n"


@pytest.mark.slow
def test_a_node_that_is_lost_in_the_middle_of_a_study_loses_nothing(
    nodes: Nodes, environment: dict[str, str], tmp_path: Path
) -> None:
    kept, lost = nodes.add("node-0"), nodes.add("node-1")
    sweep = harness("sweep", "smoke", "--trials", "20", "--budget", "1h", "--executor", "ray")
    with subprocess.Popen(
        [*sweep, "--address", nodes.address],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (line := process.stdout.readline()).startswith("trial "):
            assert line, process.stderr.read()
        lose(lost)
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, ""), output
    assert "lost with its host on node-1; it continues on a node with room" in output
    assert "Raylet" not in output  # what Ray itself would say of it
    assert kept.any_processes_alive()
    with closing(Ledger(tmp_path / "home" / "ledger.db")) as ledger:
        records = ledger.history("smoke-quick")
        attempts = [attempt.outcome for record in records for attempt in ledger.attempts(record.trial.uid)]
    assert [record.trial.number for record in records] == list(range(22))
    assert {record.result.outcome for record in records if record.result} <= {Outcome.COMPLETED, Outcome.PRUNED}
    assert attempts.count(Outcome.CRASHED) <= 1
    assert len(runs_of(tmp_path / "home", "smoke-quick")) == 22
    assert run(environment, "doctor", "--audit", "smoke-quick").stdout == "smoke-quick: no differences\n"


def test_a_users_own_network_and_data_reach_a_node(
    two_nodes: Nodes, node_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    for name in ("strided.py", "strided.toml"):
        shutil.copy(project_root() / "docs" / "examples" / name, tmp_path)
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 256, (60, 8, 10, 3), np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "shapes.npz", **arrays, **{f"y_{part}": np.arange(60) % 3 for part in ("train", "test")})  # type: ignore[arg-type]
    spec = load_sweep(tmp_path / "strided.toml", Flags(precision="float32"), "quick")
    folder = cache.prepare(spec.data, lambda line: None)
    with closing(executor_on(two_nodes.address, spec, folder, [], 2)) as executor:
        driver = Driver(executor)
        jobs = [Job(Trial(f"own{number}", number, spec.baseline_params, number, epochs=1)) for number in range(2)]
        found = [driver.finish(worker) for worker in [driver.start(job) for job in jobs]]
    assert [result.outcome for result in found] == [Outcome.COMPLETED] * 2
    assert {result.num_params for result in found} == {spec.cost(spec.baseline_params).num_params}
    assert (node_data / spec.dataset / "train_images.npy").exists()
