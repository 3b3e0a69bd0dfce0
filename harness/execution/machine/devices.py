"""The devices of this machine, and all framework-specific queries about a device."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from platformdirs import user_cache_path

from harness.errors import TroubleError
from harness.execution.base import Place
from harness.execution.machine import backends
from harness.execution.machine.gpus import Gpu, usable_gpus
from harness.study.settings import Precision
from harness.support import keras_settings
from harness.support.own_code import SAFE_PATH

WORKER_MEMORY_MB = 1500  # a worker with TensorFlow loaded and the documented CNN in training
MAX_CPU_WORKERS = 8
CPU_INFO, PROCESS_STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
MAX_COMPILED_BYTES = 2**30  # of programs that are kept on disk; the oldest go first
OUT_OF_MEMORY_SCORE = 500  # of 1000, see proc(5) on oom_score_adj

# In exceptions, and in messages of a library before it aborts.
_OUT_OF_MEMORY_SIGNS = (
    "resourceexhausted",
    "resource_exhausted",
    "out of memory",
    "out_of_memory",
    "unable to allocate",
    "cannot allocate memory",
    "bad_alloc",
    "alloc_failed",  # cuBLAS and cuDNN
    "mmap error: 12",
)


@dataclass(frozen=True)
class Machine:
    """The processors and GPUs that this process may use."""

    cpu_name: str
    num_cores: int
    memory_mb: float
    gpus: tuple[Gpu, ...] = ()
    cpu_has_bfloat16: bool = False
    processor: str = ""  # of `Place`

    @property
    def gpu_names(self) -> tuple[str, ...]:
        return tuple(gpu.name for gpu in self.gpus)


def this_machine() -> Machine:
    """Reads the machine without loading a framework.

    Raises:
        InputError: `CUDA_VISIBLE_DEVICES` is ambiguous, see `usable_gpus`.
    """
    memory_mb = psutil.virtual_memory().total / 2**20
    return Machine(
        _cpu_name(),
        num_usable_cores(),
        memory_mb,
        usable_gpus(),
        cpu_has_bfloat16=_cpu_has_bfloat16(),
        processor=_processor(),
    )


def fastest_precision(places: Sequence[Place]) -> Precision:
    """bfloat16 if every place multiplies it in hardware, else float32.

    On CPUs, a gain was measured with TensorFlow only.
    """
    gains = all(place.has_bfloat16 and (place.gpu or backends.backend() == "tensorflow") for place in places)
    return "bfloat16" if gains else "float32"


def num_usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def places(machine: Machine, num_workers: int | None) -> list[Place]:
    """One worker per GPU, or one per core (two concurrent small trials are faster than one on two threads).

    Args:
        machine: The available devices.
        num_workers: Number of workers; None: as many as fit.
    """
    if machine.gpus:
        return _gpu_places(machine, num_workers or len(machine.gpus))
    count = num_workers or max(1, min(machine.num_cores, MAX_CPU_WORKERS, int(machine.memory_mb // WORKER_MEMORY_MB)))
    threads = max(1, machine.num_cores // count)
    return [
        Place(
            f"worker-{i}",
            machine.cpu_name,
            threads,
            sharing=count,
            has_bfloat16=machine.cpu_has_bfloat16,
            processor=machine.processor,
        )
        for i in range(count)
    ]


# TensorFlow and JAX allocate GPU memory as needed instead of all of it. No start-up messages.
FRAMEWORK_ENVIRONMENT = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def worker_environment(place: Place) -> dict[str, str]:
    """Environment for a worker's process; must be set before its framework is loaded."""
    threads = str(place.threads)
    return {
        **(_compiled_before() if place.gpu else {}),
        "CUDA_VISIBLE_DEVICES": place.gpu or "",
        **FRAMEWORK_ENVIRONMENT,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,  # PyTorch's
        "NPROC": threads,  # JAX's: the number of processors that XLA assumes
        backends.VARIABLE: backends.backend(),
        **keras_settings.ENVIRONMENT,
        **SAFE_PATH,
        "PYTHONHASHSEED": "0",
        "HARNESS_WORKER": place.name,  # shown in the process list
    }


