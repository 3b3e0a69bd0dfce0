"""The GPUs of this machine, and those that this process may use. No framework is loaded, and no GPU is used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from harness.errors import InputError

_TIMEOUT_S = 30.0  # without its persistence daemon a driver takes seconds to wake up
_GPU_LINE = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[\w-]+)\)")
_CAPABILITY_LINE = re.compile(r"(GPU-[\w-]+), (\d+\.\d+)")
_AMPERE = 8.0  # compute capability
_INSTANCE_LINE = re.compile(r"\s+MIG (\S+) +Device +\d+: \(UUID: (MIG-[\w/-]+)\)")


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG instance of one, for one worker.

    Attributes:
        name: Model; for a MIG instance also its profile.
        uuid: Its id in both CUDA and NVML, independent of the order of enumeration: `GPU-...`, or `MIG-...` for an
            instance of MIG (multi-instance GPU).
        has_bfloat16: Whether it multiplies bfloat16 in hardware, as NVIDIA's do from Ampere on.
    """

    name: str
    uuid: str
    has_bfloat16: bool = False


@dataclass(frozen=True)
class _Card:
    """A GPU with the driver's number and its MIG instances, if any."""

    number: int
    gpu: Gpu
    instances: tuple[Gpu, ...] = ()

    @property
    def usable(self) -> tuple[Gpu, ...]:
        return self.instances or (self.gpu,)


def usable_gpus() -> tuple[Gpu, ...]:
    """The GPUs in `CUDA_VISIBLE_DEVICES`, in its order; all GPUs if it is not set.

    It is parsed like CUDA does it: numbers or prefixes of UUIDs, up to the first unknown one; none if one is repeated.
    A GPU in MIG mode counts as its instances. Numbers are those of `nvidia-smi`.

    Raises:
        InputError: GPUs of several models are given by numbers, which CUDA may order differently.
    """
    tool = shutil.which("nvidia-smi")
    listing = _output([tool, "-L"]) if tool else ""
    cards = _cards(listing, _capabilities(tool)) if tool and listing else []
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    if mask is None:
        return tuple(gpu for card in cards for gpu in card.usable)
    return _visible(cards, [name.strip() for name in mask.split(",")])


def is_instance(uuid: str) -> bool:
    """Whether it is a MIG instance, which reports its own memory only."""
    return uuid.startswith("MIG-")


@cache
def _capabilities(tool: str) -> dict[str, float]:
    """CUDA's compute capability of each GPU by its UUID, as far as the driver reports it."""
    listing = _output([tool, "--query-gpu=uuid,compute_cap", "--format=csv,noheader"])
    return {found[1]: float(found[2]) for line in listing.splitlines() if (found := _CAPABILITY_LINE.fullmatch(line))}


def _cards(listing: str, capabilities: Mapping[str, float]) -> list[_Card]:
    """The listing has a line for each GPU and, indented below it, one for each instance."""
    cards: list[_Card] = []
    for line in listing.splitlines():
        if found := _GPU_LINE.match(line):
            has_bfloat16 = capabilities.get(found[3], 0.0) >= _AMPERE
            cards.append(_Card(int(found[1]), Gpu(found[2], found[3], has_bfloat16)))
        elif cards and (found := _INSTANCE_LINE.match(line)):
            whole = cards[-1].gpu
            instance = Gpu(f"{whole.name} MIG {found[1]}", found[2], whole.has_bfloat16)
            cards[-1] = replace(cards[-1], instances=(*cards[-1].instances, instance))
    return cards


def _visible(cards: Sequence[_Card], names: Sequence[str]) -> tuple[Gpu, ...]:
    _check_order(cards, names)
    visible: list[Gpu] = []
    for name in names:
        named = _named(cards, name)
        if not named:
            break
        if not set(named).isdisjoint(visible):
            return ()
        visible += named
    return tuple(visible)


def _named(cards: Sequence[_Card], name: str) -> tuple[Gpu, ...]:
    """The GPU of a number or a prefix of a UUID; none if it is not unique."""
    if name.isascii() and name.isdigit():
        matches = [card.usable for card in cards if card.number == int(name)]
    elif name.startswith("GPU-"):
        matches = [card.usable for card in cards if card.gpu.uuid.startswith(name)]
    else:
        instances = (instance for card in cards for instance in card.instances)
        matches = [(instance,) for instance in instances if name and instance.uuid.startswith(name)]
    return matches[0] if len(matches) == 1 else ()


def _check_order(cards: Sequence[_Card], names: Sequence[str]) -> None:
    """Refuses numbers with several models: by default CUDA orders by speed, the driver by slot."""
    has_numbers = any(name.isdigit() for name in names)
    num_models = len({card.gpu.name for card in cards})
    if has_numbers and num_models > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise InputError(
            f"CUDA_VISIBLE_DEVICES is {','.join(names)!r}, which is not clear where GPUs differ; allowed: UUIDs as in "
            "`nvidia-smi -L`, or its numbers together with CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )


def _output(command: Sequence[str]) -> str:
    """Its output, also if it fails: with one broken GPU, it lists the others and fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
