"""What every executor must do, on real workers."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from harness.errors import TroubleError
from harness.execution import local
from harness.execution.base import Died, EpochDone, Event, Executor, Finished, Job, Place, Ready
from harness.execution.local import LocalExecutor
from harness.execution.machine import devices
from harness.study.records import Outcome, Trial, TrialResult
from harness.study.spec import SweepSpec

PLACES = [Place(f"worker-{i}", "a processor", threads=1, sharing=2) for i in range(2)]
WAIT_S = 120.0


def trial(uid: str = "uid", epochs: int = 3) -> Trial:
    return Trial(uid, 0, {"units_1": 32, "units_2": 16}, seed=0, epochs=epochs)


class Driver:
    """Hands out trials and waits for what comes of them."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._idle: list[str] = []
        self._seen: list[Event] = []

    def start(self, job: Job) -> str:
        """Starts a trial on the next worker that is ready, and returns the worker."""
        self.wait_for(lambda: bool(self._idle))
        worker = self._idle.pop(0)
        self.executor.start(worker, job)
        return worker

    def wait(self, kind: type[Event], worker: str) -> Event:
        """The next event of a kind from a worker; others are kept."""
        self.wait_for(lambda: any(isinstance(e, kind) and e.worker == worker for e in self._seen))
        event = next(e for e in self._seen if isinstance(e, kind) and e.worker == worker)
        self._seen.remove(event)
        return event

    def wait_until_idle(self) -> set[str]:
        self.wait_for(lambda: len(self._idle) == len(self.executor.places))
        return set(self._idle)

    def finish(self, worker: str) -> TrialResult:
        """Says yes to every epoch until the trial is over."""
        while True:
            event = self.wait(EpochDone | Finished, worker)
            if isinstance(event, Finished):
                return event.result
            self.executor.answer(worker, go_on=True)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {WAIT_S} s in vain; seen {self._seen}"
            for event in self.executor.events(1.0):
                if isinstance(event, Ready):
                    self._idle.append(event.worker)
                else:
                    self._seen.append(event)


class ExecutorContract:
    """Run by each executor's own test class, which brings the fixture `executor`: two workers, for all its tests."""

    @pytest.fixture(scope="class")
    @classmethod
    def driver(cls, executor: Executor) -> Driver:
        return Driver(executor)

    def test_every_worker_says_that_it_is_ready(self, driver: Driver) -> None:
        assert driver.wait_until_idle() == {place.name for place in PLACES}

    def test_a_trial_reports_each_epoch_and_ends(self, driver: Driver) -> None:
        worker = driver.start(Job(trial()))
        epochs = []
        for _ in range(3):
            epochs.append(driver.wait(EpochDone, worker).report)
            driver.executor.answer(worker, go_on=True)
        result = driver.wait(Finished, worker).result
        assert result.outcome is Outcome.COMPLETED
        assert result.curve == tuple(epochs)

    def test_a_trial_that_is_told_to_stop_stops(self, driver: Driver) -> None:
        worker = driver.start(Job(trial()))
        driver.wait(EpochDone, worker)
        driver.executor.answer(worker, go_on=False)
        result = driver.wait(Finished, worker).result
        assert (result.outcome, len(result.curve)) == (Outcome.PRUNED, 1)

    def test_a_killed_worker_dies_alone_and_is_replaced(self, driver: Driver) -> None:
        first, second = driver.start(Job(trial())), driver.start(Job(trial()))
        driver.wait(EpochDone, first)
        driver.executor.kill(first)
        assert driver.wait(Died, first).out_of_memory is False
        assert driver.finish(second).outcome is Outcome.COMPLETED
        assert driver.wait_until_idle() == {first, second}
        assert driver.finish(driver.start(Job(trial()))).outcome is Outcome.COMPLETED

    def test_weights_go_from_trial_to_trial(self, driver: Driver, tmp_path: Path) -> None:
        checkpoint = tmp_path / "a b" / "uid.npz"
        driver.finish(driver.start(Job(trial(epochs=1), save_to=checkpoint)))
        rest = driver.finish(driver.start(Job(trial("next"), load_from=checkpoint)))
        assert [report.epoch for report in rest.curve] == [2, 3]


