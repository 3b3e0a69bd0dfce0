"""The same sweep on every backend that is installed, and what may be compared between two of them."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from filled_ledger import CPU, FilledLedger, make_spec
from PIL import Image
from test_execution import Driver

from harness import cli
from harness.analysis.comparison.comparison import compare
from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.analysis.leaderboard.table import show_leaderboard
from harness.errors import InputError
from harness.execution.base import Job, Place
from harness.execution.data import cache
from harness.execution.local import LocalExecutor
from harness.execution.machine import backends, devices
from harness.execution.training import models
from harness.ledger.ledger import Ledger
from harness.planning.plan import make_costs
from harness.planning.status import status
from harness.study.records import Outcome, Role, Trial, TrialResult
from harness.study.settings import Kind
from harness.study.spec import SweepSpec
from harness.sweep.display import PlainDisplay
from harness.sweep.runner import run_study
from harness.workflows.doctor import Level, examine

EACH = [
    pytest.param(name, marks=pytest.mark.skipif(name not in backends.installed(), reason=f"{name} is not installed"))
    for name in backends.BACKENDS
]
PLACE = Place("worker-0", CPU.name, CPU.threads, CPU.sharing)
JAX = dataclasses.replace(CPU, backend="jax 0.10.2", engine="compiled+xla")
PLAIN = Trial("plain", 0, {"units_1": 256, "units_2": 64}, seed=1, epochs=3)
# Layers with a state of their own: moving averages, and what chance comes next.
RANDOM = dataclasses.replace(
    PLAIN, uid="random", params={**PLAIN.params, "dropout": 0.3, "batch_norm": True, "augment_shift": 0.1}
)


@pytest.fixture(scope="module", params=EACH)
def trained(
    request: pytest.FixtureRequest, smoke: SweepSpec, digits_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, TrialResult], Path]]:
    """A backend, what one worker on it came to, and the weights of the plain trial."""
    folder = tmp_path_factory.mktemp(request.param)
    weights, checkpoint = folder / "weights.npz", folder / "checkpoint.npz"
    jobs = {
        "plain": Job(PLAIN, save_to=weights),
        "whole": Job(RANDOM),
        "start": Job(dataclasses.replace(RANDOM, epochs=1), save_to=checkpoint),
        "rest": Job(RANDOM, load_from=checkpoint),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", request.param)
        with closing(LocalExecutor(smoke, [PLACE], digits_folder, folder / "logs")) as executor:
            driver = Driver(executor)
            yield request.param, {name: driver.finish(driver.start(job)) for name, job in jobs.items()}, weights


Trained = tuple[str, dict[str, TrialResult], Path]


def test_a_trial_learns_and_says_on_which_backend(trained: Trained) -> None:
    name, results, _ = trained
    result = results["plain"]
    assert (result.outcome, result.error) == (Outcome.COMPLETED, None)
    assert result.device is not None
    assert result.device.backend == f"{name} {backends.installed()[name]}"
    assert f" / {result.device.backend} / float32 / {result.device.engine} / " in result.device.timing_class
    assert [report.epoch for report in result.curve] == [1, 2, 3]
    assert result.num_params == 256 * 785 + 64 * 257 + 10 * 65
    assert 2.0 < result.error_rate_pct < 8.0
    assert min(result.seconds.build, result.seconds.compile, result.seconds.train, result.seconds.evaluate) > 0.0


def test_a_continued_trial_is_the_uninterrupted_one(trained: Trained) -> None:
    """Which also says that a seed decides everything."""
    _, results, _ = trained
    assert results["whole"].outcome is Outcome.COMPLETED
    parts, whole = results["start"].curve + results["rest"].curve, results["whole"].curve
    assert [(one.epoch, one.train_loss, one.train_error_rate_pct) for one in parts] == [
        (one.epoch, one.train_loss, one.train_error_rate_pct) for one in whole
    ]
    # The last epoch of the first part is judged on more images.
    assert [one.val_error_rate_pct for one in parts[1:]] == [one.val_error_rate_pct for one in whole[1:]]


def test_weights_of_any_backend_make_the_same_network_here(
    trained: Trained, smoke: SweepSpec, digits_folder: Path
) -> None:
    _, results, weights = trained
    network = models.rebuild(smoke, PLAIN.params, weights)
    images, labels = cache.load("digits", "validation", digits_folder)
    answers = models.probabilities(network, images.astype(np.float32) / 255.0).argmax(axis=1)
    others = set(np.flatnonzero(answers != labels)) ^ set(results["plain"].wrong_images)
    assert len(others) <= 1, "an image on the edge between two classes may fall either way"


@pytest.mark.skipif("jax" not in backends.installed(), reason="jax is not installed")
def test_a_worker_on_jax_keeps_to_its_threads() -> None:
    threads = "[open(f'/proc/self/task/{task}/comm').read() for task in os.listdir('/proc/self/task')]"
    code = f"import os, jax; jax.numpy.ones(3); print({threads}.count('tf_XLAEigen\\n'))"
    counts = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **devices.worker_environment(dataclasses.replace(PLACE, threads=number))},
            capture_output=True, text=True, check=True,
        ).stdout
        for number in (1, 3)
    ]  # fmt: skip
    assert counts == ["1\n", "3\n"]


STEPS_AND_EPOCHS = """
import numpy as np, keras
from test_engines import CONFIGS, BATCH, STEPS, ORDER, PICTURES, LABELS, model, values
from harness.execution.training import engine_base, engines
from harness.execution.training.jax_engine import JaxSteps

