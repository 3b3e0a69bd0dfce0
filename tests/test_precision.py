"""In which precision networks are trained: what devices can do, what a study keeps to, and what comes of it."""

from __future__ import annotations

import dataclasses
import io
import re
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import pytest
from filled_ledger import CPU, FilledLedger, make_spec

from harness.analysis.leaderboard.leaderboard import leaderboard
from harness.analysis.report.facts import gather
from harness.analysis.report.headline import subject
from harness.analysis.report.tables import provenance
from harness.analysis.verdict.findings import find_verdict
from harness.analysis.verdict.sentences import sentences
from harness.errors import InputError
from harness.execution.base import Job, Place
from harness.execution.machine import devices
from harness.execution.machine.devices import Machine
from harness.execution.machine.gpus import Gpu, usable_gpus
from harness.execution.training import models
from harness.execution.training.trainer import Trainer, build
from harness.ledger.ledger import Ledger
from harness.planning.forecast import TimeLeft
from harness.planning.plan import Plan, describe
from harness.study.records import Outcome, Trial
from harness.study.settings import Kind
from harness.study.spec import SweepSpec
from harness.support import keras_settings
from harness.sweep.display import PlainDisplay
from harness.sweep.runner import open_study, run_study, with_precision
from harness.tracking.summary import Progress, summary
from harness.workflows.verdict import Request, plan_verdict

PLAIN = Place("worker-0", CPU.name, 1, 2)
FAST = dataclasses.replace(PLAIN, has_bfloat16=True)
FAST_GPU = dataclasses.replace(FAST, gpu="GPU-1")
TRIAL = Trial("uid", 0, {"units_1": 64, "units_2": 32, "batch_norm": True}, seed=1, epochs=3)


@pytest.fixture
def ledger(tmp_path: Path):
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        yield ledger


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f", False), ("fpu avx512_bf16 avx512f", True), ("amx_bf16 amx_tile", True), ("", False)],
)
def test_a_processor_says_whether_it_multiplies_bfloat16(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: A processor\nflags\t\t: {flags}\n\n")
    monkeypatch.setattr(devices, "CPU_INFO", info)
    machine = devices.this_machine()
    assert (machine.cpu_name, machine.cpu_has_bfloat16) == ("A processor", expected)
    assert {place.has_bfloat16 for place in devices.places(dataclasses.replace(machine, gpus=()), 2)} == {expected}
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "none")
    assert not devices.this_machine().cpu_has_bfloat16


