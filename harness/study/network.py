"""Networks of a user's own: the description that a study keeps, and the code, which is run only where users ran it.

A study records the content's hash and the settings of the file, so that it can be read without running the file. Code
comes from a sweep file that the user named, or from the home, which keeps each file that was run there under the hash
of its content. A study of someone else's brings no code, and a hash leads only to content that the user has run before.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

import baselines
from baselines.recipe import Recipe
from baselines.settings import Allowed, OneOf, Real, Whole, declared
from harness.errors import InputError, TroubleError
from harness.study.data import check_stem, named
from harness.study.records import Scalar
from harness.support.atomic_files import replaced
from harness.support.given_files import open_given

FOLDER = "networks"  # of a home
MAX_BYTES = 1_000_000


class OwnNetwork(BaseModel):
    """A network from a user's file: its settings with their documented and allowed values.

    The name ends in the hash of the file's content: an edited file is another network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    stem: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    documented: dict[str, Scalar]
    allowed: dict[str, Whole | Real | OneOf]

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        check_stem(self.stem)
        if self.documented.keys() != self.allowed.keys():
            raise ValueError(f"settings are {', '.join(self.documented)}; allowed: {', '.join(self.allowed)}")
        return self

    @property
    def name(self) -> str:
        return named(self.stem, self.sha256)


@dataclass(frozen=True)
class Source:
    """The content of a network's file, and the file's name for messages."""

    file: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def imports(self) -> set[str]:
        """The packages and modules that import statements name, also those within functions."""
        found: set[str] = set()
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
        return found


class _Code:
    """The code that this process may run, by the hash of its content."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._modules: dict[str, baselines.Baseline] = {}
        self._failed: set[str] = set()
        self._folders: list[Path] = []

    def look_in(self, folder: Path) -> None:
        if folder not in self._folders:
            self._folders.append(folder)

    def add(self, source: Source) -> None:
        self._sources.setdefault(source.sha256, source)

    def source(self, sha256: str) -> Source | None:
        if sha256 not in self._sources:
            for folder in self._folders:
                file = folder / f"{sha256}.py"
                if file.is_file() and (source := _read(file)).sha256 == sha256:
                    self.add(source)
        return self._sources.get(sha256)

    def module(self, sha256: str) -> baselines.Baseline | None:
        """The network's module, run at the first call.

        Raises:
            ValueError: one line with the file and, if it fails there, its line.
        """
        source = self.source(sha256)
        if sha256 not in self._modules and source is not None:
            try:
                self._modules[sha256] = _run(source)
            except ValueError:
                self._failed.add(sha256)
                raise
        return self._modules.get(sha256)

    def runs(self, sha256: str) -> bool:
        """Whether there is a module; a file that failed is not run again for this."""
        if sha256 not in self._failed:
            with suppress(ValueError):
                self.module(sha256)
        return sha256 in self._modules


_CODE = _Code()


def look_in(home: Path) -> None:
    """Lets this process run the files that were run in a home before."""
    _CODE.look_in(home / FOLDER)


def permit(source: Source | None) -> None:
    """Lets this process run a file, since the user named it or the coordinator sent it; None: a built-in network."""
    if source is not None:
        _CODE.add(source)


def source_of(network: OwnNetwork | None) -> Source | None:
    """The content of a network's file, for other processes; None for a built-in network.

    Raises:
        TroubleError: it was never run here.
    """
    return None if network is None else required_source(network)


def keep(network: OwnNetwork, home: Path) -> None:
    """Keeps a network's file in a home, so that later commands know the network.

    Raises:
        TroubleError: its file has not been read by this process, or cannot be written.
    """
    file, source = home / FOLDER / f"{network.sha256}.py", required_source(network)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced(file) as unfinished:
            unfinished.write_bytes(source.text.encode())


def required_source(network: OwnNetwork) -> Source:
    """The content of a network's file.

    Raises:
        TroubleError: it was never run here.
    """
    source = _CODE.source(network.sha256)
    if source is None:
        raise TroubleError(
            f"the file of network {network.name} was never run in this home, and a study is no program; run the sweep"
            f" file that names {network.stem}.py with this content (SHA-256 {network.sha256[:12]}...)"
        )
    return source


def has_code(network: OwnNetwork) -> bool:
    """Whether the network's file was run in this home, and runs now: a package that it imports may be gone."""
    return _CODE.runs(network.sha256)


