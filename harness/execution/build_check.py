"""Builds a user's own network once in a process of its own, before its study is stored.

A study records the file's content. So a mistake that shows only when the network is built must be found before.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

from harness.errors import InputError, TroubleError
from harness.execution.machine.devices import FRAMEWORK_ENVIRONMENT
from harness.execution.messages import to_json
from harness.study.network import Source, permit, source_of, where
from harness.study.spec import SweepSpec
from harness.support import own_code
from harness.support.strict_json import parse_json

NUM_SAMPLES = 3  # configurations of the space, besides the documented one


def check_builds(spec: SweepSpec) -> None:
    """Builds the documented network and some of the space, and compares them with `cost` and the data.

    Raises:
        InputError: one line with the file, and its line if it fails there.
        TroubleError: the process died.
    """
    done = subprocess.run(
        own_code.program("harness.execution.build_check"),
        input=b"\n".join(map(to_json, (spec, source_of(spec.network)))),
        env={**os.environ, **FRAMEWORK_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        check=False,
    )
    problem = done.stdout.decode(errors="replace").strip()
    if problem:
        raise InputError(problem.splitlines()[-1])
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise TroubleError(f"the network of study {spec.study} cannot be built: status {done.returncode}, {last}")


def main() -> None:
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the file or a library prints
    spec, source = sys.stdin.buffer.read().split(b"\n")
    problem = _problem(parse_json(SweepSpec, spec), parse_json(Source | None, source))  # type: ignore[arg-type]
    channel.write(problem or "")
    channel.flush()


def _problem(spec: SweepSpec, source: Source | None) -> str | None:
    permit(source)
    from harness.execution.training.trainer import build

    rng = random.Random(0)  # noqa: S311 - no secret
    # A space may hold configurations that its limits exclude, but these can be built as well.
    points = [spec.baseline_params, *(spec.search_space.sample(rng) for _ in range(NUM_SAMPLES if spec.space else 0))]
    for params in points:
        try:
            build(spec, params)
        except TroubleError as error:
            return f"{error} (with {_told(params)})"
        except Exception as error:
            file = source.file if source else spec.baseline
            return f"{where(file, error)} (with {_told(params)})"
    return None


def _told(params: object) -> str:
    return " ".join(str(params).split())


if __name__ == "__main__":
    main()