class TestLocalExecutor(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def logs(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("logs")

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, smoke: SweepSpec, digits_folder: Path, logs: Path) -> Iterator[Executor]:
        executor = LocalExecutor(smoke, PLACES, digits_folder, logs)
        yield executor
        executor.close()

    def test_what_libraries_print_goes_to_a_log(
        self, driver: Driver, logs: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        driver.finish(driver.start(Job(trial())))
        assert capfd.readouterr() == ("", "")
        assert (logs / "worker-0.log").stat().st_size > 0

    def test_a_worker_killed_from_outside_is_noticed(self, driver: Driver) -> None:
        worker = driver.start(Job(trial()))
        driver.wait(EpochDone, worker)
        os.kill(_pid(worker), signal.SIGKILL)
        died = driver.wait(Died, worker)
        assert (died.reason, died.out_of_memory) == ("killed by SIGKILL", False)

    def test_closing_ends_all_workers(self, driver: Driver) -> None:
        driver.wait_until_idle()
        pids = [_pid(place.name) for place in PLACES]
        driver.executor.close()
        assert not any(psutil.pid_exists(pid) for pid in pids)


def _pid(worker: str) -> int:
    """The process that works as `worker`, among our children."""
    for child in psutil.Process().children():
        if "harness.execution.worker" in " ".join(child.cmdline()) and worker in _environment(child):
            return child.pid
    raise AssertionError(f"no process of {worker}")


def _environment(process: psutil.Process) -> str:
    return process.environ().get("HARNESS_WORKER", "")


# Trains without end on the worker of an `executor` that is made before.
TRAINS_ON = """
from harness.execution.base import Job, Ready
from harness.study.records import Trial
while not any(isinstance(event, Ready) for event in executor.events(1.0)): pass
executor.start("worker-0", Job(Trial("uid", 0, {"units_1": 32, "units_2": 16}, 0, 1000)))
while not executor.events(1.0): pass
executor.answer("worker-0", go_on=True)
print("training", flush=True)
while True:
    for event in executor.events(1.0): executor.answer("worker-0", go_on=True)
"""

COORDINATOR = (
    """
import sys
from pathlib import Path
from harness.execution.base import Place
from harness.execution.local import LocalExecutor
from harness.study.spec import SweepSpec
spec = SweepSpec.model_validate_json(sys.argv[1])
executor = LocalExecutor(spec, [Place("worker-0", "a processor", 1, 1)], Path(sys.argv[2]), Path(sys.argv[3]))
"""
    + TRAINS_ON
)


def test_workers_do_not_outlive_their_coordinator(smoke: SweepSpec, digits_folder: Path, tmp_path: Path) -> None:
    arguments = [smoke.model_dump_json(), str(digits_folder), str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", COORDINATOR, *arguments], stdout=subprocess.PIPE) as coordinator:
        assert coordinator.stdout.readline() == b"training\n"
        workers = psutil.Process(coordinator.pid).children()
        assert len(workers) == 1
        coordinator.kill()
    assert psutil.wait_procs(workers, timeout=5.0)[1] == []


def test_places_are_one_per_core() -> None:
    laptop = devices.Machine("a cpu", 4, 16_000.0, ())
    assert [(p.threads, p.sharing, p.gpu) for p in devices.places(laptop, None)] == [(1, 4, None)] * 4
    assert [(p.threads, p.sharing) for p in devices.places(laptop, 2)] == [(2, 2)] * 2
    small = devices.Machine("a cpu", 4, 2000.0, ())
    assert len(devices.places(small, None)) == 1


def test_a_worker_takes_its_threads_only() -> None:
    environment = devices.worker_environment(Place("worker-0", "x", 2, 1))
    assert environment["TF_NUM_INTRAOP_THREADS"] == "2"


def wrapped(error: Exception) -> Exception:
    """As Keras and others do it, who say something else of their own."""
    outer = RuntimeError("Exception encountered when calling Sequential.call().")
    outer.__context__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"), True),
        (RuntimeError("INTERNAL: cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (wrapped(MemoryError()), True),
        (wrapped(ValueError("no")), False),
        (ValueError("Negative dimension size"), False),
    ],
)
def test_out_of_memory_is_told_by_its_words(error: Exception, expected: bool) -> None:
    assert devices.is_out_of_memory(error) is expected


def test_kills_for_want_of_memory_are_read_where_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("missing", "of another kind", "memory.events", "vmstat")]
    for file, text in zip(files[1:], ("oom_kill_disable 0", "oom 7\noom_kill 2", "oom_kill 9"), strict=True):
        file.write_text(text)
    monkeypatch.setattr(devices, "_kill_counters", lambda: iter(files))
    assert devices.num_out_of_memory_kills() == 2
    monkeypatch.setattr(devices, "_kill_counters", lambda: iter(files[:2]))
    assert devices.num_out_of_memory_kills() == 0


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="another system's kernel chooses otherwise")
def test_a_worker_offers_itself_to_a_kernel_that_is_out_of_memory() -> None:
    code = "from harness.execution.machine import devices; devices.be_killed_first();"
    code += "print(open('/proc/self/oom_score_adj').read())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) >= 500


# Workers that do what real ones do seldom, in the words of real ones


class MadeUpWorkers:
    """An executor over one shell script in place of the worker; the script gets the pipes and the log of a worker."""

    def __init__(self, spec: SweepSpec, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._spec, self._folder, self._patch = spec, folder, monkeypatch

    def run(self, script: str) -> LocalExecutor:
        path = self._folder / "worker.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        self._patch.setattr(local, "WORKER", [str(path), *local.WORKER[1:]])
        return LocalExecutor(self._spec, PLACES[:1], self._folder, self._folder / "logs")

    def run_a_trial(self, script: str) -> Event:
        """What comes of it; the script's rest runs when the trial is handed over."""
        executor = self.run(f"read setup\necho '{{\"ready\": true}}'\nread run\n{script}")
        with contextlib.closing(executor):
            driver = Driver(executor)
            return driver.wait(Died | Finished, driver.start(Job(trial())))


@pytest.fixture
def made_up(smoke: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUpWorkers:
    return MadeUpWorkers(smoke, tmp_path, monkeypatch)


BAD_ALLOC = "echo \"terminate called after throwing an instance of 'std::bad_alloc'\" >&2"


@pytest.mark.parametrize(
    ("script", "reason", "out_of_memory"),
    [
        (f"{BAD_ALLOC}; kill -ABRT $$", "killed by SIGABRT", True),
        ("kill -ABRT $$", "killed by SIGABRT", False),
        ("kill -SEGV $$", "killed by SIGSEGV", False),
        ("ulimit -v 8000000; kill -SEGV $$", "killed by SIGSEGV", True),
        ("ulimit -v 8000000; kill -KILL $$", "killed by SIGKILL", False),
        ("exit 3", "ended with status 3", False),
        ("echo 'one\ntwo: three' >&2; exit 3", "ended with status 3: two: three", False),
    ],
)
def test_a_death_for_want_of_memory_is_told_from_others(
    made_up: MadeUpWorkers, tmp_path: Path, script: str, reason: str, out_of_memory: bool
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/worker-0.log").write_text("std::bad_alloc, of a worker of old\n")
    assert made_up.run_a_trial(f"ulimit -c 0; {script}") == Died("worker-0", reason, out_of_memory)


def test_as_many_deaths_are_put_down_to_the_kernel_as_it_counts(
    made_up: MadeUpWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = iter([5, 7, 7, 7])  # first when the executor is made
    monkeypatch.setattr(devices, "num_out_of_memory_kills", lambda: next(counted))
    executor = made_up.run("read setup; echo '{\"ready\": true}'; read run; kill -KILL $$")
    with contextlib.closing(executor):
        driver = Driver(executor)
        died = [driver.wait(Died, driver.start(Job(trial()))) for _ in range(3)]
    assert [death.out_of_memory for death in died] == [True, True, False]


def test_a_kill_ends_a_worker_that_is_stopped_and_ignores_signals_with_all_it_started(made_up: MadeUpWorkers) -> None:
    executor = made_up.run("trap '' TERM INT; sleep 1000 & echo '{\"ready\": true}'; wait")
    with contextlib.closing(executor):
        driver = Driver(executor)
        driver.wait_until_idle()
        worker = psutil.Process(_pid("worker-0"))
        started = [worker, *worker.children()]
        assert len(started) == 2
        worker.suspend()
        executor.kill("worker-0")
        assert driver.wait(Died, "worker-0") == Died("worker-0", "killed by SIGKILL", out_of_memory=False)
        assert psutil.wait_procs(started, timeout=5.0)[1] == []
        assert driver.wait_until_idle() == {"worker-0"}


@pytest.mark.parametrize(
    ("outcome", "is_replaced"), [(Outcome.OUT_OF_MEMORY, True), (Outcome.CRASHED, True), (Outcome.DIVERGED, False)]
)
def test_a_worker_in_which_something_broke_is_replaced(
    made_up: MadeUpWorkers, outcome: Outcome, is_replaced: bool
) -> None:
    result = json.dumps({"result": dataclasses.asdict(TrialResult(outcome))})
    executor = made_up.run(
        f"ready='{{\"ready\": true}}'; read setup; echo $ready; read run; echo '{result}'; echo $ready; read on"
    )
    with contextlib.closing(executor):
        driver = Driver(executor)
        driver.wait_until_idle()
        before = _pid("worker-0")
        assert driver.finish(driver.start(Job(trial()))).outcome is outcome
        driver.wait_until_idle()
        assert (_pid("worker-0") != before) is is_replaced


def test_a_worker_that_never_gets_ready_is_trouble(made_up: MadeUpWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "START_TIMEOUT_S", 0.01)
    executor = made_up.run("exec sleep 1000")
    with (
        contextlib.closing(executor),
        pytest.raises(
            TroubleError, match=r"^workers end \(killed by SIGKILL\) before they are ready; see .*worker-0.log$"
        ),
    ):
        Driver(executor).wait_until_idle()


def test_why_workers_cannot_start_is_told(made_up: MadeUpWorkers) -> None:
    executor = made_up.run("echo \"ModuleNotFoundError: No module named 'pydantic'\" >&2; exit 1")
    reason = r"ended with status 1: ModuleNotFoundError: No module named 'pydantic'"
    with (
        contextlib.closing(executor),
        pytest.raises(TroubleError, match=rf"^workers end \({reason}\) before they are ready; see .*worker-0.log$"),
    ):
        Driver(executor).wait_until_idle()


def test_what_trains_cannot_be_loaded_is_told_by_the_first_worker(
    smoke: SweepSpec, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keras.py").write_text("raise ImportError('libthing.so: cannot open\\nshared object')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        contextlib.closing(LocalExecutor(smoke, PLACES[:1], digits_folder, tmp_path / "logs")) as executor,
        pytest.raises(
            TroubleError,
            match=r"^worker-0 cannot load what trains: ImportError: libthing.so: cannot open shared object$",
        ),
    ):
        Driver(executor).wait_until_idle()


def test_trouble_of_the_machine_is_no_outcome_of_a_trial(made_up: MadeUpWorkers) -> None:
    with pytest.raises(TroubleError, match=r"^cannot write x: No space left on device$"):
        made_up.run_a_trial('echo \'{"trouble": "cannot write x: No space left on device"}\'; read end')


def test_a_log_that_cannot_be_written_is_one_clear_line(made_up: MadeUpWorkers, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(TroubleError, match=r"^worker-0 cannot be started: .*/logs: File exists$"):
        made_up.run("")
