"""A program: what a backend of Keras sees of a GPU, in a worker's environment."""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

from harness.execution.base import Place
from harness.execution.machine.gpu_meter import open_gauge
from harness.support.strict_json import parse_json


@dataclass(frozen=True)
class Seen:
    """What the backend sees.

    Attributes:
        backend: Its name and version.
        visible: `CUDA_VISIBLE_DEVICES`.
        gpus: Names of the GPUs that it sees.
        taken_mb: MiB that NVML saw the memory in use grow by on the place's GPU, while the backend took `asked_mb`;
            None without NVML.
        asked_mb: MiB.
    """

    backend: str
    visible: str
    gpus: tuple[str, ...]
    taken_mb: float | None
    asked_mb: int


def see(place: Place, asked_mb: int) -> Seen:
    """Starts the backend and takes memory."""
    import keras

    from harness.execution.machine.devices import backend_name

    gpus = _gpus(keras.backend.backend())
    gauge = open_gauge(place)
    keras.ops.convert_to_numpy(keras.ops.ones((1,)))
    before_mb = gauge.read().memory_mb if gauge else None
    block = keras.ops.ones((asked_mb, 2**18), "float32")  # a row is 1 MiB
    keras.ops.convert_to_numpy(block[0, 0])
    after_mb = gauge.read().memory_mb if gauge else None
    taken_mb = None if before_mb is None or after_mb is None else after_mb - before_mb
    return Seen(backend_name(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), gpus, taken_mb, asked_mb)


def _gpus(backend: str) -> tuple[str, ...]:
    """Names of the GPUs."""
    if backend == "jax":
        import jax

        return tuple(str(device.device_kind) for device in jax.devices() if device.platform != "cpu")
    if backend == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details
        return tuple(str(details(gpu).get("device_name", "")) for gpu in tf.config.list_physical_devices("GPU"))
    torch: Any = importlib.import_module("torch")
    return tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def synchronise() -> None:
    """Waits, by the backend's own means, until the device has done all of its work."""
    import keras

    if keras.backend.backend() == "jax":
        jax: Any = importlib.import_module("jax")
        jax.block_until_ready(jax.live_arrays())
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.test.experimental.sync_devices()
    else:
        importlib.import_module("torch").cuda.synchronize()


def main() -> None:
    place, asked_mb = sys.argv[1:]
    sys.stdout.write(json.dumps(asdict(see(parse_json(Place, place), int(asked_mb)))))


if __name__ == "__main__":
    main()
