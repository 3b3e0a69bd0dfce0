"""MLflow's model registry: finds the champion or another registered model, and its file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from harness.errors import InputError, TroubleError
from harness.tracking.store import open_client, set_environment, sqlite_file, tracking_uri, trouble

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"  # the alias
TRAINING = "training"  # tag of models registered by the harness: uid of their training
DATASET, PIXELS = "dataset", "pixels"  # tags: name of the data set, and type of its images

_FILE = "data/model.keras"  # its path in `mlflow.keras`

T = TypeVar("T")


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Attributes:
        name, version: MLflow's name and version.
        is_champion: Whether it has the alias.
        tags: Tags of the version.
        source: URI of its folder.
    """

    name: str
    version: str
    is_champion: bool
    tags: Mapping[str, str]
    source: str

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"

    def describe(self) -> str:
        """A description of the network, if the harness has registered it."""
        if TRAINING not in self.tags:
            return str(self)
        return "{0}: {network} of {study}, trained with seed {seed}".format(self, **self.tags)

    @property
    def file(self) -> Path | str:
        """The `.keras` file: a local path, or a URI."""
        parts = urlsplit(self.source)
        is_local = parts.scheme in ("", "file")
        return Path(url2pathname(parts.path)) / _FILE if is_local else f"{self.source}/{_FILE}"


class Registry:
    """The registered models of a home's MLflow.

    Raises:
        InputError: MLFLOW_TRACKING_URI is not a valid address.
        TroubleError: MLflow is unavailable; every method raises it as well.
    """

    def __init__(self, home: Path) -> None:
        self._uri = tracking_uri(home)
        with self.asked():
            self.client = open_client(home)

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Converts exceptions of MLflow, its database and the network to one line."""
        set_environment()
        try:
            yield
        except (InputError, TroubleError):
            raise
        except Exception as error:
            raise TroubleError(trouble(self._uri, error)) from error

    def find(self, name: str, version: str | None = None, alias: str = CHAMPION) -> Registered | None:
        """A model's version with this number, or without a number the version with this alias; None if missing."""
        with self.asked():
            if version is None:
                found = self._by_alias(name, alias)
            else:
                found = unless_missing(lambda: self.client.get_model_version(name, version))
            return None if found is None else self.describe(found)

    def champions(self) -> list[Registered]:
        """The champions of all models that the harness has registered, the newest first."""
        with self.asked():
            found = [version for name in self._names() if (version := self._by_alias(name, CHAMPION))]
            ours = [version for version in found if TRAINING in version.tags]
            return [self.describe(one) for one in sorted(ours, key=lambda one: -int(one.creation_timestamp))]

    def describe(self, version: ModelVersion) -> Registered:
        aliases = self.client.get_registered_model(version.name).aliases  # a search result has no aliases
        is_champion = str(aliases.get(CHAMPION)) == str(version.version)
        source = str(version.source).rstrip("/")
        return Registered(version.name, str(version.version), is_champion, dict(version.tags), source)

    def fetch(self, model: Registered) -> Path:
        """The model's `.keras` file on this machine; downloads it if it is not local.

        Raises:
            TroubleError: the file is missing or cannot be downloaded.
        """
        from mlflow.artifacts import download_artifacts

        if isinstance(model.file, Path) and not model.file.is_file():
            raise TroubleError(f"{model} is not where MLflow looks for it ({model.file}); was its home moved?")
        with self.asked():
            return Path(download_artifacts(f"{model.source}/{_FILE}", tracking_uri=self._uri))

    def _names(self) -> Iterator[str]:
        token = None
        while True:
            page = self.client.search_registered_models(page_token=token)
            yield from (model.name for model in page)
            token = page.token
            if not token:
                return

    def _by_alias(self, name: str, alias: str) -> ModelVersion | None:
        return unless_missing(lambda: self.client.get_model_version_by_alias(name, alias))


def unless_missing(ask: Callable[[], T]) -> T | None:
    """Returns None if MLflow reports a missing object or an invalid name."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def has_store(home: Path) -> bool:
    """Whether there is an MLflow store: true for a server, else whether the home's file exists."""
    file = sqlite_file(tracking_uri(home))
    return file is None or file.exists()