def _compiled_before() -> dict[str, str]:
    """Environment with which JAX keeps on disk what it has compiled, so that it compiles equal networks once.

    For GPUs only, whose model and driver are part of the key. A CPU's instructions are not, and the folder may be on a
    disk of several machines.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(user_cache_path("harness") / "compiled")
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(MAX_COMPILED_BYTES),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def num_out_of_memory_kills() -> int:
    """Number of processes that the kernel has killed for lack of memory: in this process's control group if it is
    counted there, else on the whole machine."""
    for path in _kill_counters():
        with suppress(OSError):
            counters = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
            if "oom_kill" in counters:
                return int(counters["oom_kill"])
    return 0


def has_memory_limit(pid: int) -> bool:
    """Whether a process, possibly ended but not waited for, has a memory limit of its own."""
    if not hasattr(resource, "prlimit"):  # on other systems than Linux
        return False
    limits = [resource.prlimit(pid, kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return any(limit != resource.RLIM_INFINITY for limit in limits)


def be_killed_first() -> None:
    """Makes the kernel kill this process first if memory runs out, before its coordinator and other programs."""
    path = Path("/proc/self/oom_score_adj")
    with suppress(OSError):
        path.write_text(str(max(OUT_OF_MEMORY_SCORE, int(path.read_text()))))


def backend_name() -> str:
    """The Keras backend and its version; loads it."""
    import keras

    backend = keras.backend.backend()
    return f"{backend} {importlib.metadata.version(backend)}"


def check_gpu(place: Place) -> None:
    """Starts the backend and checks that it uses the place's GPU, since it falls back to the CPU if it finds none.

    Raises:
        TroubleError: the backend sees no GPU, or more than that of this place.
    """
    import keras

    if place.gpu is None:
        return
    if keras.backend.backend() == "torch":
        num_gpus = int(importlib.import_module("torch").cuda.device_count())
    else:
        # All but the CPU, since a backend may call a GPU "gpu" or "cuda".
        num_gpus = sum(not device.startswith("cpu") for device in keras.distribution.list_devices())
    if num_gpus != 1:
        raise TroubleError(
            f"{place.name} has {place.device_name} ({place.gpu}), but {backend_name()} sees {num_gpus} GPUs; are its"
            " CUDA libraries installed? `harness doctor` looks, and CUDA_VISIBLE_DEVICES= takes the CPU"
        )


def peak_memory_mb() -> float:
    """Peak resident memory of this process, MiB: on Linux since `reset_peak_memory`, elsewhere since its start."""
    with suppress(OSError):
        for line in PROCESS_STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 2**20


def memory_mb() -> float:
    """Resident memory of this process, MiB."""
    return float(psutil.Process().memory_info().rss) / 2**20


def gpu_peak_memory_mb(place: Place) -> float | None:
    """Peak GPU memory of this process since `reset_peak_memory`, MiB; None if the backend does not report it."""
    memory = _tensorflow_memory(place)
    return None if memory is None else memory.get_memory_info("GPU:0")["peak"] / 2**20


def reset_peak_memory(place: Place) -> None:
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    memory = _tensorflow_memory(place)
    if memory is not None:
        memory.reset_memory_stats("GPU:0")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one of its causes, reports a lack of memory, for any backend."""
    if isinstance(error, MemoryError) or says_out_of_memory(f"{type(error).__name__} {error}"):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_out_of_memory(before)


def says_out_of_memory(text: str) -> bool:
    """Whether an error message reports a lack of memory."""
    lower = text.lower()
    return any(sign in lower for sign in _OUT_OF_MEMORY_SIGNS)


def _kill_counters() -> Iterator[Path]:
    """Files with such a counter, the most specific first. In a container the last one counts the whole machine."""
    root = Path("/sys/fs/cgroup")
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if "memory" in controllers.split(","):
                yield root / "memory" / group.lstrip("/") / "memory.oom_control"
                yield root / "memory" / "memory.oom_control"  # if the group has the host's name
            elif not controllers:
                yield root / group.lstrip("/") / "memory.events"
                yield root / "memory.events"
    yield Path("/proc/vmstat")


def _gpu_places(machine: Machine, count: int) -> list[Place]:
    """Places on the GPUs in turn. `sharing` is the actual number of workers of each GPU, also if uneven."""
    num_gpus, threads = len(machine.gpus), max(1, machine.num_cores // count)
    turns = [i % num_gpus for i in range(count)]
    gpus = [(machine.gpus[turn], turns.count(turn)) for turn in turns]
    return [
        Place(f"worker-{i}", gpu.name, threads, sharing, gpu.uuid, has_bfloat16=gpu.has_bfloat16)
        for i, (gpu, sharing) in enumerate(gpus)
    ]


def _cpu_name() -> str:
    """The model, which is a part of the timing class.

    Virtual machines have names without a model number, such as "AMD EPYC", "Intel(R) Xeon(R) CPU @ 2.20GHz" or "QEMU
    Virtual CPU version 2.5+", for several models of unequal speed. The numbers of its family and model are added to
    such a name, which has no three digits in a row.
    """
    name, family, model = _given_name(), _cpu_says("cpu family"), _cpu_says("model")
    is_known = re.search(r"\d{3}", name.partition("@")[0])
    return name if is_known or not (family and model) else f"{name}, family {family} model {model}"


def _given_name() -> str:
    return _cpu_says("model name") or _arm_name() or _mac_name() or platform.processor() or platform.machine()


def _arm_name() -> str:
    """Such as "aarch64 0x41 0xd0c", implementer and part: Linux knows no other name of an ARM processor."""
    known = [_cpu_says("CPU implementer"), _cpu_says("CPU part")]
    return " ".join([platform.machine(), *known]) if all(known) else ""


def _mac_name() -> str:
    """Such as "Apple M4 Pro"; Python's own answer is "arm" for each Apple chip."""
    if sys.platform != "darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware. Others emulate it, many times slower than float32."""
    return not _BFLOAT16_FLAGS.isdisjoint(_cpu_says("flags").split())


def _processor() -> str:
    """Digest of what libraries choose their kernels and block sizes by. Several models may have one name."""
    described = [_given_name(), *map(_cpu_says, ("cpu family", "model", "cache size", "flags"))]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]


def _cpu_says(key: str) -> str:
    """Linux's description of the first processor; empty on other systems."""
    with suppress(OSError):
        for line in CPU_INFO.read_text(errors="replace").splitlines():  # what a virtual machine is called is free
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _tensorflow_memory(place: Place) -> Any | None:
    import keras

    if place.gpu is None or keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.config.experimental
