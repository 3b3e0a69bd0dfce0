"""The sub-commands: each calls the library, prints the results, and returns the exit status.

Each one imports its own dependencies, so that a table of results does not wait for a machine-learning framework.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.studies import open_ledger, study_named
from harness.api.sweeps import default_profile, sweep_options, sweep_path
from harness.errors import InputError, TroubleError
from harness.support.atomic_files import STDOUT, destination, is_stream
from harness.support.home import home, sweeps_folder
from harness.support.own_code import typed
from harness.support.standard_streams import for_people

if TYPE_CHECKING:
    from harness.execution.executors import ExecutorSettings
    from harness.ledger.ledger import Ledger
    from harness.planning.progress import StopReason
    from harness.study.settings import Flags
    from harness.study.spec import SweepSpec
    from harness.sweep.runner import StudyEnd

TOP = 20  # rows of a leaderboard on the terminal
MORE_TRIALS = 10  # are proposed at least to continue a study


def sweep(options: argparse.Namespace) -> int:
    from harness.study.sweep_file import load_sweep

    if options.list:
        return _list()
    return _run([load_sweep(sweep_path(options.sweep), _flags(options), default_profile())], options)


def baseline(options: argparse.Namespace) -> int:
    import baselines
    from harness.study.sweep_file import baseline_spec

    names = baselines.NAMES if options.baseline == "all" else (options.baseline,)
    return _run([baseline_spec(name, _flags(options), options.seeds, default_profile()) for name in names], options)


def verdict(options: argparse.Namespace) -> int:
    from harness.analysis.verdict.table import show_verdict, write_verdict
    from harness.study.settings import parse_duration_s
    from harness.sweep.display import make_display
    from harness.workflows.champion import crowned
    from harness.workflows.verdict import Request, run_verdict

    wall_s = parse_duration_s(options.budget, "--budget") if options.budget else None
    _say_that_it_works("reading the study and its ledger")
    request = Request(options.top, options.seeds, options.epochs, wall_s, takes_all_seeds=options.all_seeds)
    executor = _executor(options)  # options are checked before the study is looked up
    study = study_named(options.study)
    with make_display(sys.stdout) as display:
        end = run_verdict(
            study,
            request,
            home(),
            display,
            num_workers=options.workers,
            fresh=options.fresh,
            executor=executor,
            reuses=options.reuses,
        )
    written = write_verdict(end.verdict, home() / "verdicts")
    show_verdict(end.verdict, sys.stdout)
    for path in written:
        _say(f"wrote {path}")
    if end.was_interrupted:
        _say(f"{study}: interrupted; nothing is lost, and the same command continues from here")
        return 130
    _say(crowned(home(), end.verdict))
    return 0


def ablate(options: argparse.Namespace) -> int:
    _say_that_it_works("reading the study and its ledger")
    from harness.analysis.ablation import show_worths, write_worths
    from harness.planning.progress import StopReason
    from harness.sweep.display import make_display
    from harness.workflows.ablation import best_of, run_ablation

    executor = _executor(options)
    with make_display(sys.stdout) as display:
        spec, reason = run_ablation(
            study_named(options.study),
            options.seeds,
            home(),
            display,
            num_workers=options.workers,
            fresh=options.fresh,
            executor=executor,
            reuses=options.reuses,
        )
    path = home() / "ablations" / f"{spec.study}.csv"
    with open_ledger() as ledger:
        records = ledger.history(spec.study)
    show_worths(spec, best_of(spec), records, sys.stdout)
    write_worths(spec, best_of(spec), records, path)
    _say(f"wrote {path}")
    if reason is StopReason.INTERRUPTED:
        _say(f"{spec.study}: interrupted; nothing is lost, and the same command continues from here")
        return 130
    return 0


def predict(options: argparse.Namespace) -> int:
    from harness.workflows.predict import predict, to_json, what_is_answered

    _say_that_it_works("loading the network, which takes some seconds")
    model, predictions = predict(home(), options.model, [Path(image) for image in options.images])
    if options.json:
        _print(json.dumps(to_json(model, predictions), indent=2))
        return 0
    _say(f"{model.describe()}\n{model.file}\n\n{what_is_answered(model)}  probability  file")
    for one in predictions:
        _say(f"{one.digit:5}  {one.probability:11.2%}  {one.path}")
    return 0


def reproduce(options: argparse.Namespace) -> int:
    from harness.analysis.reproduction.agreement import Match
    from harness.analysis.reproduction.sentences import sentences
    from harness.sweep.display import make_display
    from harness.workflows.reproduce import reproduce as train_again

    with make_display(sys.stdout) as display:
        done = train_again(study_named(options.study), options.trial, home(), display)
    for line in sentences(done.agreement):
        _say(line)
    for path in done.diffs:
        _say(f"it was trained with changes that are in no commit: git apply {path}")
    _say(f"wrote {done.path}")
    return 1 if done.agreement.match is Match.DIFFERENT else 0


def status(options: argparse.Namespace) -> int:
    from harness.ledger.ledger import none_yet, of_each
    from harness.planning.plan import status_with_time
    from harness.planning.status import render, to_json

    left_out: list[str] = []
    with open_ledger() as ledger:
        seen = partial(status_with_time, ledger)
        found = [seen(study_named(options.study))] if options.study else of_each(ledger, left_out.append, seen)
        if options.json:
            _print(json.dumps([to_json(one) for one in found], indent=2, allow_nan=False))
        elif found:
            render(found, sys.stdout)
        elif not left_out:
            _say(f"studies: {none_yet(ledger)}")
    return _without(left_out)


def leaderboard(options: argparse.Namespace) -> int:
    """One CSV for the named studies; without names, one for each study."""
    from harness.ledger.ledger import none_yet, of_each, sound_studies

    left_out: list[str] = []
    studies = list(map(study_named, options.studies))
    if options.out is not None:
        with destination("--out", options.out) as path, open_ledger() as ledger:
            names = studies or sound_studies(ledger, left_out.append)
            if not names:
                raise InputError(f"studies: {left_out[0] if left_out else none_yet(ledger)}")
            _write_leaderboard(ledger, names, path, None if options.out == STDOUT else options.top)
        return _without(left_out)
    with open_ledger() as ledger:

        def write(names: list[str]) -> list[str]:
            _write_leaderboard(ledger, names, _board(names), options.top)
            return names

        if studies:
            write(studies)
        elif not of_each(ledger, left_out.append, lambda name: write([name])) and not left_out:
            _say(f"studies: {none_yet(ledger)}")
    return _without(left_out)


def compare(options: argparse.Namespace) -> int:
    from harness.analysis.comparison.comparison import compare
    from harness.analysis.comparison.table import show_comparison, write_comparison

    with open_ledger() as ledger:
        found = compare(ledger, list(map(study_named, options.studies)))
    path = write_comparison(found, home() / "comparisons")
    show_comparison(found, sys.stdout)
    _say(f"wrote {path}, its curves as .curves.csv and their picture as .png")
    return 0


def report(options: argparse.Namespace) -> int:
    from harness.workflows.report import bring_to_mlflow, write_report

    _say_that_it_works("drawing the figures, which takes some seconds")
    where = nullcontext(None) if options.out is None else destination("--out", options.out)
    with where as out:
        report = write_report(home(), study_named(options.study), out)
    say = _warn if options.out == STDOUT else _say
    if options.out != STDOUT:
        size = f" ({report.path.stat().st_size / 1e6:.1f} MB, all of it in one file), to open in a browser"
        _say(f"wrote {report.path}{'' if is_stream(report.path) else size}")
    try:
        bring_to_mlflow(home(), report)
    except (InputError, TroubleError) as error:  # the page was the request
        say(f"its figures are not in MLflow: {error}; the same command tries again")
    return 0


def export(options: argparse.Namespace) -> int:
    if options.epochs and (options.optuna or options.study_file) is not None:
        raise InputError("--epochs goes with --csv, --parquet or --json; --optuna and --study have all epochs")
    study = study_named(options.study)
    if options.optuna is not None:
        from harness.analysis.export.optuna_storage import export_optuna

        with open_ledger() as ledger:
            _say(f"{export_optuna(ledger, study, options.optuna)} trials are new in the storage")
        return 0
    if options.study_file is not None:
        from harness.ledger.study_file import ENDING
        from harness.workflows.study_file import export_study

        with destination("--study", options.study_file, ENDING) as path, open_ledger() as ledger:
            export_study(ledger, study, path)
        if options.study_file != STDOUT:
            _say(f"wrote {path}")
        return 0
    from harness.analysis.export.trials import FORMS, Table, export_table

    form, named = next((form, named) for form in FORMS if (named := getattr(options, form)) is not None)
    with destination(f"--{form}", named, f".{form}") as path, open_ledger() as ledger:
        export_table(ledger, study, path, form, Table.EPOCHS if options.epochs else Table.TRIALS)
    if named != STDOUT:
        _say(f"wrote {path}")
    return 0


def import_(options: argparse.Namespace) -> int:
    from harness.sweep.runner import bring_to_mlflow
    from harness.workflows.study_file import import_study

    imported = import_study(home(), options.file, options.new_name)
    for name, num_trials in imported.num_trials.items():
        _say(
            f"{name}: {num_trials} trials are new in the ledger" if num_trials else f"{name}: the ledger has all of it"
        )
    if imported.missing_source:
        _say(f"{imported.study}: it goes on only beside study {imported.missing_source}, from which it has learned")
    for name in imported.num_trials:
        bring_to_mlflow(home(), name, _say)
    return 0


def data(options: argparse.Namespace) -> int:
    from harness.execution.data.cache import prepare, verify

    if options.action == "fetch":
        _say(f"{options.dataset} is verified and lies in {prepare(options.dataset, _say)}")
        return 0
    checks = verify(options.dataset)
    for check in checks:
        _say(f"{check.path}: {check.problem or 'as it should be'}")
    return 1 if any(check.problem for check in checks) else 0


def ui(options: argparse.Namespace) -> int:
    _say_that_it_works("starting MLflow, which takes some seconds")
    from harness.tracking.ui import serve

    return serve(home(), options.port)


def sync(options: argparse.Namespace) -> int:
    from harness.audit.files import write_missing_run_ids
    from harness.ledger.ledger import none_yet, sound_studies
    from harness.tracking.mlflow_runs import sync

    left_out: list[str] = []
    with open_ledger() as ledger:
        names = sound_studies(ledger, left_out.append)
        if not names and not left_out:
            _say(f"studies: {none_yet(ledger)}")
            return 0
        report = sync(home(), names, _say)
        for study in names:
            if path := write_missing_run_ids(home(), ledger, study):
                _say(f"wrote {path} again, since the runs have changed")
    _say(str(report))
    return max(_without(left_out), 0 if report.is_complete else 1)


def doctor(options: argparse.Namespace) -> int:
    """Audits studies, removes one, or tries the GPUs; without any of these, checks the installation."""
    from harness.workflows.doctor import Level, examine

    if options.gpu:
        from harness.gpu_check.command import check_gpus

        return 0 if check_gpus(home(), _say) else 1
    if options.audit is not None:
        return _audit(options.audit)
    if options.remove:
        return _remove(options.remove)
    is_sound = True
    for finding in examine(home()):
        _say(str(finding))
        is_sound &= finding.level is not Level.PROBLEM
    return 0 if is_sound else 1


def bench(options: argparse.Namespace) -> int:
    from importlib import import_module

    folder, what = home() / "bench", options.what
    folder.mkdir(parents=True, exist_ok=True)  # now, and not after hours
    _say(import_module(f"harness.bench.{what}").run(folder, options.repeats, options.quick).to_string(index=False))
    for path in sorted(folder.glob(f"{what}.*")):
        _say(f"wrote {path}")
    return 0


def _run(specs: list[SweepSpec], options: argparse.Namespace) -> int:
    _say_that_it_works(f"{', '.join(spec.study for spec in specs)}: reading the ledger and the machine")
    from harness.planning.progress import StopReason
    from harness.sweep.display import make_display
    from harness.sweep.runner import run_study

    fresh, executor = getattr(options, "fresh", False), _executor(options)
    for spec in specs:
        with make_display(sys.stdout) as display:
            end = run_study(
                spec,
                home(),
                display,
                num_workers=options.workers,
                fresh=fresh,
                executor=executor,
                reuses=options.reuses,
            )
        if end.reason is StopReason.INTERRUPTED:
            _say(f"{spec.study}: interrupted; nothing is lost, and the same command continues from here")
            return 130
        with open_ledger() as ledger:
            _write_leaderboard(ledger, [spec.study], _board([spec.study]), TOP)
            so_far = ledger.usage(spec.study).trials, ledger.study(spec.study).spec.budget.trials
        _say(how_it_ended(spec, end, *so_far))
    _say_what_is_next(specs)
    return 0


def _say_what_is_next(specs: Sequence[SweepSpec]) -> None:
    """Commands as they can be typed here, each on a line, so that none is broken."""
    commands = [(f"{typed()} verdict {spec.study}", "are the best better?") for spec in specs if spec.is_search]
    commands += [(f"{typed()} report {spec.study}", "a page with figures") for spec in specs]
    commands += [(f"{typed()} ui", "all runs in MLflow")]
    width = max(len(command) for command, _ in commands)
    for command, what in commands:
        _say(f"  {command:<{width}}  {what}")


def _list() -> int:
    """Lists what can be run: sweep files with their profiles, samplers, pruners."""
    from harness.search.samplers import PRUNERS, SAMPLERS
    from harness.study.sweep_file import read_sweep_file

    for path in sorted(sweeps_folder().glob("*.toml"), key=lambda path: path.stem):
        profiles = [
            f"{name} ({profile.trials} trials{f', {profile.budget}' if profile.budget else ''})"
            for name, profile in read_sweep_file(path).profiles.items()
        ]
        purpose = path.read_text(encoding="utf-8-sig").partition("\n")[0].removeprefix("# ")
        _say(f"{path.stem}\n    {purpose}\n    profiles: {', '.join(profiles)}", indent=4)
    for entry in SAMPLERS:
        _say(f"--engine {entry.engine} --sampler {entry.name:<11}{entry.properties}", indent=4)
    for pruner in PRUNERS:
        _say(f"--pruner {pruner.name:<20}{pruner.properties}", indent=4)
    return 0


def _executor(options: argparse.Namespace) -> ExecutorSettings:
    from harness.execution.executors import chosen

    return chosen(options.executor, vars(options))


def how_it_ended(spec: SweepSpec, end: StudyEnd, num_trials: int, num_before: int) -> str:
    """The last line of a sweep: why it stopped, and how to continue.

    Args:
        spec: The study, with the budget of this call.
        end: How it ended.
        num_trials: Number of its searched trials so far.
        num_before: The largest number of trials that it was started with.
    """
    if not spec.is_search:
        return f"{spec.study}: done; every seed has read the test images once"
    nothing = "nothing to run, since " if end.ran_nothing else ""
    how = _how_to_go_on(end.reason, num_trials, num_before)
    return f"{spec.study}: {nothing}{end.reason.value}; {how}--fresh starts a new study"


def _how_to_go_on(reason: StopReason, num_trials: int, num_before: int) -> str:
    """Options that continue the study; none if the whole space has been tried."""
    from harness.planning.progress import StopReason

    total = num_before if num_before > num_trials else num_trials + max(num_trials, MORE_TRIALS)
    more = {
        StopReason.TRIALS: f"--trials {total} runs {total - num_trials} more, ",
        StopReason.WALL_TIME: "a longer --budget continues it, ",
        StopReason.DEVICE_TIME: "a longer device_budget in the sweep file continues it, ",
    }
    return more.get(reason, "")


def _without(left_out: list[str]) -> int:
    """Writes what a command left out to standard error; returns its exit status."""
    for line in left_out:
        sys.stderr.write(f"harness: {line}\n")
    return 1 if left_out else 0


def _remove(study: str) -> int:
    from harness.workflows.removal import remove

    removed = remove(home(), study)
    _say(f"removed study {study} and its {removed.num_trials} trials; the ledger as it was is kept as {removed.copy}")
    _say("its runs stay in MLflow, and its files where they are")
    return 0


def _audit(names: list[str]) -> int:
    """Audits these studies, or all."""
    from harness.ledger.ledger import none_yet

    studies = list(map(study_named, names))
    if not studies:
        with open_ledger(checks=False) as ledger:
            studies = ledger.study_names()
            if not studies:
                raise InputError(f"studies: {none_yet(ledger)}")
    return max([_audit_of(study) for study in studies])


def _audit_of(study: str) -> int:
    from harness.audit import audit, notes
    from harness.audit.files import leaderboard_file

    differences = audit(home(), study)
    for difference in differences:
        _say(f"{study}: {difference}")
    for note in notes(home(), study):
        _say(f"{study}: {note}")
    if not leaderboard_file(home(), study).exists():
        _say(f"{study}: there is no exported leaderboard to compare; `harness leaderboard {study}` writes it")
    _say(f"{study}: {len(differences) or 'no'} difference{'s' * (len(differences) != 1)}")
    return 1 if differences else 0


def _write_leaderboard(ledger: Ledger, studies: list[str], path: Path, top: int | None) -> None:
    """Writes the CSV and shows the first `top` rows; None: shows nothing."""
    from harness.analysis.files import write_csv
    from harness.analysis.leaderboard.leaderboard import leaderboard
    from harness.analysis.leaderboard.table import show_leaderboard

    frame = leaderboard(ledger, studies)
    if top is None:
        write_csv(frame, path)
        return
    show_leaderboard(ledger, studies, frame, sys.stdout, top)
    write_csv(frame, path)
    _say(f"wrote {path}, a row per training")


def _board(studies: list[str]) -> Path:
    joined = "+".join(studies)
    name = joined if len(joined) <= 200 else f"{studies[0]}+{len(studies) - 1} more"  # a file's name is limited
    return home() / "leaderboards" / f"{name}.csv"


def _flags(options: argparse.Namespace) -> Flags:
    from harness.study.sweep_file import given_flags

    flags = {option.name: option.long_flag for option in sweep_options()}
    given = {name: value for name in flags if (value := getattr(options, name, None)) is not None}
    if "objective" in given:
        given["objective"] = tuple(given["objective"].split(","))
    return given_flags(given, flags)


def _say(text: str, *, indent: int = 0) -> None:
    _print(for_people(text, sys.stdout, indent=indent))


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _warn(text: str) -> None:
    sys.stderr.write(f"{for_people(text, sys.stderr)}\n")


def _say_that_it_works(what: str) -> None:
    """A line for a person who waits for slow imports; none in a log."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        _warn(what)


def completion(options: argparse.Namespace) -> int:
    from harness.workflows import completion

    if options.shell != completion.STUDIES:
        _print(completion.script(options.whole, options.shell))
        return 0
    with open_ledger() as ledger:
        for name in ledger.study_names():
            _print(name)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "sweep": sweep,
    "baseline": baseline,
    "verdict": verdict,
    "ablate": ablate,
    "reproduce": reproduce,
    "predict": predict,
    "status": status,
    "leaderboard": leaderboard,
    "compare": compare,
    "report": report,
    "export": export,
    "import": import_,
    "data": data,
    "ui": ui,
    "sync": sync,
    "doctor": doctor,
    "bench": bench,
    "completion": completion,
}
