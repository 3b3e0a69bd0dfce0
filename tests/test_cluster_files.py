"""The files of docs/cluster: nothing misspelt, nothing that is not there, and Slurm's script says what it should."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import harness
from harness import cli

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "cluster"
SCHEMA = json.loads((Path(__file__).parent / "fixtures" / "rayjob.schema.json").read_text())

Node = dict[str, Any] | list[Any]

RAY_OPTIONS = """
import json
from ray.scripts.scripts import start
from ray.scripts.symmetric_run import symmetric_run
print(json.dumps([option for command in (start, symmetric_run) for param in command.params for option in param.opts]))
"""


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text()))


def ray_job() -> dict[str, Any]:
    (job,) = (document for document in documents() if document["kind"] == "RayJob")
    return job


def locked_ray() -> str:
    (version,) = re.findall(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return str(version)


def paths_of_keys(node: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every key of every object in `node`."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(node, dict):
            yield (*path, key)
        yield from paths_of_keys(value, (*path, key))


def misspelt(document: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    """A copy with another name for one key."""
    changed = copy.deepcopy(document)
    node: Any = changed
    *above, key = path
    for step in above:
        node = node[step]
    node[f"{key}x"] = node.pop(key)
    return changed


def test_the_manifest_is_of_the_schemas_form() -> None:
    kinds = [document["kind"] for document in documents()]
    assert kinds == ["PersistentVolumeClaim", "RayJob"]
    for document in documents():
        jsonschema.validate(document, SCHEMA)


@pytest.mark.parametrize("kind", [0, 1], ids=["claim", "job"])
def test_each_misspelt_field_is_found(kind: int) -> None:
    document = documents()[kind]
    validator = jsonschema.Draft202012Validator(SCHEMA)
    paths = list(paths_of_keys(document))
    assert len(paths) > 5
    assert [path for path in paths if validator.is_valid(misspelt(document, path))] == []


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A definition's schema which, like the API server on strict validation, refuses what it does not list."""
    changed = {key: strict(value) if isinstance(value, dict) else value for key, value in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "type" in schema and not is_open:
        changed["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        changed.pop("anyOf", None)
    return changed


@pytest.mark.skipif("RAYJOB_CRD" not in os.environ, reason="RAYJOB_CRD names no definition of KubeRay's RayJob")
def test_the_manifest_fits_kuberays_own_definition() -> None:
    definition = yaml.safe_load(Path(os.environ["RAYJOB_CRD"]).read_text())
    (version,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = True
    jsonschema.validate(ray_job(), schema)
    for path in paths_of_keys(ray_job()["spec"]["rayClusterSpec"]["workerGroupSpecs"]):
        changed = ray_job()
        groups = misspelt({"g": changed["spec"]["rayClusterSpec"]["workerGroupSpecs"]}, ("g", *path))["g"]
        changed["spec"]["rayClusterSpec"]["workerGroupSpecs"] = groups
        assert path[-1] in ("cpu", "memory") or not jsonschema.Draft202012Validator(schema).is_valid(changed), path


def assert_sweeps_on_the_cluster(command: list[str]) -> None:
    program, *arguments = command
    options = cli._parser().parse_args(arguments)
    assert (program, options.command, options.executor, options.address) == ("harness", "sweep", "ray", "auto")


def test_the_manifests_parts_go_together() -> None:
    claim, job = documents()
    cluster = job["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    pods = [head, *(group["template"]["spec"] for group in cluster["workerGroupSpecs"])]
    assert_sweeps_on_the_cluster(shlex.split(job["spec"]["entrypoint"]))
    assert cluster["rayVersion"] == locked_ray()
    assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
    assert head["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (container,) = head["containers"]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in head["volumes"]]
    assert f"HARNESS_HOME={container['volumeMounts'][0]['mountPath']} " in (FOLDER / "Dockerfile").read_text()
    assert container["image"].rpartition(":")[2] == harness.__version__


def test_the_image_takes_only_what_is_there() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    project = (ROOT / "pyproject.toml").read_text()
    assert {"README.md", "LICENSE", "harness", "baselines"} <= set(copied)
    assert 'readme = "README.md"' in project


# Slurm

SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "node[07-08]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_PER_TASK": "16",
}
SAYS_WHAT_IT_IS_CALLED_WITH = """#!/bin/sh
{ for word in "$0" "$@"; do printf '%s\\0' "$word"; done; } >"$RECORD/$(basename "$0")"
printf '%s' "$RAY_AUTH_TOKEN" >"$RECORD/token"
"""
LISTS_NODES = """#!/bin/sh
test "$*" = "show hostnames node[07-08]" && printf 'node07\\nnode08\\n'
"""


@pytest.fixture
def called(tmp_path: Path) -> tuple[list[str], str]:
    """What the script calls srun with, and the token that Ray would get."""
    for name, text in (("srun", SAYS_WHAT_IT_IS_CALLED_WITH), ("scontrol", LISTS_NODES)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "record").mkdir()
    environment = {
        **SLURM,
        "PATH": f"{tmp_path}:{os.defpath}",
        "RECORD": str(tmp_path / "record"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    command = ["bash", str(FOLDER / "sweep.sbatch"), "my sweep.toml", "--budget", "8h"]
    subprocess.run(command, env=environment, check=True)
    words = (tmp_path / "record" / "srun").read_text().split("\0")[1:-1]
    return words, (tmp_path / "record" / "token").read_text()


def test_slurm_starts_ray_on_every_node_and_the_sweep_on_one(called: tuple[list[str], str]) -> None:
    words, _ = called
    begin, separator = words.index("ray"), words.index("--")
    assert words[:begin] == ["--ntasks-per-node=1", "--cpus-per-task=16", "--kill-on-bad-exit=0"]
    assert words[begin:separator] == shlex.split(
        "ray symmetric-run --address node07:23456 --min-nodes 2"
        " --num-cpus=16 --include-dashboard=false --disable-usage-stats"
    )
    assert words[separator + 1 : -4] == ["harness", "sweep", "my sweep.toml", "--budget", "8h"]
    assert_sweeps_on_the_cluster(words[separator + 1 :])


def test_every_job_has_a_token_of_its_own(called: tuple[list[str], str]) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", called[1])


def test_ray_has_the_options_that_slurms_script_gives_it(called: tuple[list[str], str]) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray comes with the extra `cluster`")
    words, _ = called
    # In a process of its own: Ray reads its environment when it is loaded, and other tests set it.
    known = set(json.loads(subprocess.check_output([sys.executable, "-c", RAY_OPTIONS])))
    given = words[words.index("symmetric-run") : words.index("--")]
    assert {word.partition("=")[0] for word in given if word.startswith("--")} <= known