def required_code(network: OwnNetwork) -> baselines.Baseline:
    """The network's code.

    Raises:
        TroubleError: it was never run here, or fails now.
    """
    required_source(network)
    try:
        found = _CODE.module(network.sha256)
    except ValueError as error:
        raise TroubleError(str(error)) from error
    assert found is not None  # noqa: S101 - for the type checker
    return found


def read_network(path: Path) -> OwnNetwork:
    """Runs a network's file, which the user has named, and checks its interface.

    Raises:
        InputError: one line with the file, and what is wrong.
    """
    try:
        check_stem(path.stem)
        source = _read(path)
        permit(source)
        module = _CODE.module(source.sha256)
    except OSError as error:
        raise InputError(f"baseline is '{path}': {error.strerror or error}; allowed: a Python file") from None
    except UnicodeDecodeError:
        raise InputError(f"baseline is '{path}', which is no text in UTF-8; allowed: a Python file") from None
    except ValueError as error:
        named_it = str(path) in str(error)
        raise InputError(str(error) if named_it else f"{path}: {error}") from None
    assert module is not None  # noqa: S101 - for the type checker
    return _described(path.stem, source.sha256, module)


def _described(stem: str, sha256: str, module: baselines.Baseline) -> OwnNetwork:
    allowed = declared(type(module.DOCUMENTED))
    documented = {name: getattr(module.DOCUMENTED, name) for name in allowed}
    plain = {
        "stem": stem,
        "sha256": sha256,
        "documented": {
            name: float(value) if isinstance(allowed[name], Real) else value for name, value in documented.items()
        },
        "allowed": {name: vars(one) for name, one in allowed.items()},
    }
    # Through JSON, so that it equals what the ledger reads back.
    return OwnNetwork.model_validate_json(json.dumps(plain))


def _read(path: Path) -> Source:
    with open_given(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is too large; allowed: at most {MAX_BYTES} bytes")
    return Source(str(path), content.decode())


def _run(source: Source) -> baselines.Baseline:
    """Runs a file as a module, and checks it.

    Raises:
        ValueError: one line with the file.
    """
    module = ModuleType(f"own_network_{source.sha256}")
    module.__file__ = source.file
    sys.modules[module.__name__] = module  # dataclasses look up the types of their fields there
    try:
        exec(compile(source.text, source.file, "exec", dont_inherit=True), vars(module))  # noqa: S102 - see above
        return baselines.check(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ValueError(where(source.file, error)) from error


def where(file: str, error: BaseException) -> str:
    """One line with the file and the line in it."""
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}, line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not lines:
        return f"{file}: {text}"
    return f"{file}, line {lines[-1]}: {': '.join(filter(None, (type(error).__name__, text)))}"


def documented_and_allowed(baseline: str, own: OwnNetwork | None) -> tuple[Mapping[str, Any], Mapping[str, Allowed]]:
    """The documented values of a network, and the allowed ones with those of the recipe.

    Raises:
        ValueError: `baseline` is neither a built-in network nor that of `own`.
    """
    if own is not None and own.name == baseline:
        return own.documented, {**own.allowed, **declared(Recipe)}
    if own is None and baseline in baselines.NAMES:
        documented = baselines.load(baseline).DOCUMENTED
        return vars(documented), baselines.allowed(baseline)
    known = ", ".join(map(repr, baselines.NAMES))
    raise ValueError(f"baseline is {baseline!r}; allowed: {known}, or the path of a .py file")
