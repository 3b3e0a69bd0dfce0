"""Collects what a machine with a GPU and without a network lacks to run `harness doctor --gpu` on JAX.

    python scripts/gpu_wheels.py FOLDER [--have LIST] [--python 3.12] [--whole]

FOLDER gets wheels, that of the harness among them, and MNIST: at most 60 MB. LIST is the output of `python3 -m pip list
--format=freeze` on that machine; what it has in a version that fits is left out. Versions and hashes are those of
requirements-gpu.lock. TensorFlow is left out, and so is KerasTuner, which needs it. docs/gpu.md says what to do there.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.errors import InputError, TroubleError
from harness.execution.data import cache

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("baselines", "harness", "sweeps", "pyproject.toml", "README.md", "LICENSE")
NOT_NEEDED = {"tensorflow", "keras-tuner"}
EXTRAS = ("jax",)
ALSO = ("nvidia-ml-py",)  # of the extra `gpu`, whose other packages are TensorFlow's
# Of the harness' requirements, those of the check; a test imports it with nothing else.
FOR_THE_CHECK = {"filelock", "jax", "keras", "numpy", "platformdirs", "psutil", "pydantic", "scipy"}
MAX_MB = 60.0
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + ["manylinux2014_x86_64"]

Have = Mapping[str, str]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to fill; made if missing, else empty")
    parser.add_argument(
        "--have", type=Path, metavar="LIST", help="what the machine has (default: JAX and nothing else)"
    )
    parser.add_argument("--python", default="3.12", metavar="X.Y", help="its Python (default: 3.12)")
    parser.add_argument("--whole", action="store_true", help="also what sweeps, reports and verdicts need")
    options = parser.parse_args(arguments)
    try:
        have = read_list(options.have)
        collect(options.folder, missing(have, options.python, whole=options.whole), options.python)
    except (InputError, TroubleError) as error:
        sys.stderr.write(f"gpu_wheels: {error}\n")
        return 2 if isinstance(error, InputError) else 1
    return 0


def collect(folder: Path, names: Iterable[str], python: str) -> None:
    """Fills the folder with these packages, the harness and MNIST, and says what has which size.

    Raises:
        InputError: the folder has something in it.
        TroubleError: a wheel cannot be fetched, or all together are larger than 60 MB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"FOLDER is {folder}, which is not empty; allowed: a new or an empty one")
    platforms = [word for one in PLATFORMS for word in ("--platform", one)]
    target = ["--python-version", python, "--implementation", "cp", *platforms, "--only-binary=:all:"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(locked(names, python)))
        wanted.flush()
        _pip("download", "--no-deps", "--require-hashes", *target, "--dest", str(folder), "--requirement", wanted.name)
    with tempfile.TemporaryDirectory() as source:  # setuptools leaves files beside the sources
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(source) / name)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), source)
    arrays: Any = cache.fetch("mnist", say)
    np.savez_compressed(folder / "mnist.npz", **arrays)
    sizes_mb = {file.name: file.stat().st_size / 1e6 for file in folder.iterdir()}
    for name, size_mb in sorted(sizes_mb.items(), key=lambda item: -item[1]):
        say(f"{size_mb:6.1f} MB  {name}")
    total_mb = sum(sizes_mb.values())
    say(f"{total_mb:6.1f} MB  in {len(sizes_mb)} files in {folder}")
    if total_mb > MAX_MB:
        raise TroubleError(
            f"{folder} has {total_mb:.0f} MB; allowed: {MAX_MB:g}; say with --have what is there already"
        )


def missing(have: Have, python: str, *, whole: bool) -> set[str]:
    """Names of the packages that the check or the whole harness needs, directly or not, and the machine lacks."""
    environment = _environment(python)
    wanted = [one for one in map(Requirement, _needs("harness")) if _is_asked(one, environment, EXTRAS)]
    pending, found = [one for one in wanted if whole or one.name in FOR_THE_CHECK], set[str]()
    pending += map(Requirement, ALSO)
    while pending:
        one = pending.pop()
        name = canonicalize_name(one.name)
        if name in NOT_NEEDED or name in found or _is_there(one, have):
            continue
        found.add(name)
        pending += [need for need in map(Requirement, _needs(name)) if _is_asked(need, environment, one.extras)]
    return found


def locked(names: Iterable[str], python: str) -> Iterator[str]:
    """The entries of the lock file for these packages, with their hashes."""
    text = (ROOT / "requirements-gpu.lock").read_text(encoding="utf-8")
    for entry in re.split(r"\n(?=\S)", text):
        requirement = Requirement(entry.partition(" \\")[0])
        if canonicalize_name(requirement.name) in names and _is_asked(requirement, _environment(python), ()):
            yield entry


def _needs(name: str) -> list[str]:
    """The requirements of a package that is installed here; none if it is not, as nvidia-ml-py, which has none."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def _environment(python: str) -> dict[str, str]:
    """For markers, on that machine."""
    return {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}  # type: ignore[dict-item]


def read_list(path: Path | None) -> dict[str, str]:
    """Versions by name of a list of `pip list --format=freeze`; without one, JAX's and what JAX needs."""
    if path is None:
        return {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "scipy", "ml-dtypes", "opt-einsum")}
    pairs = (line.partition("==") for line in path.read_text().splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, _, version in pairs}


def _is_asked(requirement: Requirement, environment: Mapping[str, str], extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras))


def _is_there(requirement: Requirement, have: Have) -> bool:
    version = have.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TroubleError(f"pip {arguments[0]} failed: {done.stderr.strip().splitlines()[-1][:300]}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
