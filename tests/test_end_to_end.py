"""The command as people run it: real workers, real search, real MLflow, on digits."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from harness.ledger.ledger import Ledger
from harness.study.records import Outcome, Role
from harness.support.home import sweeps_folder

Harness = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose name needs quoting."""
    return tmp_path_factory.mktemp("a home with spaces and ümläuts")


@pytest.fixture(scope="module")
def environment(home: Path, environment_of: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    return environment_of(home)


@pytest.fixture(scope="module")
def harness(environment: dict[str, str]) -> Harness:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness.cli", *arguments],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def finished(harness: Harness) -> subprocess.CompletedProcess[str]:
    """A study of two baseline seeds and four trials."""
    return harness("sweep", "smoke", "--trials", "4")


def runs_of(home: Path, study: str) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    return client.search_runs([experiment.experiment_id], "tags.role != 'sweep'", max_results=1000)


def test_a_sweep_ends_with_everything_in_place(finished: subprocess.CompletedProcess[str], home: Path) -> None:
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert "\x1b" not in finished.stdout
    with closing(Ledger(home / "ledger.db")) as ledger:
        records = ledger.history("smoke-quick")
        assert ledger.num_test_reads("smoke-quick") == 0
    assert [record.trial.role for record in records] == [Role.BASELINE] * 2 + [Role.TRIAL] * 4
    assert dict(records[0].trial.params) == {"units_1": 512, "units_2": 512}
    assert all(record.result for record in records)


def test_each_trial_has_one_run_and_one_row(finished: subprocess.CompletedProcess[str], home: Path) -> None:
    with (home / "leaderboards" / "smoke-quick.csv").open() as file:
        rows = {row["run_id"]: row for row in csv.DictReader(file)}
    runs = {run.info.run_id: run for run in runs_of(home, "smoke-quick")}
    assert len(rows) == len(runs) == 6
    assert rows.keys() == runs.keys()
    for run_id, run in runs.items():
        assert run.info.status == "FINISHED"
        for metric in ("error_rate_pct", "gpu_time_s", "device_time_s"):
            assert rows[run_id][metric] == f"{run.data.metrics[metric]:.6g}"
        for name in ("units_1", "units_2"):
            assert rows[run_id][name] == run.data.params[name]


@pytest.fixture(scope="module")
def rungs(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Hyperband study with a whole bracket: nine trials of one epoch, three of three, one of nine."""
    path = tmp_path_factory.mktemp("sweep") / "rungs.toml"
    text = (sweeps_folder() / "smoke.toml").read_text()
    for old, new in {
        "epochs = 3": "epochs = 9",
        "train_images = 800": "train_images = 96",
        "seeds = 2": "seeds = 1",
    }.items():
        text = text.replace(old, new)
    path.write_text(
        text.replace('"optuna"', '"keras-tuner"').replace('"tpe"', '"hyperband"').replace('"percentile"', '"none"')
    )
    done = harness("sweep", str(path), "--trials", "13", "--workers", "1")
    assert (done.returncode, done.stderr) == (0, "")
    for command in (["sync"], ["leaderboard", "rungs-quick"]):  # on a busy machine the sweep does not wait for MLflow
        assert harness(*command).returncode == 0
    return "rungs-quick"


def test_a_hyperband_trials_device_time_is_that_of_all_its_rungs_wherever_it_is_shown(
    rungs: str, harness: Harness, home: Path, tmp_path: Path
) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        records = {record.trial.uid: record for record in ledger.history(rungs)}
        usage = ledger.usage(rungs)
    own_s = {uid: sum(epoch.seconds.train for epoch in record.result.curve) for uid, record in records.items()}
    paid_s: dict[str, float] = {}
    for uid, record in records.items():
        paid_s[uid] = own_s[uid] + paid_s.get(record.trial.continues, 0.0)
    last = next(uid for uid, record in records.items() if record.trial.continues and record.trial.epochs == 9)
    assert len(records[last].before) == 2
    assert paid_s[last] > own_s[last]
    with (home / "leaderboards" / f"{rungs}.csv").open() as file:
        board = {row["trial"]: float(row["device_time_s"]) for row in csv.DictReader(file)}
    metrics = {run.data.tags["trial_uid"]: run.data.metrics for run in runs_of(home, rungs)}
    assert harness("export", rungs, "--json", str(tmp_path / "all.json")).returncode == 0
    exported = {row["uid"]: row for row in json.loads((tmp_path / "all.json").read_text())}
    for uid, record in records.items():
        shown_s = (
            record.device_time_s,
            board[str(record.trial.number)],
            metrics[uid]["device_time_s"],
            exported[uid]["device_time_s"],
        )
        assert shown_s == pytest.approx([paid_s[uid]] * 4, rel=1e-5)
        own = (metrics[uid]["train_time_s"], exported[uid]["train_time_s"])
        assert own == pytest.approx([own_s[uid]] * 2, abs=1e-6)
    best = json.loads(harness("status", rungs, "--json").stdout)[0]["best"]
    assert best["device_time_s"] == pytest.approx(board[str(best["trial"])], rel=1e-5)
    # The study pays each rung once.
    assert usage.device_s == pytest.approx(sum(row["reserved_time_s"] for row in exported.values()))
    assert usage.device_s >= sum(own_s.values())
    audit = harness("doctor", "--audit", rungs)
    assert (audit.returncode, audit.stderr) == (0, ""), audit.stdout


def test_a_trial_is_trained_again_and_comes_out_the_same(
    finished: subprocess.CompletedProcess[str], harness: Harness, home: Path
) -> None:
    with closing(Ledger(home / "ledger.db")) as ledger:
        before = ledger.usage("smoke-quick")
    again = harness("reproduce", "smoke", "2")
    assert (again.returncode, again.stderr) == (0, "")
    assert "IDENTICAL: all 16 numbers of 3 epochs and of the trained model are as recorded" in again.stdout
    assert (home / "reproductions" / "smoke-quick-2.json").exists()
    with closing(Ledger(home / "ledger.db")) as ledger:
        assert ledger.usage("smoke-quick") == before
    assert len(runs_of(home, "smoke-quick")) == 6


def test_the_same_command_says_that_the_budget_is_used(
    finished: subprocess.CompletedProcess[str], harness: Harness, home: Path
) -> None:
    again = harness("sweep", "smoke", "--trials", "4")
    assert again.returncode == 0
    assert "nothing to run, since all searched trials of the budget are done; --trials" in again.stdout
    assert "--trials 14 runs 10 more" in again.stdout
    assert "--fresh" in again.stdout
    assert len(runs_of(home, "smoke-quick")) == 6


def test_more_trials_go_on(finished: subprocess.CompletedProcess[str], harness: Harness, home: Path) -> None:
    assert harness("sweep", "smoke", "--trials", "5").returncode == 0
    with closing(Ledger(home / "ledger.db")) as ledger:
        assert [record.trial.number for record in ledger.history("smoke-quick")] == list(range(7))


def test_a_changed_file_is_refused_with_the_keys_and_the_ways_on(harness: Harness, home: Path, tmp_path: Path) -> None:
    text = (sweeps_folder() / "smoke.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert harness("sweep", str(path), "--trials", "1").returncode == 0
    path.write_text(text.replace("high = 512", "high = 1024").replace("epochs = 3", "epochs = 2"))
    refused = harness("sweep", str(path), "--trials", "1")
    assert refused.returncode == 2
    assert "mine-quick was started with other settings (epochs, space)" in refused.stderr
    assert "--as NAME" in refused.stderr
    assert refused.stderr.count("\n") == 1
    fresh = harness("sweep", str(path), "--trials", "1", "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    with closing(Ledger(home / "ledger.db")) as ledger:
        kept = [name for name in ledger.study_names() if name.startswith("mine-quick.")]
        assert len(kept) == 1
        assert len(ledger.history(kept[0])) == len(ledger.history("mine-quick")) == 3
    assert len(runs_of(home, "mine-quick")) == len(runs_of(home, kept[0])) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sweep", "nope"), "sweep is 'nope', which is not there; allowed: a TOML file or one of cnn"),
        (("sweep", "smoke", "--trials", "0"), "trials is 0; allowed: greater than or equal to 1"),
        (("sweep", "smoke", "--as", "../x"), "study is '../x'; allowed: 1 to 64 letters"),
        (("sweep", "smoke", "--engine", "hyperopt"), "engine is 'hyperopt'; allowed: 'optuna' or 'keras-tuner'"),
        (("sweep", "smoke", "--workers", "0"), "--workers is 0; allowed: 1 to 10000"),
        (("leaderboard", "nope"), "study is 'nope'; allowed:"),
        (("export", "nope", "--csv", "x.csv"), "study is 'nope'; allowed:"),
        (("verdict", "nope"), "study is 'nope'; allowed:"),
        (("reproduce", "nope", "0"), "study is 'nope'; allowed:"),
        (("reproduce", "nope", "first"), "argument TRIAL: it is 'first'; allowed: a whole number"),
        (("verdict", "smoke", "--seeds", "4"), "--seeds is 4; allowed: 3, 5, 8, 12, 20"),
        (("verdict", "smoke", "--budget", "soon"), "--budget is 'soon'; allowed:"),
        (
            ("sweep", "smoke", "--as", "x.verdict"),
            "study is 'x.verdict'; allowed: a name that does not end in .verdict",
        ),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    harness: Harness, home: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(home.iterdir())
    refused = harness(*arguments)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""
    assert [path for path in sorted(home.iterdir()) if path not in before and path.suffix not in ("", ".db")] == []


def started(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """A sweep that has begun its first trial."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "harness.cli", "sweep", "smoke", "--no-reuse", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while "started" not in (line := process.stdout.readline()):
        assert line, "the sweep ended before its first trial"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_an_interrupted_study_goes_on(
    environment: dict[str, str], harness: Harness, home: Path, number: signal.Signals
) -> None:
    study = f"stopped-{number.name}"
    with started(environment, "--as", study, "--trials", "100") as process:
        workers = psutil.Process(process.pid).children()
        for worker in workers:  # in its first epoch, and so not at a trial's end when the signal comes
            worker.suspend()
        refused = harness("sweep", "smoke", "--as", study)
        process.send_signal(number)
        for worker in workers:
            worker.resume()
        output = process.stdout.read()
    assert (refused.returncode, f"in use by process {process.pid} since" in refused.stderr) == (1, True)
    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL), output
    resumed = harness("sweep", "smoke", "--as", study, "--trials", "2", "--no-reuse")
    assert resumed.returncode == 0, resumed.stderr
    with closing(Ledger(home / "ledger.db")) as ledger:
        records = ledger.history(study)
        assert [record.trial.number for record in records] == list(range(max(4, len(records))))
        assert all(record.result.outcome in (Outcome.COMPLETED, Outcome.PRUNED) for record in records)
        attempts = [attempt for record in records for attempt in ledger.attempts(record.trial.uid)]
    assert Outcome.CANCELLED in {attempt.outcome for attempt in attempts}
    runs = runs_of(home, study)
    assert sorted(run.data.tags["trial_uid"] for run in runs) == sorted(record.trial.uid for record in records)
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_baselines_are_read_against_the_test_images_once(harness: Harness, home: Path) -> None:
    done = harness("baseline", "fc", "--dataset", "digits", "--seeds", "2", "--profile", "quick")
    assert done.returncode == 0, done.stderr
    with closing(Ledger(home / "ledger.db")) as ledger:
        (study,) = (name for name in ledger.study_names() if name.startswith("baseline-fc"))
        assert ledger.num_test_reads(study) == 2
    assert all("test_error_rate_pct" in run.data.metrics for run in runs_of(home, study))


def test_help_is_quick_to_load() -> None:
    check = (
        "import sys; from harness.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'optuna', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


@pytest.mark.slow
def test_a_verdict_is_interrupted_goes_on_and_reads_the_test_images_once_per_model(
    finished: subprocess.CompletedProcess[str], environment: dict[str, str], harness: Harness, home: Path
) -> None:
    command = ("verdict", "smoke", "--top", "1", "--seeds", "3")
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "harness.cli", *command],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        while "of 300 test images" not in (line := process.stdout.readline()):
            assert line, "the verdict ended before its first training"
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
    assert process.returncode == 130, output
    assert "NO VERDICT YET" in output
    done = harness(*command)
    assert done.returncode == 0, done.stderr
    answer = next(line for line in done.stdout.splitlines() if line.startswith(("BETTER", "NOT DIST", "WORSE")))
    written = json.loads((home / "verdicts" / "smoke-quick.json").read_text())
    assert written["sentences"][0] == answer
    assert len(written["seeds"]) == 3
    with closing(Ledger(home / "ledger.db")) as ledger:
        records = ledger.history("smoke-quick.verdict")
        assert [record.trial.number for record in records] == list(range(6))
        assert (ledger.num_test_reads("smoke-quick.verdict"), ledger.num_test_reads("smoke-quick")) == (6, 0)
    runs = runs_of(home, "smoke-quick.verdict")
    assert len(runs) == 6
    assert all(run.data.metrics["test_error_rate_pct"] < 30.0 for run in runs)
    again = harness(*command)
    assert answer in again.stdout
    assert "started" not in again.stdout
    assert harness("leaderboard", "smoke-quick.verdict").returncode == 0
    audited = harness("doctor", "--audit", "smoke-quick.verdict")
    assert audited.stdout.endswith("smoke-quick.verdict: no differences\n"), audited.stdout
