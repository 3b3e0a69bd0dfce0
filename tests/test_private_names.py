"""Names that are private in a library are used in one file per library, which says in which version they were seen."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

import pytest
from test_project import ADAPTERS, LOCKS, ROOT, pins

FILES = sorted(path.relative_to(ROOT) for folder in ("harness", "baselines") for path in (ROOT / folder).rglob("*.py"))
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # which are public all the same
OF_ARGPARSE = {"_actions"}  # of the standard library
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OF_NAMED_TUPLES | OF_ARGPARSE


def uses(text: str) -> Iterator[str]:
    """Private names that a file uses without having made them itself; the standard library's are no matter."""
    tree = ast.parse(text)
    own = set(made(tree)) | inherited(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            if not (isinstance(node.value, ast.Name) and node.value.id in sys.stdlib_module_names):
                yield ast.unparse(node)
        elif isinstance(node, ast.Import | ast.ImportFrom) and is_private_import(node):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BY_NAME:
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)) and name.value not in own:
                yield ast.unparse(node)


def made(tree: ast.Module) -> Iterator[str]:
    """The names that classes and `self` get in a file; a class of a library's may have the same name, which passes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) in ("self", "cls")
        ):
            yield node.attr


def inherited(tree: ast.Module) -> set[str]:
    """The names that classes of this project get in files from which this one imports, such as its base classes."""
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    files = [ROOT / f"{module.replace('.', '/')}.py" for module in modules if module.startswith("harness.")]
    return {name for file in files if file.exists() for name in made(ast.parse(file.read_text(encoding="utf-8")))}


def is_private_import(node: ast.Import | ast.ImportFrom) -> bool:
    paths = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    parts = [*(part for path in paths for part in path.split(".")), *(alias.name for alias in node.names)]
    return any(is_private(part) for part in parts) or any(re.match(r"keras(_tuner)?\.src\b", path) for path in paths)


@pytest.mark.parametrize(
    "text",
    [
        "adam._momentums",
        "oracle._seed_state = 1",
        "study.ask()._study",
        "getattr(oracle, '_brackets', ())",
        "from optuna.samplers._tpe import sampler",
        "from mlflow.store import _unit",
        "import ray._private.worker",
        "from keras_tuner.src.engine import conditions",
        "import keras.src.backend",
    ],
)
def test_a_private_name_is_noticed(text: str) -> None:
    assert len(list(uses(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    _b = 1\n    def _c(self): return self._b\n    def d(self, other): self._e = other._c()",
        "parts._replace(netloc='')",
        "import os\nos._exit(1)",
        "from __future__ import annotations\nobject.__setattr__(a, 'b', 1)",
        "from keras_tuner.engine import trial",
    ],
)
def test_a_name_of_ones_own_is_not(text: str) -> None:
    assert list(uses(text)) == []


def test_private_names_of_libraries_stand_in_one_file_for_each() -> None:
    found = {path.as_posix(): list(uses((ROOT / path).read_text(encoding="utf-8"))) for path in FILES}
    assert {path for path, lines in found.items() if lines} == set(ADAPTERS), found


@pytest.mark.parametrize("path", ADAPTERS)
def test_private_names_were_seen_in_the_version_that_is_locked(path: str) -> None:
    """When another one is locked, look at each name in the file again, then write down the version there."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for lock in LOCKS:
        assert re.findall(r'^SEEN_IN = "(.+)"$', text, re.MULTILINE) == list(pins(lock)[ADAPTERS[path]]), lock