number = STEPS * BATCH
held, order = engine_base.hold(PICTURES[:number], LABELS[:number]), ORDER % number
for config, whole_epochs in ((CONFIGS[0], False), (CONFIGS[0], True), (CONFIGS[1], False)):
    ours, theirs = model(*config), model(*config)
    before = values(ours)
    engine = JaxSteps(ours, held, held, BATCH, whole_epochs=whole_epochs)
    for one, other in zip(before, values(ours), strict=True):
        np.testing.assert_array_equal(one, other)
    by_steps, counted = model(*config), 0
    steps = JaxSteps(by_steps, held, held, BATCH, whole_epochs=False)
    for positions in order:
        predicted = by_steps(PICTURES[positions][..., np.newaxis] / np.float32(255), training=True)
        counted += int((np.asarray(predicted).argmax(-1) != LABELS[positions]).sum())
        steps.train(positions[np.newaxis])
    by_keras = engines.KerasFit(theirs, engine_base.Images(PICTURES[:number], LABELS[:number], number), BATCH)
    for _ in range(2):
        np.testing.assert_allclose(engine.train(order), by_keras.train(order), rtol=1e-4)
        assert counted is None or engine.num_wrong == counted  # of the first epoch
        counted = None
    for one, other in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02, atol=2e-4)
    assert int(ours.optimizer.iterations) == 2 * STEPS
    found = engine.predict(held, 200)
    expected = ours.predict(PICTURES[:200, ..., np.newaxis] / np.float32(255), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
print("as Keras does it")
"""


@pytest.mark.slow
@pytest.mark.skipif("jax" not in backends.installed(), reason="jax is not installed")
def test_steps_and_epochs_on_jax_are_those_of_keras() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", STEPS_AND_EPOCHS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "as Keras does it\n", done.stderr


# Which one


def test_the_variable_comes_before_the_settings_of_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "installed", lambda: dict.fromkeys(backends.BACKENDS, "1.0"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert backends.backend() == "tensorflow"
    for settings in ("[]", "{", "{}"):
        (tmp_path / "keras.json").write_text(settings)
        assert backends.backend() == "tensorflow"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    assert backends.backend() == devices.worker_environment(PLACE)["KERAS_BACKEND"] == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backends.backend() == devices.worker_environment(PLACE)["KERAS_BACKEND"] == "torch"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("theano", "KERAS_BACKEND is 'theano'; allowed: tensorflow, jax, torch (installed: tensorflow)"),
        ("jax", "KERAS_BACKEND is jax, which is not installed: pip install 'harness[jax]' installs it; allowed now:"),
        ("torch", "KERAS_BACKEND is torch, which is not installed: pip install torch installs it; allowed now:"),
    ],
)
def test_a_backend_that_cannot_be_had_is_one_line_before_anything_is_made(
    name: str,
    words: str,
    tmp_path: Path,
    digits_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(backends, "installed", lambda: {"tensorflow": "2.21.0"})
    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    assert cli.main(["sweep", "smoke"]) == cli.EXIT_INPUT
    said = capsys.readouterr().err
    assert said.startswith(f"harness: {words}")
    assert said.count("\n") == 1
    assert not (tmp_path / "home").exists()
    findings = {finding.subject: finding for finding in examine(tmp_path)}
    assert (findings["backend"].level, findings["backend"].text) == (Level.PROBLEM, said[len("harness: ") : -1])


def test_doctor_names_the_backend_in_use_and_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "installed", lambda: {"tensorflow": "2.21.0", "jax": "0.10.2"})
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    finding = next(finding for finding in examine(tmp_path) if finding.subject == "backend")
    assert finding.text == "jax 0.10.2; installed too, for KERAS_BACKEND: tensorflow 2.21.0"


# One study, one backend


@pytest.mark.parametrize("kind", [Kind.SEARCH, Kind.VERDICT])
def test_a_study_does_not_go_on_on_another_backend(
    kind: Kind, tmp_path: Path, digits_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    spec = make_spec(kind=kind, dataset="digits")
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        FilledLedger(ledger, spec, backend="jax").ask()  # a study without a trial may still become another
    with pytest.raises(InputError) as refused:
        run_study(spec, tmp_path, PlainDisplay(io.StringIO()), num_workers=1, fresh=False)
    beside = "" if kind is Kind.VERDICT else "--as NAME for a study of its own beside it, or "
    assert str(refused.value) == (
        f"study {spec.study} was begun on jax and would now continue on tensorflow; allowed: KERAS_BACKEND=jax,"
        f" {beside}--fresh to keep the old one under a dated name and start a new one"
    )


# Errors are compared, times are not


def on_two_backends(ledger: Ledger) -> tuple[FilledLedger, FilledLedger]:
    one, other = (FilledLedger(ledger, make_spec(name)) for name in ("on-tensorflow", "on-jax"))
    for error_pct, train_s in ((2.0, 90.0), (2.0, 80.0), (3.0, 10.0)):
        one.add(error_pct, train_s=train_s)
    for error_pct, train_s in ((1.0, 500.0), (2.0, 85.0), (2.0, 70.0), (4.0, 1.0)):
        other.add(error_pct, train_s=train_s, device=JAX)
    return one, other


def test_a_leaderboard_ranks_errors_across_backends_and_equal_ones_by_time_within_one_only(ledger: Ledger) -> None:
    on_two_backends(ledger)
    frame = leaderboard(ledger, ["on-tensorflow", "on-jax"])
    assert list(frame["error_rate_pct"]) == [1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 4.0]
    assert list(frame["rank"]) == list(range(1, 8))
    ties = frame[frame["error_rate_pct"] == 2.0]
    assert list(zip(ties["backend"], ties["device_time_s"], strict=True)) == [
        (JAX.backend, 70.0), (JAX.backend, 85.0), (CPU.backend, 80.0), (CPU.backend, 90.0)
    ]  # fmt: skip


def test_the_table_says_which_times_belong_together(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    on_two_backends(ledger)
    studies, out = ["on-tensorflow", "on-jax"], io.StringIO()
    show_leaderboard(ledger, studies, leaderboard(ledger, studies), out)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert "times come from 2 timing classes: compare them only within one" in lines
    assert f"  a: {JAX.timing_class}" in lines
    assert f"  b: {CPU.timing_class}" in lines
    rows = [line.split() for line in lines if " on-jax " in line or " on-tensorflow " in line]
    letters = [row[row.index(time_s) + 2] for row, time_s in zip(rows, ("500.0", "70.0", "85.0", "80.0"), strict=False)]
    assert letters == ["a", "a", "a", "b"]


def test_within_a_study_the_best_is_the_same_everywhere(ledger: Ledger) -> None:
    """Its device may have changed, though its backend cannot."""
    study = FilledLedger(ledger, make_spec())
    study.add(2.0, train_s=10.0)
    study.add(2.0, train_s=90.0, device=JAX)
    study.add(2.0, train_s=80.0, device=JAX)
    first = leaderboard(ledger, ["study"]).iloc[0]
    best = status(ledger, "study").best
    assert best is not None
    assert best.trial == first["trial"] == 2


def test_studies_on_two_backends_are_compared_by_epochs(ledger: Ledger) -> None:
    on_two_backends(ledger)
    found = compare(ledger, ["on-tensorflow", "on-jax"])
    assert found.unit == "trainings"
    assert [sorted(standing.error_pct) for standing in found.standings] == [[1.0, 2.0]]


def test_what_trials_take_is_learned_from_the_present_backend_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_two_backends(ledger)
    monkeypatch.setattr(backends, "installed", lambda: dict.fromkeys(backends.BACKENDS, "1.0"))
    for name, number in (("tensorflow", 3), ("jax", 4), ("torch", 0)):
        monkeypatch.setenv("KERAS_BACKEND", name)
        assert make_costs(ledger, make_spec("new"), [PLACE]).num_known == number


# All of it


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_the_smoke_sweep_and_what_follows_it(name: str, tmp_path: Path, digits_folder: Path) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
        "HARNESS_HOME": str(tmp_path), "HARNESS_DATA": str(digits_folder.parent), "KERAS_BACKEND": name,
    }  # fmt: skip

    def harness(*arguments: str) -> str:
        command = [sys.executable, "-m", "harness.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    precision = (
        devices.fastest_precision(devices.places(devices.this_machine(), 1)) if name == "tensorflow" else "float32"
    )
    assert f"threads, {name}, {precision}\n" in harness("sweep", "smoke")
    harness("sweep", "smoke", "--trials", "7")
    assert "IDENTICAL" in harness("reproduce", "smoke-quick", "2")
    harness("verdict", "smoke-quick", "--top", "1", "--seeds", "3", "--epochs", "2")
    harness("report", "smoke-quick")
    harness("doctor", "--audit", "smoke-quick")
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        records = ledger.history("smoke-quick")
        assert ledger.study("smoke-quick").provenance["backend"] == name
    assert [record.trial.role for record in records[:3]] == [Role.BASELINE, Role.BASELINE, Role.TRIAL]
    assert len(records) == 9
    baseline = [record.result.error_rate_pct for record in records[:2]]
    assert all(2.0 < error_pct < 8.0 for error_pct in baseline), "on each of the three, seeds lie about 4 %"
    with (tmp_path / "leaderboards" / "smoke-quick.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["backend"] for row in rows} == {f"{name} {backends.installed()[name]}"}
    # The network it ends in is asked on another backend, where there is one.
    environment["KERAS_BACKEND"] = min(backends.installed(), key=lambda other: other == name)
    images, labels = cache.load("digits", "test", digits_folder)
    Image.fromarray(images[0]).save(tmp_path / "digit.png")
    (answer,) = json.loads(harness("predict", "--json", str(tmp_path / "digit.png")))["predictions"]
    assert answer["digit"] == labels[0]
