"""What other tests hold with stand-ins, on real GPUs. Skipped where there is none; see docs/gpu.md."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.execution.base import EpochDone, Finished, Job, Ready
from harness.execution.local import LocalExecutor
from harness.execution.machine import devices
from harness.execution.machine.gpus import usable_gpus
from harness.study.records import Outcome, Trial, TrialResult
from harness.study.spec import SweepSpec

ENOUGH_S = 2.0  # of training; GPUs average over up to a second

pytestmark = pytest.mark.skipif(not usable_gpus(), reason="there is no GPU here")


def train(executor: LocalExecutor) -> list[TrialResult]:
    """One trial on each worker, all at once."""
    results: list[TrialResult] = []
    train_s = {place.name: 0.0 for place in executor.places}
    while len(results) < len(executor.places):
        for event in executor.events(60.0):
            if isinstance(event, EpochDone):
                train_s[event.worker] += event.report.seconds.train
                executor.answer(event.worker, go_on=train_s[event.worker] < ENOUGH_S)
            elif isinstance(event, Finished):
                results.append(event.result)
            elif isinstance(event, Ready) and train_s[event.worker] == 0.0:
                executor.start(event.worker, Job(Trial(event.worker, 0, {"units_1": 512, "units_2": 512}, 0, 10**6)))
    return results


def results_of(smoke: SweepSpec, data_folder: Path, logs: Path, num_workers: int) -> list[TrialResult]:
    spec = smoke.model_copy(update={"epochs": 10**6})
    executor = LocalExecutor(spec, devices.places(devices.this_machine(), num_workers), data_folder, logs)
    try:
        return train(executor)
    finally:
        executor.close()


def show(result: TrialResult) -> None:
    assert result.device is not None
    print(
        f"\n{result.device.timing_class}: {result.images_per_s:,.0f} images/s, compile {result.seconds.compile:.2f} s"
    )
    print(f"training {result.train_time_s:.2f} s, of which busy {result.gpu_busy_time_s} s, {result.gpu_energy_j} J")
    print(f"memory: GPU {result.gpu_peak_memory_mb} MiB, process {result.peak_memory_mb} MiB")


def test_every_gpu_trains_and_says_what_it_did(smoke: SweepSpec, digits_folder: Path, tmp_path: Path) -> None:
    gpus = usable_gpus()
    for result in results_of(smoke, digits_folder, tmp_path, len(gpus)):
        show(result)
        assert (result.outcome, result.device.engine) == (Outcome.PRUNED, "compiled+xla")
        assert result.device.timing_class.endswith("1 per GPU")
        assert result.gpu_train_time_s == result.train_time_s >= ENOUGH_S
        assert result.gpu_peak_memory_mb > 0
        if find_spec("pynvml") and not any(gpu.uuid.startswith("MIG-") for gpu in gpus):
            assert 0 < result.gpu_busy_time_s <= result.train_time_s
            assert result.gpu_energy_j > 0


def test_workers_that_share_a_gpu_report_what_is_their_own(
    smoke: SweepSpec, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", usable_gpus()[0].uuid)
    for result in results_of(smoke, digits_folder, tmp_path, 2):
        show(result)
        assert result.device.timing_class.endswith("2 per GPU")
        assert result.gpu_train_time_s == pytest.approx(result.train_time_s / 2)
        assert (result.gpu_busy_time_s, result.gpu_energy_j) == (None, None)
