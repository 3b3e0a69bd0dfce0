"""Compares the speed of a training step with Keras's own `fit` and, on TensorFlow, a hand-written loop.

All run in one process on all cores, alternating in rounds, on the same images. So their ratios are valid on a busy
machine; absolute numbers are for this machine only. The memory of each is measured in a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import baselines
from baselines.augmentation import augmentation
from baselines.recipe import RECIPE, compile_model, optimizer
from harness.analysis.files import write_csv
from harness.analysis.pictures import save_picture
from harness.bench.programs import output
from harness.bench.results import write_json
from harness.bench.stock import as_floats, one_hot, with_augmentation_layers
from harness.execution.machine.backends import backend
from harness.execution.machine.devices import fastest_precision, peak_memory_mb, places, this_machine
from harness.support import keras_settings
from harness.support.own_code import program

if TYPE_CHECKING:
    import keras
    import pandas as pd

NUM_ROUNDS, NUM_ROUNDS_QUICK = 15, 5
BACKWARD_AND_FORWARD = 3  # training takes about three times the operations of a forward pass
GEMM_SIDE = 2048

STOCK, OURS, BY_HAND = "Keras fit", "this engine", "loop by hand"
STOCK_BFLOAT16, OURS_BFLOAT16 = f"{STOCK}, bfloat16", f"{OURS}, bfloat16"
Epoch = Callable[[], object]
Contender = Callable[["Network", NDArray[np.uint8], NDArray[np.uint8]], Epoch]


@dataclass(frozen=True)
class Network:
    """A network, and its number of images per round."""

    name: str
    architecture: str
    params: Mapping[str, float]
    num_images: int


SMALL = {"filters_1": 8, "filters_2": 16, "kernel_1": 3, "kernel_2": 3, "dense_units": 64}
# What a search past the widths comes to: normalised, with dropout and augmentation.
RECIPE_PARAMS = {
    "filters_1": 32,
    "filters_2": 64,
    "kernel_1": 3,
    "kernel_2": 3,
    "dense_units": 128,
    "batch_norm": True,
    "dropout": 0.3,
    "conv_dropout": 0.3,
    "augment_shift": 0.1,
    "augment_rotation": 0.04,
    "augment_zoom": 0.1,
}
NETWORKS = (
    Network("fc, documented", "fc", {}, 16_384),
    Network("cnn 8-16, 3x3, 64", "cnn", SMALL, 8_192),
    Network("cnn, documented", "cnn", {}, 2_048),
    Network("cnn 32-64, recipe", "cnn", RECIPE_PARAMS, 2_048),
)


@dataclass(frozen=True)
class Timing:
    """Images per second of one network by contender and round, and the machine's peak of a matrix product.

    `gemm_flops_per_s` has the peak of each precision in which a contender multiplies, `peak_memory_mb` the peak
    resident memory (MiB) of a process that loads the libraries and trains an epoch with a contender.
    """

    network: Network
    images_per_s: dict[str, list[float]]
    gemm_flops_per_s: dict[str, float]
    peak_memory_mb: dict[str, float]

    def ratio(self, contender: str, to: str) -> float:
        """Median over rounds of the ratio within a round."""
        pairs = zip(self.images_per_s[contender], self.images_per_s[to], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def share_of_peak(self, contender: str) -> float:
        flops_per_s = statistics.median(self.images_per_s[contender]) * flops_per_image(self.network)
        return flops_per_s / self.gemm_flops_per_s[_precision(contender)]


def run(out_dir: Path, repeats: int | None = None, quick: bool = False) -> pd.DataFrame:
    """Times every network with every contender; writes engine.json, engine.csv and engine.png into `out_dir`.

    Args:
        out_dir: Created if missing.
        repeats: Number of rounds; None: 15, or 5 if quick.
        quick: Fewer rounds: within five minutes on two cores.

    Returns:
        The table of engine.csv: see `table`.
    """
    num_rounds = repeats or (NUM_ROUNDS_QUICK if quick else NUM_ROUNDS)
    timings = [measure(network, num_rounds) for network in NETWORKS]
    frame = table(timings)
    write_csv(frame, out_dir / "engine.csv")
    measured = {"timings": [dataclasses.asdict(timing) for timing in timings]}
    write_json(out_dir / "engine.json", ("keras", backend()), measured)
    plot(timings, out_dir / "engine.png")
    return frame


def measure(network: Network, num_rounds: int) -> Timing:
    """Trains one network with all contenders in turn; compilation is done before."""
    epochs = {name: make(network, *random_data(network)) for name, make in _contenders().items()}
    for epoch in epochs.values():
        epoch()
    peak = dict.fromkeys(map(_precision, epochs), 0.0)
    images_per_s = {name: list[float]() for name in epochs}
    for _ in range(num_rounds):
        peak = {precision: max(flops, gemm_flops_per_s(precision, GEMM_SIDE)) for precision, flops in peak.items()}
        for name, epoch in epochs.items():
            started = time.perf_counter()
            epoch()
            images_per_s[name].append(network.num_images / (time.perf_counter() - started))
    return Timing(network, images_per_s, peak, {name: _memory_of(network, name) for name in epochs})


def _memory_of(network: Network, contender: str) -> float:
    """Runs this module in a new process for its peak memory, MiB: in this one, each contender keeps memory."""
    settings = json.dumps(dataclasses.asdict(network))
    return float(output("bench engine", program("harness.bench.engine", settings, contender)).split()[-1])


def main() -> None:
    settings, contender = sys.argv[1:]
    network = Network(**json.loads(settings))
    _contenders()[contender](network, *random_data(network))()
    sys.stdout.write(str(round(peak_memory_mb())))


def random_data(network: Network) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Random images and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (network.num_images, 28, 28), dtype=np.uint8)
    return images, rng.integers(0, 10, network.num_images).astype(np.uint8)


def table(timings: Sequence[Timing]) -> pd.DataFrame:
    """One row per network and contender.

    Columns: images_per_s (median over rounds), its ratio to `fit`, share_of_gemm_peak, peak_memory_mb (MiB).
    """
    import pandas as pd

    rows = [
        {
            "network": timing.network.name,
            "contender": contender,
            "images_per_s": round(statistics.median(speeds)),
            "ratio_to_fit": round(timing.ratio(contender, STOCK), 2),
            **(
                {"ratio_to_loop_by_hand": round(timing.ratio(contender, BY_HAND), 2)}
                if BY_HAND in timing.images_per_s
                else {}
            ),
            "share_of_gemm_peak": round(timing.share_of_peak(contender), 2),
            "peak_memory_mb": timing.peak_memory_mb[contender],
        }
        for timing in timings
        for contender, speeds in timing.images_per_s.items()
    ]
    return pd.DataFrame(rows)


def plot(timings: Sequence[Timing], path: Path) -> None:
    """Bars of the ratio to Keras's `fit`, with the middle half of the rounds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axis = figure.subplots()
    contenders = list(timings[0].images_per_s)
    width = 0.81 / len(contenders)  # of a bar, so that those of two networks stay apart
    for place, contender in enumerate(contenders):
        ratios = [np.divide(timing.images_per_s[contender], timing.images_per_s[STOCK]) for timing in timings]
        low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75], axis=1)
        at = np.arange(len(timings)) + (place - (len(contenders) - 1) / 2) * width
        axis.bar(at, median, 0.93 * width, yerr=(median - low, high - median), label=contender, capsize=3)
    axis.set_xticks(range(len(timings)), [timing.network.name for timing in timings])
    axis.set_ylabel(f"images a second, ratio to {STOCK}")
    axis.legend(fontsize=8)
    axis.grid(axis="y", alpha=0.3)
    save_picture(figure, path)


