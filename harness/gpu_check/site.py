"""What is checked: one GPU, with the data and the amounts of work of its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import baselines
from harness.execution.base import Place
from harness.study.data import BUILT_IN
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import baseline_spec

CURVE_IMAGES = 1_000  # validation images after each epoch


@dataclass(frozen=True)
class Reference:
    """Validation errors of the documented network on CPUs, in float32: docs/results/bench-precision.csv.

    Attributes:
        train_images, epochs: The amount of training.
        num_seeds: Number of trainings.
        mean_pct, sd_pct: Mean and standard deviation of their errors, percent.
        dataset: The data set.
    """

    train_images: int
    epochs: int
    num_seeds: int
    mean_pct: float
    sd_pct: float
    dataset: str = "mnist"


REFERENCES: dict[baselines.Name, Reference] = {
    "fc": Reference(20_000, 8, 20, 2.463, 0.075),
    "cnn": Reference(8_000, 5, 20, 1.681, 0.094),
}


@dataclass(frozen=True)
class Sizes:
    """Amounts of work.

    Attributes:
        epoch_images: Training images of an epoch that is measured.
        enough_s: Seconds that a measured trial trains; NVML averages over up to one second.
        probe_mb: MiB that the probe takes on the GPU, to see whether NVML sees them there.
        too_many_units: Units of the first layer of a network whose weights fit into no device, 3 kB for each.
        speed_images: Images of a round of the comparison with `fit`.
        num_rounds: Rounds of the comparison.
        matrix_side: Side of the matrices whose product is taken as the peak.
        references: The errors to be met.
    """

    epoch_images: int = 50_000
    enough_s: float = 2.0
    probe_mb: int = 1_024
    too_many_units: int = 2**30
    speed_images: int = 49_152
    num_rounds: int = 5
    matrix_side: int = 16_384
    references: Mapping[baselines.Name, Reference] = field(default_factory=lambda: REFERENCES)


@dataclass(frozen=True)
class Site:
    """A GPU to be checked.

    Attributes:
        place: A worker that has it to itself.
        dataset: The data set of the trainings.
        data_folder: Its folder.
        logs: Folder of the workers' logs.
        sizes: Amounts of work.
    """

    place: Place
    dataset: str
    data_folder: Path
    logs: Path
    sizes: Sizes = Sizes()

    def shared_places(self) -> list[Place]:
        """Two workers on this GPU."""
        threads = max(1, self.place.threads // 2)
        return [replace(self.place, name=f"worker-{i}", threads=threads, sharing=2) for i in range(2)]

    def study(self, baseline: baselines.Name, train_images: int, epochs: int) -> SweepSpec:
        """A study of the documented network, in float32, that never reads the test images."""
        sizes = BUILT_IN[self.dataset].sizes
        return baseline_spec(baseline, Flags(dataset=self.dataset, precision="float32"), 1, "quick").changed(
            study=f"gpu-check-{baseline}",
            reads_test=False,
            train_images=min(train_images, sizes["train"]),
            validation_images=min(CURVE_IMAGES, sizes["validation"]),
            epochs=epochs,
        )
