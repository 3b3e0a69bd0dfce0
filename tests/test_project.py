"""The project's own rules: which way imports run, what start-up loads, what is locked, tracked and listed."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import pytest
from open_databases import left_open, num_opened
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sqlalchemy import create_engine

from harness.ledger.ledger import Ledger

ROOT = Path(__file__).resolve().parents[1]

# The packages in layers, from the bottom to the top: a package imports only from layers below it, and from itself.
SAME_LAYER = {"search", "execution", "tracking", "analysis"}
PACKAGES = [
    {"support"},
    {"study"},
    {"ledger"},
    SAME_LAYER,
    {"planning"},
    {"sweep", "audit"},
    {"workflows"},
    {"bench"},
    {"gpu_check"},
    {"api"},
]
MODULES = ["commands", "cli"]  # files beside the packages, in layers above them; `errors` is below
LAYER_OF = {"errors": 0}
LAYERS = [*PACKAGES, *({module} for module in MODULES)]
LAYER_OF |= {part: layer for layer, parts in enumerate(LAYERS, start=1) for part in parts}

SLOW_TO_LOAD = {"tensorflow", "keras", "keras_tuner", "mlflow"}
MAY_LOAD_THEM = (
    "harness.execution.training.trainer",
    "harness.execution.training.engine_base",
    "harness.execution.training.engines",
    "harness.execution.training.jax_engine",
    "harness.execution.training.kernels",
    "harness.search.keras_tuner_private",
    "harness.search.keras_tuner_search",
    "harness.tracking.",
    "harness.bench.peers",  # a program of its own
)
NOT_AT_START = SLOW_TO_LOAD | {"optuna", "pandas"}


@dataclass(frozen=True)
class Import:
    """`importer` is a module of ours, `imported` any module; `at_load`: it happens when `importer` is imported."""

    importer: str
    imported: str
    at_load: bool
    for_types_only: bool

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}"


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(f): f for package in ("harness", "baselines") for f in sorted((ROOT / package).rglob("*.py"))}


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def import_nodes(
    node: ast.AST, at_load: bool = True, for_types: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_load and not for_types, for_types
        is_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from import_nodes(child, at_load and not is_later, for_types or is_for_types_only(child))


def imported_names(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, f"relative import in line {node.lineno}; write the whole name"
    assert node.module
    for alias in node.names:  # what is taken from a package may be a module of it
        whole = f"{node.module}.{alias.name}"
        yield whole if whole in FILES else node.module


def all_imports() -> list[Import]:
    return [
        Import(importer, imported, at_load, for_types)
        for importer, file in FILES.items()
        for node, at_load, for_types in import_nodes(ast.parse(file.read_text(encoding="utf-8")))
        for imported in imported_names(node)
    ]


IMPORTS = all_imports()


def part(module: str) -> str | None:
    """`search` for `harness.search.optuna_search`; None for what is not inside harness."""
    package, _, rest = module.partition(".")
    return rest.split(".")[0] if package == "harness" and rest else None


def crossings() -> list[tuple[Import, str, str]]:
    pairs = [(i, part(i.importer), part(i.imported)) for i in IMPORTS]
    return [(i, a, b) for i, a, b in pairs if a and b and a != b]


def test_every_file_is_in_a_package_or_a_listed_module() -> None:
    found = {part(module) for module in FILES} - {None}
    assert found == LAYER_OF.keys()
    assert sorted(file.stem for file in (ROOT / "harness").glob("*.py")) == sorted(["__init__", "errors", *MODULES])


def test_imports_run_downwards() -> None:
    upwards = [i for i, importer, imported in crossings() if LAYER_OF[importer] <= LAYER_OF[imported]]
    assert [str(i) for i in upwards if not {part(i.importer), part(i.imported)} <= SAME_LAYER] == []


def test_the_map_names_every_package() -> None:
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^  (\w+)/ ", design, re.MULTILINE))
    assert listed == {package for layer in PACKAGES for package in layer}
    named = re.findall(r"`(harness/[\w/]+\.py)`", design)
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_packages_of_one_layer_do_not_import_each_other() -> None:
    assert [str(i) for i, importer, imported in crossings() if {importer, imported} <= SAME_LAYER] == []


def test_no_circular_imports() -> None:
    """File by file, and also for what is imported when it is needed."""
    below: dict[str, set[str]] = {}
    for i in IMPORTS:
        if i.imported in FILES and not i.for_types_only:
            below.setdefault(i.importer, set()).add(i.imported)
    TopologicalSorter(below).prepare()  # raises CycleError and names the circle


def test_baselines_import_keras_and_numpy_only() -> None:
    allowed = {*sys.stdlib_module_names, "baselines", "keras", "numpy"}
    packages = {i.imported.split(".")[0]: i for i in IMPORTS if i.importer.startswith("baselines")}
    assert [str(i) for package, i in packages.items() if package not in allowed] == []


def test_slow_packages_are_loaded_only_where_they_are_used() -> None:
    at_load = [i for i in IMPORTS if i.at_load and i.imported.split(".")[0] in SLOW_TO_LOAD]
    assert [str(i) for i in at_load if not i.importer.startswith(MAY_LOAD_THEM)] == []


def test_no_settings_are_made_unchecked() -> None:
    """`SweepSpec.changed` checks what it makes; pydantic's own ways do not."""
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in FILES.values()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("model_copy", "model_construct")
    ]
    assert not found


