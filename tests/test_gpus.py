"""Which GPUs a study takes and which one each worker sees, with a stand-in for `nvidia-smi`: no GPU is needed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.errors import InputError, TroubleError
from harness.execution.base import Place
from harness.execution.local import LocalExecutor
from harness.execution.machine import backends, devices
from harness.execution.machine.gpus import Gpu, usable_gpus
from harness.study.spec import SweepSpec

H100 = "NVIDIA H100 80GB HBM3"
FOUR = [f"GPU-{letter * 8}-1111-2222-3333-444444444444" for letter in "abcd"]
INSTANCES = [f"MIG-{digit * 8}-5555-5555-8888-999999999999" for digit in "123"]

Install = Callable[..., None]


def card(number: int, uuid: str, name: str = H100) -> str:
    return f"GPU {number}: {name} (UUID: {uuid})"


def instance(number: int, uuid: str, profile: str = "1g.10gb") -> str:
    return f"  MIG {profile}     Device  {number}: (UUID: {uuid})"


def cards(count: int) -> list[str]:
    return [card(number, FOUR[number]) for number in range(count)]


CUT_UP = [
    card(0, FOUR[0]),
    instance(0, INSTANCES[0], "3g.40gb"),
    instance(1, INSTANCES[1]),
    card(1, FOUR[1]),
    card(2, FOUR[2]),
    instance(0, INSTANCES[2]),
]


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts one on the path that answers `-L`, and sets the mask."""

    def install(listing: list[str], mask: str | None = None, order: str | None = None, status: int = 0) -> None:
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir()
        tool.with_suffix(".txt").write_text("\n".join(listing) + "\n")
        tool.write_text(f'#!/bin/sh\n[ "$*" = -L ] || exit 6\ncat {tool}.txt\nexit {status}\n')
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
        for name, value in (("CUDA_VISIBLE_DEVICES", mask), ("CUDA_DEVICE_ORDER", order)):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    return install


def numbers() -> list[int]:
    return [FOUR.index(gpu.uuid) for gpu in usable_gpus()]


def gpus_of_workers() -> dict[str, str]:
    """What each of our children that is a worker sees in `CUDA_VISIBLE_DEVICES`, by its name."""
    found = [child.environ() for child in psutil.Process().children()]
    return {one["HARNESS_WORKER"]: one["CUDA_VISIBLE_DEVICES"] for one in found if "HARNESS_WORKER" in one}


def places(num_workers: int | None = None) -> list[Place]:
    return devices.places(devices.this_machine(), num_workers)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("2,3", [2, 3]),
        ("3, 0", [3, 0]),
        ("1,9,0", [1]),
        ("0,2,-1,1", [0, 2]),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,,1", [0]),
        ("1,1", []),
        (f"{FOUR[3]},{FOUR[1]}", [3, 1]),
        ("GPU-bb,GPU-dddd", [1, 3]),
        ("GPU-", []),
        (f"2,{FOUR[2]}", []),
        ("GPU-ffff,0", []),
    ],
)
def test_the_mask_is_read_as_cuda_reads_it(nvidia_smi: Install, mask: str | None, expected: list[int]) -> None:
    nvidia_smi(cards(4), mask)
    assert numbers() == expected


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, [*INSTANCES[:2], FOUR[1], INSTANCES[2]]),
        ("2", [INSTANCES[2]]),
        (FOUR[0], INSTANCES[:2]),
        (INSTANCES[1], [INSTANCES[1]]),
        ("MIG-3333,MIG-1", [INSTANCES[2], INSTANCES[0]]),
        ("MIG-", []),
        ("", []),
    ],
)
def test_a_gpu_that_is_cut_up_counts_as_its_parts(nvidia_smi: Install, mask: str | None, expected: list[str]) -> None:
    nvidia_smi(CUT_UP, mask)
    assert [gpu.uuid for gpu in usable_gpus()] == expected


def test_a_part_is_named_by_its_size(nvidia_smi: Install) -> None:
    nvidia_smi(CUT_UP)
    assert [gpu.name for gpu in usable_gpus()][:3] == [f"{H100} MIG 3g.40gb", f"{H100} MIG 1g.10gb", H100]


