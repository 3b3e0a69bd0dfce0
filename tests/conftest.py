"""What several tests share, made once: the small data set, an MLflow store, a home with studies in it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from audited_study import fill
from open_databases import left_open, num_opened

from harness.execution.data import cache
from harness.ledger.ledger import Ledger
from harness.study.settings import Flags
from harness.study.spec import SweepSpec
from harness.study.sweep_file import load_sweep
from harness.support.home import sweeps_folder
from harness.tracking import store


@pytest.fixture(scope="session", autouse=True)
def wider_fixtures_close_their_databases() -> Iterator[None]:
    yield
    assert left_open() == []


@pytest.fixture(autouse=True)
def databases_are_closed(wider_fixtures_close_their_databases: None) -> Iterator[None]:
    """Refuses a test, or what it tests, that leaves an SQLite database open."""
    before = num_opened()
    yield
    assert left_open(before) == []


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits data set in a cache of the test run's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", str(tmp_path_factory.mktemp("data")))
        return cache.prepare("digits", lambda line: None)


@pytest.fixture(scope="session")
def environment_of(digits_folder: Path) -> Callable[[Path], dict[str, str]]:
    """The variables of a command whose home is this folder, and whose data are the digits."""

    def environment_of(home: Path) -> dict[str, str]:
        changed = {"HARNESS_HOME": str(home), "HARNESS_DATA": str(digits_folder.parent), "NO_COLOR": "1"}
        return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | changed

    return environment_of


@pytest.fixture(scope="session")
def smoke() -> SweepSpec:
    """The shipped sweep on digits."""
    return load_sweep(sweeps_folder() / "smoke.toml", Flags(precision="float32", study="smoke-quick"), "quick")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store as `make_store` makes it, to be copied, since that takes seconds."""
    store.set_environment()
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    store.make_store(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def sound_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home with two studies in which all is as it should be, to be copied."""
    home = tmp_path_factory.mktemp("sound") / "Höfe und Häuser"
    home.mkdir()
    shutil.copy(empty_store, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        fill(home)
    return home


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db")) as opened:
        yield opened