def _precision(contender: str) -> str:
    return "bfloat16" if contender in (STOCK_BFLOAT16, OURS_BFLOAT16) else "float32"


def _contenders() -> dict[str, Contender]:
    """All of this backend and device; those in bfloat16 only where it is multiplied in hardware."""
    found: dict[str, Contender] = {
        STOCK: partial(stock_epoch, precision="float32"),
        OURS: partial(engine_epoch, precision="float32"),
    }
    if backend() == "tensorflow":
        found[BY_HAND] = _by_hand
    if fastest_precision(places(this_machine(), 1)) == "bfloat16":
        found[STOCK_BFLOAT16] = partial(stock_epoch, precision="bfloat16")
        found[OURS_BFLOAT16] = partial(engine_epoch, precision="bfloat16")
    return found


def stock_epoch(
    network: Network,
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    *,
    precision: str,
    batch_size: int = RECIPE.batch_size,
) -> Epoch:
    """As Keras's guides do it: arrays of floats, layers that augment, `compile` and `fit` with their defaults."""
    model = with_augmentation_layers(_model(network, precision), _config(network))
    model.compile(optimizer(RECIPE, 10**6), loss="categorical_crossentropy")
    floats, targets = as_floats(images), one_hot(labels)
    return lambda: model.fit(floats, targets, batch_size=batch_size, verbose=0)