def test_no_driver_is_no_gpu(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(["NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."], status=9)
    assert usable_gpus() == ()
    monkeypatch.setenv("PATH", "/nowhere")
    assert usable_gpus() == ()


def test_a_broken_gpu_leaves_the_others(nvidia_smi: Install) -> None:
    lost = "Unable to determine the device handle for GPU0000:00:04.0: Unknown Error"
    nvidia_smi([lost, card(1, FOUR[1])], mask="1", status=15)
    assert numbers() == [1]


def test_numbers_of_different_models_need_an_order(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi([card(0, FOUR[0], "NVIDIA T4"), card(1, FOUR[1])], mask="0")
    with pytest.raises(InputError, match=r"CUDA_VISIBLE_DEVICES is '0', which is not clear .* CUDA_DEVICE_ORDER"):
        usable_gpus()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert numbers() == [0]
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", FOUR[1])
    assert numbers() == [1]


def test_each_gpu_gets_a_worker_of_its_own(nvidia_smi: Install) -> None:
    nvidia_smi(cards(4))
    assert [(place.gpu, place.sharing, place.gpu_fraction) for place in places()] == [(uuid, 1, 1.0) for uuid in FOUR]
    assert [place.gpu for place in places(2)] == FOUR[:2]


def test_a_single_gpu(nvidia_smi: Install) -> None:
    nvidia_smi(cards(1))
    (place,) = places()
    assert (place.gpu, place.device_name, place.gpu_fraction) == (FOUR[0], H100, 1.0)
    assert {(place.gpu, place.gpu_fraction) for place in places(4)} == {(FOUR[0], 0.25)}


def test_workers_that_cannot_be_divided_evenly_say_how_many_share_their_gpu(nvidia_smi: Install) -> None:
    nvidia_smi(cards(2))
    assert [(place.gpu, place.sharing) for place in places(3)] == [(FOUR[0], 2), (FOUR[1], 1), (FOUR[0], 2)]


def test_without_a_visible_gpu_workers_take_the_cpu(nvidia_smi: Install) -> None:
    nvidia_smi(cards(2), mask="")
    assert {(place.gpu, place.gpu_fraction) for place in places()} == {(None, 0.0)}


def test_the_machine_names_its_gpus() -> None:
    machine = devices.Machine("a cpu", 1, 1000.0, (Gpu("one", FOUR[0]), Gpu("other", FOUR[1])))
    assert machine.gpu_names == ("one", "other")


@pytest.mark.parametrize(
    ("listing", "mask", "num_workers", "expected"),
    [
        (cards(4), "2,3", None, [FOUR[2], FOUR[3]]),
        (cards(2), None, 3, [FOUR[0], FOUR[1], FOUR[0]]),
        (cards(4), "GPU-b", None, [FOUR[1]]),
        (CUT_UP, "0", None, INSTANCES[:2]),
        (cards(4), "", 1, [""]),
    ],
)
def test_a_worker_process_sees_its_own_gpu_only(
    nvidia_smi: Install,
    smoke: SweepSpec,
    tmp_path: Path,
    listing: list[str],
    mask: str | None,
    num_workers: int | None,
    expected: list[str],
) -> None:
    nvidia_smi(listing, mask)
    executor = LocalExecutor(smoke, places(num_workers), tmp_path, tmp_path / "logs")
    try:
        seen = gpus_of_workers()
        while len(seen) < len(expected):  # the environment of a process that has just begun cannot be read yet
            seen = gpus_of_workers()
    finally:
        executor.close()
    assert seen == {f"worker-{number}": uuid for number, uuid in enumerate(expected)}


def test_a_gpu_that_the_framework_does_not_see_is_one_clear_error(
    smoke: SweepSpec, digits_folder: Path, tmp_path: Path
) -> None:
    """The framework would train on the CPU, and its seconds would count as the GPU's."""
    executor = LocalExecutor(smoke, [Place("worker-0", H100, 1, 1, FOUR[0])], digits_folder, tmp_path)
    try:
        with pytest.raises(TroubleError, match=rf"worker-0 has {H100} \({FOUR[0]}\), but tensorflow .* sees 0 GPUs"):
            list(iter(lambda: executor.events(60.0), None))
    finally:
        executor.close()


def test_a_worker_on_a_gpu_keeps_what_jax_compiles(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(cards(1))
    (on_gpu,), on_cpu = places(), Place("worker-0", "a processor", 1, 1)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert Path(devices.worker_environment(on_gpu)["JAX_COMPILATION_CACHE_DIR"]).name == "compiled"
    assert "JAX_COMPILATION_CACHE_DIR" not in devices.worker_environment(on_cpu)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert devices.worker_environment(on_gpu)["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"


COMPILES_TWICE = """
import numpy as np, keras, jax
from test_engines import CONFIGS, BATCH, PICTURES, LABELS, model
from harness.execution.training import engine_base
from harness.execution.training.jax_engine import JaxSteps

found = []
jax.monitoring.register_event_listener(lambda name, **details: found.append(name.rpartition("/")[2]))
held = engine_base.hold(PICTURES[:BATCH], LABELS[:BATCH])
for _ in range(2):
    keras.backend.clear_session()
    keras.utils.set_random_seed(len(found))
    engine = model(*CONFIGS[0])
    found.clear()
    JaxSteps(engine, held, held, BATCH, whole_epochs=True)
    print(*sorted({name for name in found if name in ("cache_hits", "cache_misses")}))
"""


@pytest.mark.skipif("jax" not in backends.installed(), reason="jax is not installed")
def test_a_second_trial_of_a_network_is_compiled_already(
    nvidia_smi: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here with the variables of a worker on a GPU, in a process on the CPU."""
    nvidia_smi(cards(1))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    environment = {**os.environ, **devices.worker_environment(places()[0]), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", COMPILES_TWICE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "cache_misses\ncache_hits\n", done.stderr
