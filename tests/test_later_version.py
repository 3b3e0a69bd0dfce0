"""A version with more settings and results goes on with what earlier ones began, and they leave its ledger alone.

The later version is a copy of this one's files, with a field added to each record that the ledger keeps as JSON. It
runs in a process of its own. The ledger is one that a version before this one wrote, with the leaderboard of that time.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from harness.analysis.export.optuna_storage import IDENTITY, export_optuna
from harness.analysis.files import write_csv
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.errors import TroubleError
from harness.ledger.ledger import Ledger
from harness.ledger.schema import SCHEMA_VERSION
from harness.support import own_code
from harness.workflows.study_file import export_study, import_study

FIXTURES = Path(__file__).parent / "fixtures"
STUDY = "cnn-quick"
DIGEST = "0d98b7f62c84ca02b7e7cd1396405e00f2f8ddb51bac205dfae34483cc3017a0"
BEST = [24, 15, 22]  # by that leaderboard

FUTURE = "from __future__ import annotations\n"
SINCE = f"""
from typing import Annotated
from baselines.settings import Since
SINCE = Since({SCHEMA_VERSION + 1})
"""
# By file: a line, and what the later version has after it.
ADDED = {
    "harness/study/settings.py": {
        "    max_memory_mb: Annotated[float, Field(gt=0)] | None = None\n": (
            "    max_depth: Annotated[Positive | None, SINCE] = None\n"
        ),
        "    device_s: Seconds | None = None\n": "    energy_j: Annotated[Seconds | None, SINCE] = None\n",
        "    epochs: Annotated[Positive, Decides.ERRORS]\n": (
            "    augmentation: Annotated[str | None, Decides.ERRORS, SINCE] = None\n"
            "    restarts: Annotated[int, Decides.TRIALS, SINCE] = 0\n"
        ),
    },
    "harness/study/records.py": {
        "    seconds: Seconds\n": "    val_entropy: Annotated[float | None, SINCE] = None\n",
        "    gpu_fraction: float = 0.0\n": '    driver: Annotated[str, SINCE] = ""\n',
        "    final_val_images: int | None = None\n": "    gpu_clock_mhz: Annotated[float | None, SINCE] = None\n",
        "    evaluate: float = 0.0\n": "    load: Annotated[float, SINCE] = 0.0\n",
    },
    "baselines/recipe.py": {
        "    batch_size: Annotated[int, Whole(1, 60_000)] = 128  # and at most the study's training images\n": (
            "    gradient_noise: Annotated[float, Real(0, 1), SINCE] = 0.0\n"
        )
    },
}

LATER = """
import dataclasses, json, sys
from contextlib import closing
from pathlib import Path

from baselines.recipe import RECIPE
from harness.analysis.export.optuna_storage import export_optuna
from harness.analysis.files import write_csv
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.audit.recount import recount
from harness.audit.rows import open_read_only, read_study
from harness.ledger.ledger import Ledger
from harness.planning.status import status
from harness.study.settings import Budget
from harness.sweep.runner import open_study
from harness.workflows.report import write_report
from harness.workflows.study_file import export_study, import_study
from harness.workflows.verdict import Request, plan_verdict

home, study, storage = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with closing(Ledger(home / "ledger.db")) as ledger:
    begun = ledger.study(study).spec
    # As a sweep file is read now: with each setting of the recipe there is.
    now = begun.changed(recipe={**dataclasses.asdict(RECIPE), **begun.recipe}, budget=Budget(trials=40))
    open_study(ledger, now, fresh=False)
    write_csv(leaderboard(ledger, [study]), home / "later.csv")
    exported = [export_optuna(ledger, study, url) for url in (storage, f"sqlite:///{home}/new.db")]
    verdict, origin = plan_verdict(ledger, study, Request(), fresh=False)
    ledger.create_study(verdict, origin)
    found = {
        "new": [begun.augmentation, begun.restarts, now.recipe["gradient_noise"], now.constraints.max_depth],
        "digests": [begun.digest(), now.digest()],
        "another": begun.changed(augmentation="shift").differing_keys(begun),
        "left": status(ledger, study).trials.left,
        "exported": exported,
        "confirms": plan_verdict(ledger, study, Request(), fresh=False)[0].confirms,
    }
    write_report(home, study)
    export_study(ledger, study, home / "later.study.gz")
    found["imported"] = import_study(home / "other", str(home / "now.study.gz")).num_trials
with closing(open_read_only(home / "ledger.db")) as db:
    rows = read_study(db, study)
    found["audit"] = [str(one) for one in [*rows.unreadable, *recount(rows)]]