def test_help_is_shown_without_the_slow_packages() -> None:
    code = f"""
import atexit, sys
from harness import cli
atexit.register(lambda: print(*sorted({NOT_AT_START!r} & sys.modules.keys()), file=sys.stderr))
sys.exit(cli.main(["--help"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split()) == (0, [])
    assert "sweep" in done.stdout


def test_a_folder_called_as_a_package_does_not_stand_in_its_way(tmp_path: Path) -> None:
    """Such as a checkout called harness, seen from the folder above it."""
    for name in ("harness", "baselines"):
        (tmp_path / name).mkdir()
    code = "from harness import load_sweep; print(load_sweep('smoke').study)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("smoke-quick\n", "")


def test_other_pythons_are_started_in_one_place_only() -> None:
    """`own_code` starts them so that they import nothing from the working folder."""
    found = [name for name, file in FILES.items() if "sys.executable" in file.read_text(encoding="utf-8")]
    assert found == ["harness.support.own_code", "harness.workflows.doctor"]  # the one shows it


def test_a_database_that_is_left_open_is_noticed(tmp_path: Path) -> None:
    before = num_opened()
    with ThreadPoolExecutor() as pool:  # whose thread is not the one that looks
        ledger = pool.submit(Ledger, tmp_path / "ledger.db").result()
        engine = create_engine(f"sqlite:///{tmp_path}/optuna.db")
        pool.submit(lambda: engine.connect().close()).result()
    sqlite3.connect(tmp_path / "closed.db").close()
    assert [place.partition(":")[0] for place in left_open(before)] == [
        "harness/ledger/schema.py",
        "tests/test_project.py",
    ]
    ledger.close()
    engine.dispose()


LOCKS = ("requirements.lock", "requirements-gpu.lock")
# The files that use private names of a library, by the library; see test_private_names.
ADAPTERS = {
    "harness/execution/training/keras_private.py": "keras",
    "harness/search/keras_tuner_private.py": "keras-tuner",
    "harness/search/optuna_private.py": "optuna",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_requirement_says_from_which_version_on() -> None:
    """`make test-lowest` installs these; without a bound it would take the first version ever."""
    asked = chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    assert [str(r) for r in map(Requirement, asked) if ">=" not in {s.operator for s in r.specifier}] == []


@pytest.mark.parametrize("name", ADAPTERS.values())
def test_what_is_used_in_private_has_an_upper_bound(name: str) -> None:
    """Below the next minor version."""
    (requirement,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == name)
    major, minor, *_ = next(iter(pins(LOCKS[0])[name])).split(".")
    assert f"<{major}.{int(minor) + 1}" in str(requirement.specifier)


def locked(name: str) -> list[tuple[Requirement, int]]:
    """The requirements of a lock file, each with its number of hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [
        (Requirement(line.split(" --hash=")[0]), len(re.findall(r" --hash=sha256:[0-9a-f]{64}\b", line)))
        for line in lines
    ]