def test_gpus_have_it_from_ampere_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = [f"GPU {i}: NVIDIA {name} (UUID: GPU-{i})" for i, name in enumerate(("V100", "A100", "New"))]
    tool = tmp_path / "nvidia-smi"
    capabilities = "GPU-0, 7.0\nGPU-1, 8.0\nGPU-2, [N/A]\n"
    lines = "\n".join(listing)
    tool.write_text(f'#!/bin/sh\n[ "$1" = -L ] && printf "{lines}\n" || printf "{capabilities}"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.has_bfloat16 for gpu in usable_gpus()] == [False, True, False]
    machine = Machine("A processor", 4, 8000.0, usable_gpus())
    assert [place.has_bfloat16 for place in devices.places(machine, None)] == [False, True, False]


@pytest.mark.parametrize(
    ("backend", "places", "expected"),
    [
        ("tensorflow", [PLAIN], "float32"),
        ("tensorflow", [FAST, FAST], "bfloat16"),
        ("tensorflow", [FAST, PLAIN], "float32"),
        ("jax", [FAST], "float32"),
        ("jax", [FAST_GPU], "bfloat16"),
        ("tensorflow", [FAST_GPU, dataclasses.replace(PLAIN, gpu="GPU-2")], "float32"),
    ],
)
def test_what_all_places_multiply_in_hardware_is_taken(
    backend: str, places: list[Place], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.backends, "backend", lambda: backend)
    assert devices.fastest_precision(places) == expected


def test_a_study_keeps_the_precision_in_which_it_was_begun(ledger: Ledger) -> None:
    auto = make_spec(precision="auto")
    begun = with_precision(ledger, auto, [FAST], fresh=False)
    assert begun.precision == "bfloat16"
    assert with_precision(ledger, auto, [PLAIN], fresh=False).precision == "float32"
    FilledLedger(ledger, begun).add(2.0)
    assert with_precision(ledger, auto, [PLAIN], fresh=False) == begun
    assert with_precision(ledger, auto, [PLAIN], fresh=True).precision == "float32"
    asked = make_spec(precision="float32")
    assert with_precision(ledger, asked, [FAST], fresh=False) == asked
    with pytest.raises(InputError, match=r"^study study was started with other settings \(precision\); allowed: "):
        open_study(ledger, asked, fresh=False)


def test_studies_of_before_are_in_float32_with_their_digest() -> None:
    old, new = make_spec(), make_spec(precision="bfloat16")
    assert old.precision == "float32"
    assert "precision" not in old.identity()
    assert old.digest() != new.digest()


def test_errors_of_two_precisions_are_not_ranked_together(ledger: Ledger) -> None:
    for name, precision, error_pct in (("one", "float32", 2.0), ("two", "bfloat16", 1.0)):
        study = FilledLedger(ledger, make_spec(name, precision=precision))
        study.add(error_pct, device=dataclasses.replace(CPU, precision=precision))
    frame = leaderboard(ledger, ["one", "two"])
    assert dict(zip(frame["precision"], frame["rank"], strict=True)) == {"float32": 1, "bfloat16": 1}


@pytest.mark.parametrize(("precision", "said"), [("float32", ""), ("bfloat16", " in bfloat16")])
def test_a_report_mlflow_and_a_verdict_say_the_precision(ledger: Ledger, precision: str, said: str) -> None:
    study = FilledLedger(ledger, make_spec(precision=precision))
    study.add(2.0)
    facts = gather(ledger, "study")
    assert f"1,000 training images, 3 epochs{said}; " in subject(facts.spec)
    assert ("precision", precision) in provenance(facts).rows
    progress = Progress(
        facts.study, facts.records, facts.configurations, facts.findings, facts.usage, num_test_reads=0, ended_at=0.0
    )
    assert f"1,000 training images, 3 epochs{said}, seed 0." in summary(progress)
    spec, _ = plan_verdict(ledger, "study", Request(top=1), fresh=False)
    FilledLedger(ledger, spec)
    verdict = find_verdict(ledger, spec)
    assert (verdict.precision, f"3 epochs on 60,000 images{said}; " in sentences(verdict)[-1]) == (precision, True)


def test_the_plan_says_the_precision() -> None:
    lines = describe(make_spec(precision="bfloat16"), [PLAIN], Plan(1, 0, TimeLeft(1.0, 2.0)))
    assert any(line.startswith("device ") and line.endswith(", bfloat16") for line in lines)


@pytest.mark.parametrize(
    ("settings", "places", "backend", "says"),
    [
        ({"precision": "bfloat16"}, [FAST], "tensorflow", None),
        ({"precision": "float32"}, [PLAIN], "tensorflow", None),
        ({"precision": "bfloat16"}, [FAST_GPU], "jax", None),
        ({"precision": "bfloat16"}, [FAST, PLAIN], "tensorflow", "only emulates bfloat16.*`harness sweep NAME --prec"),
        (
            {"precision": "bfloat16", "kind": Kind.VERDICT},
            [PLAIN],
            "tensorflow",
            "begin a new study by `harness sweep ",
        ),
        ({"precision": "bfloat16", "space": {}}, [PLAIN], "tensorflow", "hardware, or --precision float32$"),
        (
            {"precision": "bfloat16"},
            [FAST],
            "jax",
            "bfloat16 may be slower than float32 with jax on CPUs: take tensorflow",
        ),
    ],
)
def test_the_plan_says_where_bfloat16_gains_nothing(
    settings: dict[str, object],
    places: list[Place],
    backend: str,
    says: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices.backends, "backend", lambda: backend)
    lines = describe(make_spec(**settings), places, Plan(1, 0, TimeLeft(1.0, 2.0)))
    found = [line for line in lines if line.startswith("precision ")]
    assert len(found) == (says is not None)
    assert says is None or re.search(says, found[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_trial_is_trained_and_judged_in_the_precision_of_its_study(
    smoke: SweepSpec, digits_folder: Path, tmp_path: Path, precision: str
) -> None:
    spec = smoke.changed(precision=precision)
    trainer = Trainer(spec, PLAIN, digits_folder)
    weights = tmp_path / "uid.npz"
    result = trainer.run(Job(TRIAL, save_to=weights), lambda report: True)
    assert result.outcome is Outcome.COMPLETED, result.error
    assert result.error_rate_pct < 25
    assert (result.device.precision, f" / {precision} / " in result.device.timing_class) == (precision, True)
    network = models.rebuild(spec, TRIAL.params, weights)
    assert {layer.compute_dtype for layer in network.layers[:-1]} == {precision}
    assert network.layers[-1].compute_dtype == "float32"
    assert {str(variable.dtype) for variable in network.trainable_variables} == {"float32"}
    assert keras.config.dtype_policy().name == keras_settings.POLICIES[precision], "of the worker's own process"
    from harness.execution.data import cache

    images, labels = cache.load("digits", "validation", digits_folder)
    answers = models.probabilities(network, images.astype(np.float32) / 255).argmax(axis=1)
    different = set(np.flatnonzero(answers != labels)) ^ set(result.wrong_images)
    assert len(different) <= (0 if precision == "float32" else 2), "rounding may differ between graphs"


def test_bfloat16_changes_the_numbers_and_hardly_the_network(smoke: SweepSpec, digits_folder: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(smoke.changed(precision=precision), PLAIN, digits_folder)
        losses[precision] = trainer.run(Job(TRIAL), lambda report: True).curve[-1].train_loss
    assert losses["float32"] != losses["bfloat16"]
    assert losses["float32"] == pytest.approx(losses["bfloat16"], rel=0.1)
    keras_settings.pin()
    assert build(smoke, TRIAL.params).layers[1].compute_dtype == "float32"


def test_a_sweep_takes_what_the_machine_has_and_says_so(
    smoke: SweepSpec, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(digits_folder.parent))
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(devices, "usable_gpus", tuple[Gpu, ...])
    out = io.StringIO()
    spec = smoke.changed(precision="auto", baseline_seeds=1, epochs=1)
    run_study(spec.changed(budget={"trials": 0}), tmp_path, PlainDisplay(out), num_workers=1, fresh=False)
    assert ", bfloat16\n" in out.getvalue()
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        study = ledger.study(spec.study).spec
        record = ledger.history(spec.study)[0]
    assert study.precision == record.result.device.precision == "bfloat16"