def engine_epoch(
    network: Network,
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    *,
    precision: str,
    batch_size: int = RECIPE.batch_size,
) -> Epoch:
    """The engine as a worker uses it on this device."""
    from harness.execution.training import engine_base, engines

    model, varied = compiled(network, precision), augmentation(_config(network))
    held, is_gpu = engine_base.hold(images, labels), bool(this_machine().gpu_names)
    engine = engines.make_engine(model, held, held, batch_size, augments=bool(varied), xla=is_gpu)
    rng = np.random.default_rng(0)
    shape = (len(images) // batch_size, batch_size)

    def epoch() -> float:
        order = rng.permutation(len(images))[: shape[0] * shape[1]].astype(np.int32).reshape(shape)
        return engine.train(order, varied.transforms(shape, images.shape[1:3], rng))

    return epoch


def compiled(network: Network, precision: str) -> keras.Model:
    """The network with the documented recipe."""
    model = _model(network, precision)
    compile_model(model, RECIPE, 10**6)
    return model


def _by_hand(network: Network, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Epoch:
    """The fastest code of TensorFlow's guides: data in memory, a whole epoch in one `tf.function`."""
    import keras
    import tensorflow as tf

    model = with_augmentation_layers(_model(network, "float32"), _config(network))
    adam, loss_function = optimizer(RECIPE, 10**6), keras.losses.CategoricalCrossentropy()
    adam.build(model.trainable_variables)
    floats, targets = tf.constant(as_floats(images)), tf.constant(one_hot(labels))
    batch_size, num_steps = RECIPE.batch_size, len(images) // RECIPE.batch_size

    @tf.function  # type: ignore[untyped-decorator]
    def epoch(order: Any) -> Any:
        total = 0.0
        for step in tf.range(num_steps):
            batch = order[step * batch_size : (step + 1) * batch_size]
            with tf.GradientTape() as tape:
                loss = loss_function(tf.gather(targets, batch), model(tf.gather(floats, batch), training=True))
            adam.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            total += loss
        return total

    return lambda: float(epoch(tf.random.shuffle(tf.range(len(images)))))


def _model(network: Network, precision: str) -> keras.Model:
    keras_settings.pin(precision)
    return baselines.load(network.architecture).build(_config(network))


def _config(network: Network) -> Any:
    return dataclasses.replace(baselines.load(network.architecture).DOCUMENTED, **network.params)


def flops_per_image(network: Network) -> float:
    """Floating point operations of training with one image."""
    return BACKWARD_AND_FORWARD * baselines.load(network.architecture).cost(_config(network)).flops_per_image


def gemm_flops_per_s(precision: str, side: int) -> float:
    """Speed of the framework's own product of square matrices, the best of three runs."""
    import keras

    matrix = keras.random.normal((side, side), dtype=precision)  # of zeros or ones a GPU needs less power
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        float(keras.ops.matmul(matrix, matrix)[0, 0])
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


if __name__ == "__main__":
    main()