def pins(name: str) -> dict[str, set[str]]:
    """Locked versions by package; more than one where Python versions need different ones."""
    versions: dict[str, set[str]] = {}
    for requirement, _ in locked(name):
        (specifier,) = requirement.specifier
        versions.setdefault(canonicalize_name(requirement.name), set()).add(specifier.version)
    return versions


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_and_hashes_everything(name: str) -> None:
    requirements = locked(name)
    assert requirements
    assert [str(r) for r, num_hashes in requirements if not num_hashes] == []
    assert [str(r) for r, _ in requirements if [s.operator for s in r.specifier] != ["=="] or r.url] == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if "://" in line or line.startswith("-")] == []


@pytest.mark.parametrize(
    ("name", "extras"), [("requirements.lock", ["dev", "cmaes"]), ("requirements-gpu.lock", ["gpu"])]
)
def test_lock_follows_pyproject(name: str, extras: list[str]) -> None:
    asked = map(Requirement, PROJECT["dependencies"] + [r for e in extras for r in PROJECT["optional-dependencies"][e]])
    versions = pins(name)
    fits = {str(r): {r.specifier.contains(v) for v in versions.get(canonicalize_name(r.name), ())} for r in asked}
    assert [requirement for requirement, found in fits.items() if found != {True}] == [], "run `make lock`"


def test_locks_agree() -> None:
    plain, gpu = (pins(name) for name in LOCKS)
    assert plain.items() <= gpu.items(), "run `make lock`"


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


in_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


@in_git
def test_no_result_is_tracked() -> None:
    assert git("ls-files", "mlruns") == ["mlruns/.gitignore"]


@in_git
def test_link_for_a_plain_mlflow_ui_is_tracked() -> None:
    (entry,) = git("ls-files", "--stage", "mlflow.db")
    assert entry.startswith("120000 ")
    assert (ROOT / "mlflow.db").readlink() == Path("mlruns/mlflow.db")


VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def make(
    *arguments: str, folder: Path = ROOT, venv: str = ".venv", given: Mapping[str, str] = MappingProxyType({})
) -> str:
    """What make prints; nothing else of the environment may become a flag, also where make runs these tests."""
    command = ["make", "--no-print-directory", f"--old-file={venv}/ready", *arguments]
    environment = {"PATH": os.environ["PATH"], **given}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_make_alone_lists_every_target() -> None:
    rules = re.findall(r"^([a-z][a-z%-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    listed = re.findall(r"^make (\S+) +\S", make(), re.MULTILINE)
    assert set(rules) - {"help"} == {target.replace("NAME", "%") for target in listed}
    assert len(listed) == len(set(listed)) == len(make().splitlines())


def test_make_turns_variables_into_flags() -> None:
    variables = "TRIALS=3 BUDGET=15m ENGINE=optuna SAMPLER=tpe PRUNER=none PROFILE=quick WORKERS=1 SEED=7"
    variables += " EXECUTOR=ray ADDRESS=auto"
    flags = "--trials 3 --budget 15m --engine optuna --sampler tpe --pruner none --profile quick --seed 7"
    flags += " --workers 1 --executor ray --address auto"
    line = make("-n", "sweep-cnn", *shlex.split(variables), "ARGS=--fresh")
    assert shlex.split(line)[1:] == ["sweep", "cnn", *shlex.split(flags), "--fresh"]


@pytest.mark.parametrize(
    ("there", "venv"),
    [(None, ".venv"), (VERSION, ".venv"), ("3.9", f".venv-{VERSION}")],
    ids=["nothing is set up", "this Python is set up", "another Python is set up"],
)
def test_make_has_an_environment_for_each_python(tmp_path: Path, there: str | None, venv: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    if there:
        (tmp_path / ".venv" / "lib" / f"python{there}").mkdir(parents=True)
    line = make("-n", "test", f"PYTHON={sys.executable}", folder=tmp_path, venv=venv)
    assert shlex.split(line)[:3] == [f"{venv}/bin/python", "-m", "pytest"]


def test_make_does_not_run_another_python_than_the_one_named(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "lib" / "python3.9").mkdir(parents=True)
    with pytest.raises(subprocess.CalledProcessError) as failure:
        make("test", "PYTHON=/bin/false", folder=tmp_path)
    assert "none of these is Python 3.11, 3.12 or 3.13 with its venv module: '/bin/false';" in failure.value.stderr


def test_make_turns_a_verdicts_variables_into_flags() -> None:
    line = make("-n", "verdict-cnn", "TOP=1", "SEEDS=8", "EPOCHS=5", "BUDGET=2h", "WORKERS=1")
    flags = "--top 1 --seeds 8 --epochs 5 --budget 2h --workers 1"
    assert shlex.split(line)[1:] == ["verdict", "cnn", *shlex.split(flags)]
    assert shlex.split(make("-n", "verdict-cnn-full"))[1:] == ["verdict", "cnn-full"]


def test_a_value_stays_one_word_for_the_shell() -> None:
    name = 'it\'s "one"; echo file.html'
    assert shlex.split(make("-n", "report-cnn", f"OUT={name}"))[1:] == ["report", "cnn", "--out", name]
    assert shlex.split(make("-n", "gpu-wheels", f"OUT={name}", f"HAVE={name}"))[2:] == [name, "--have", name]


def test_make_without_variables_gives_no_flags() -> None:
    assert shlex.split(make("-n", "sweep-smoke"))[1:] == ["sweep", "smoke"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("TRAILS=5", "TRAILS is not a variable of `make verdict-cnn`; allowed: ADDRESS ARGS BIN "),
        ("epochs=5", "epochs is not a variable of `make verdict-cnn`; allowed: "),
        ("TRIALS=5", "TRIALS is not a variable of `make verdict-cnn`; allowed: "),  # of sweeps
        ("REUSE=No", "REUSE is No; allowed: yes, no"),
        ("REUSE=yes no", "REUSE is yes no; allowed: yes, no"),
    ],
)
def test_make_refuses_a_variable_that_would_change_nothing(given: str, says: str) -> None:
    error = refusal_by_make("verdict-cnn", given)
    assert error.count("\n") == 1
    assert says in error


def refusal_by_make(*arguments: str) -> str:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        make("-n", *arguments)  # a variable that is taken must not start anything here
    assert (failure.value.returncode, failure.value.stdout) == (2, "")
    return str(failure.value.stderr)


def test_each_target_of_make_takes_the_variables_that_its_line_lists() -> None:
    listed = {target: set(re.findall(r"\b([A-Z]+)=", line)) for target, line in re.findall(r"make (\S+)(.*)", make())}
    same = {"sweep-fc": "sweep-cnn", "sweep-NAME": "sweep-cnn", "verdict-fc": "verdict-cnn", "report-fc": "report-cnn"}
    same |= {"verdict-NAME": "verdict-cnn", "report-NAME": "report-cnn"}
    everywhere = {"ARGS", "BIN", "LOCK", "PYTHON", "SHELL", "VENV"}  # or in many places
    for target in listed:
        allowed = set(refusal_by_make(target, "ZZZ=1").partition("allowed: ")[2].partition(".")[0].split())
        assert allowed - everywhere == listed[same.get(target, target)] - everywhere, target
        assert allowed >= everywhere - {"ARGS"}
    assert "--trials 4" in make("-n", "sweep-cnn", "verdict-cnn", "TRIALS=4", "TOP=1").replace("'", "")


def test_each_target_of_make_reads_the_variables_that_it_takes_and_no_other() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lists = dict(re.findall(r"^OF_(\S+) := (.*)", makefile, re.MULTILINE))
    of_any = set(lists.pop("ANY").split())
    names = set(re.findall(r"\b[A-Z]+\b", " ".join(lists.values()))) | set(re.findall(r"call flag,([A-Z]+),", makefile))
    values = {name: f"one {name} two" for name in names - {"OF"}} | {"REUSE": "no"}
    seen = values | {"REUSE": "--no-reuse", "UPGRADE": "--upgrade"}
    for target in re.findall(r"make (\S+) ", make()):
        allowed = set(refusal_by_make(target, "ZZZ=1").partition("allowed: ")[2].partition(".")[0].split())
        given = make("-n", target, given=values)  # of the environment, where none is refused
        read = {name for name, text in seen.items() if text in given}
        assert read == allowed - of_any, target


def test_the_documentation_lists_every_sampler_and_pruner() -> None:
    from harness.search.samplers import PRUNERS, SAMPLERS

    listed = (ROOT / "docs" / "sweeps.md").read_text()
    rows = [f"| {sampler.engine} | {sampler.name} | {sampler.properties} |" for sampler in SAMPLERS]
    rows += [f"| {pruner.name} | {pruner.properties} |" for pruner in PRUNERS]
    assert [row for row in rows if row not in listed] == []