print(json.dumps(found))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a ledger of schema 2: a study of 31 trials that has ended."""
    folder = tmp_path / "home"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "ledger.db")) as db:
        db.executescript((FIXTURES / "ledger-v2.sql").read_text())
    return folder


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The folder of the later version's code."""
    folder = tmp_path / "later"
    for package in (own_code.HARNESS, own_code.BASELINES):
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, added in ADDED.items():
        text = (folder / name).read_text()
        for line, more in added.items():
            assert text.count(line) == 1, f"{name}: {line}"
            text = text.replace(line, line + more)
        text = text.replace(FUTURE, FUTURE + SINCE, 1)
        (folder / name).write_text(text)
    return folder


def run_later(folder: Path, *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LATER, *arguments],
        env={**os.environ, "PYTHONPATH": str(folder)}, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def assert_as_it_was(path: Path, *besides: str) -> None:
    """The leaderboard of that time: columns were added since, and configurations are ranked instead of trainings.

    The last error of a pruned trial has a column of its own, and numbers have six digits.
    """
    before, now = (pd.read_csv(file) for file in (FIXTURES / "leaderboard-v2.csv", path))
    is_pruned = before["outcome"] == "pruned"
    last_pct = now.set_index("trial")["val_error_rate_pct"]
    assert before["error_rate_pct"][is_pruned].tolist() == pytest.approx(
        [last_pct[trial] for trial in before["trial"][is_pruned]], rel=1e-5
    )
    before.loc[is_pruned, ["error_rate_pct", "error_rate_ci_low_pct", "error_rate_ci_high_pct"]] = math.nan
    by_trial = [
        frame.set_index("trial").sort_index()[before.columns.drop(["rank", "trial", *besides])]
        for frame in (now, before)
    ]
    pd.testing.assert_frame_equal(*by_trial, rtol=1e-5, check_dtype=False)
    assert now["rank"].isna().sum() == before["rank"].isna().sum()
    searched = [frame["trial"][frame["role"] == "trial"].tolist() for frame in (now, before)]
    assert searched[0] == searched[1]


def test_a_study_of_an_earlier_version_has_the_leaderboard_of_that_time(home: Path) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        write_csv(leaderboard(ledger, [STUDY]), home / "now.csv")
    assert_as_it_was(home / "now.csv")


def test_a_study_file_of_an_earlier_version_has_the_leaderboard_of_that_time(tmp_path: Path) -> None:
    """The same study, as `harness export --study` wrote it when its ledger had schema 4; unpacked, to be read."""
    packed = tmp_path / "x.study.gz"
    packed.write_bytes(gzip.compress((FIXTURES / f"{STUDY}.study.jsonl").read_bytes()))
    import_study(tmp_path, str(packed))
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        assert ledger.study(STUDY).spec.digest() == DIGEST
        write_csv(leaderboard(ledger, [STUDY]), tmp_path / "now.csv")
    assert_as_it_was(tmp_path / "now.csv", "run_id")


def test_a_version_with_more_settings_goes_on_with_a_study(home: Path, later: Path) -> None:
    storage = f"sqlite:///{home}/optuna.db"
    with closing(Ledger(home / "ledger.db")) as ledger:
        assert export_optuna(ledger, STUDY, storage) == 31
        export_study(ledger, STUDY, home / "now.study.gz")
    with closing(sqlite3.connect(home / "optuna.db")) as db:
        known = db.execute("SELECT value_json FROM study_user_attributes WHERE key = ?", (IDENTITY,)).fetchall()
    assert known == [(json.dumps(f"{DIGEST} 1795945368.296297"),)], "as earlier versions wrote it"
    assert run_later(later, str(home), STUDY, storage) == {
        "new": [None, 0, 0.0, None],
        "digests": [DIGEST, DIGEST],
        "another": ["augmentation"],
        "left": 16,
        "exported": [0, 31],
        "confirms": BEST,
        "imported": {STUDY: 31},
        "audit": [],
    }
    assert_as_it_was(home / "later.csv")
    assert "</html>" in (home / "reports" / f"{STUDY}.html").read_text()
    with pytest.raises(
        TroubleError, match=f"has schema {SCHEMA_VERSION + 1}, this version knows up to {SCHEMA_VERSION}; install"
    ):
        Ledger(home / "ledger.db")
    newer = f"its schema is {SCHEMA_VERSION + 1}, this harness knows up to {SCHEMA_VERSION}; install a newer one$"
    with pytest.raises(TroubleError, match=newer):
        import_study(home / "other", str(home / "later.study.gz"))
