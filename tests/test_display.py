import dataclasses
import io
import re
import threading
from collections.abc import Iterator

import pytest
from filled_ledger import DOCUMENTED, make_spec

from harness.planning.forecast import TimeLeft
from harness.study.data import BUILT_IN
from harness.study.records import EpochReport, Outcome, Record, Role, Seconds, Trial, TrialResult
from harness.study.seeds import Seeds
from harness.study.settings import Kind
from harness.sweep.display import QUIET_S, HowFar, LiveDisplay, PlainDisplay, make_display

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SPEC = make_spec(train_images=6120)
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self.getvalue()).replace("\r", "")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


@pytest.fixture
def live(terminal: Terminal) -> Iterator[LiveDisplay]:
    with LiveDisplay(terminal) as display:
        yield display


def drawn(live: LiveDisplay, terminal: Terminal) -> list[str]:
    """The lines of the region without the seconds of each trial, drawn now instead of a quarter of a second later."""
    with live._live._lock:
        start = len(terminal.text)
        live._live.refresh()
        return [re.sub(r" +\d+ s$", "", line).rstrip() for line in terminal.text[start:].splitlines()]


AS_DOCUMENTED, CHANGED = "as documented", "units_2=100"
WHOLE = {"final_error_rate_pct": 2.1, "final_val_images": 10_000}
RESULTS = (
    "best so far trial 4 at 1.71 % (95 %: 1.47 to 1.98), 0.12 points below the baseline's 1.83 % (mean of 2 seeds):"
    " within noise"
)


def trial(number: int, role: Role = Role.TRIAL) -> Trial:
    params = DOCUMENTED if role is Role.BASELINE else {**DOCUMENTED, "units_2": 100}
    return Trial(f"uid-{number}", number, params, number, 5, role)


def report(epoch: int, error_pct: float = 2.5) -> EpochReport:
    return EpochReport(epoch, 0.1, 0.1, error_pct, 1000, Seconds(train=10.0))


def result(outcome: Outcome = Outcome.COMPLETED, epoch: int = 5, error: str | None = None) -> TrialResult:
    return TrialResult(outcome, error, (report(epoch),), Seconds(build=1.0, train=70.0, evaluate=4.0))


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, LiveDisplay),
        ({"NO_COLOR": ""}, LiveDisplay),
        ({"NO_COLOR": "1"}, PlainDisplay),
        ({"TERM": "dumb"}, PlainDisplay),
        ({"TERM": "unknown"}, PlainDisplay),
    ],
)
def test_live_only_where_the_terminal_can(
    terminal: Terminal, variables: dict[str, str], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert type(make_display(terminal)) is kind
    assert type(make_display(io.StringIO())) is PlainDisplay


def test_plain_lines_tell_a_sweep_from_plan_to_end() -> None:
    out, clock = io.StringIO(), Clock()
    first, second = trial(0, Role.BASELINE), trial(1)
    with PlainDisplay(out, clock) as display:
        display.plan(["study     cnn-quick", "budget    2 trials"])
        display.started(first, "cpu-0", 1, AS_DOCUMENTED)
        display.epoch(SPEC, first, "cpu-0", report(1))
        clock.now_s += QUIET_S
        display.epoch(SPEC, first, "cpu-0", report(2))
        display.retried(first, result(Outcome.CRASHED, error="worker killed by signal 9"))
        display.started(first, "cpu-1", 2, AS_DOCUMENTED)
        display.finished(SPEC, first, result(), AS_DOCUMENTED)
        display.progress(HowFar(1, 3, None, "baseline 2.50 %"))
        display.started(second, "cpu-0", 1, CHANGED)
        display.finished(SPEC, second, result(Outcome.PRUNED, 2), CHANGED)
        display.progress(HowFar(2, 3, TimeLeft(100.0, 160.0), RESULTS))
        display.note("MLflow does not answer")
        display.finished(SPEC, trial(2), result(Outcome.OUT_OF_MEMORY), CHANGED)
        display.finished(SPEC, trial(3), dataclasses.replace(result(), **WHOLE), "trial 1, 2nd seed", "study/trial 9")
        display.progress(HowFar(3, 3, TimeLeft(0.0, 0.0), RESULTS))
    assert out.getvalue().splitlines() == [
        "study     cnn-quick",
        "budget    2 trials",
        "baseline 0  started on cpu-0",
        "baseline 0  epoch 2/5   2.50 % of 1,000",
        "baseline 0  crashed (worker killed by signal 9); it will be tried again",
        "baseline 0  started on cpu-1 (attempt 2)",
        "baseline 0    2.50 % of 1,000   75 s    as documented",
        "1 of 3 trials; baseline 2.50 %",
        "trial 1       2.50 % of 1,000   pruned after 2 of 5 epochs  units_2=100",
        "MLflow does not answer",
        "trial 2                         out of memory  units_2=100",
        "trial 3       2.10 % of 10,000  75 s    trial 1, 2nd seed  reused from study/trial 9",
        f"3 of 3 trials; {RESULTS}",
    ]


def test_plain_progress_comes_now_and_then_and_only_when_there_is_news() -> None:
    out, clock = io.StringIO(), Clock()
    display = PlainDisplay(out, clock)
    display.progress(HowFar(1, 9, TimeLeft(5400.0, 7700.0)))
    for done in (1, 2, 2):
        display.progress(HowFar(done, 9, TimeLeft(80.0, 110.0)))
    clock.now_s += QUIET_S
    display.progress(HowFar(1, 9, TimeLeft(80.0, 110.0)))
    display.progress(HowFar(2, 9, TimeLeft(80.0, 110.0)))
    assert out.getvalue().splitlines() == [
        "1 of 9 trials, about 90 min to 2 h 10 min left",
        "2 of 9 trials, about 80 to 110 s left",
    ]


def test_control_characters_and_markup_are_shown_harmless(live: LiveDisplay, terminal: Terminal) -> None:
    out = io.StringIO()
    for display in (PlainDisplay(out), live):
        display.note("one\ntwo\x1b[2J [red]three[/red] [/nothing] :smile:")
    assert out.getvalue() == "one two [2J [red]three[/red] [/nothing] :smile:\n"
    assert out.getvalue() in terminal.text
    assert "\x1b[2J" not in terminal.getvalue()


def test_live_region_has_a_line_per_worker_a_bar_and_the_best(live: LiveDisplay, terminal: Terminal) -> None:
    live.started(trial(12), "cpu-0", 1, CHANGED)
    live.started(trial(0, Role.BASELINE), "cpu-1", 1, AS_DOCUMENTED)
    live.epoch(SPEC, trial(12), "cpu-0", report(3))
    live.progress(HowFar(9, 26, TimeLeft(540.0, 830.0), RESULTS))
    lines = drawn(live, terminal)
    assert "cpu-0  trial 12    epoch 3/5   2.50 % of 1,000" in lines
    assert "cpu-1  baseline 0  epoch 0/5" in lines
    assert any(line.endswith("9 of 26 trials, about 9 to 14 min left") for line in lines)
    assert RESULTS in " ".join(lines)
    assert max(map(len, lines)) <= 60


def test_live_keeps_lines_of_what_is_over_and_frees_the_worker(live: LiveDisplay, terminal: Terminal) -> None:
    live.started(trial(7), "cpu-0", 1, CHANGED)
    live.finished(SPEC, trial(7), result(), CHANGED)
    assert "trial 7       2.50 % of 1,000   75 s    units_2=100\n" in terminal.text
    assert drawn(live, terminal) == ["cpu-0  waiting"]
    live.started(trial(8), "cpu-0", 1, CHANGED)
    live.retried(trial(8), result(Outcome.CRASHED))
    assert "trial 8     crashed; it will be tried again" in terminal.text
    assert drawn(live, terminal) == ["cpu-0  waiting"]


def test_live_region_leaves_room_however_many_workers(
    live: LiveDisplay, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "10")
    for number in range(30):
        live.started(trial(number), f"node-{number}", 1, CHANGED)
    live.progress(HowFar(0, 99, None, RESULTS))
    lines = drawn(live, terminal)
    assert lines[2:4] == ["node-2  trial 2     epoch 0/5", "and 27 more workers"]
    assert " ".join(lines[-3:]) == RESULTS
    assert len(lines) < 10


def test_an_exception_gives_the_cursor_back(terminal: Terminal) -> None:
    def fail() -> None:
        with LiveDisplay(terminal) as display:
            display.started(trial(0), "cpu-0", 1, CHANGED)
            raise RuntimeError("made up")

    with pytest.raises(RuntimeError, match="made up"):
        fail()
    written = terminal.getvalue()
    assert HIDE_CURSOR in written
    assert written.rindex(SHOW_CURSOR) > written.rindex(HIDE_CURSOR)


@pytest.mark.parametrize("kind", [PlainDisplay, LiveDisplay])
def test_nothing_is_written_after_close(kind: type[PlainDisplay | LiveDisplay], terminal: Terminal) -> None:
    display = kind(terminal)
    display.started(trial(0), "cpu-0", 1, CHANGED)
    display.close()
    before = terminal.getvalue()
    display.plan(["late"])
    display.started(trial(1), "cpu-0", 2, CHANGED)
    display.epoch(SPEC, trial(1), "cpu-0", report(1))
    display.note("late")
    display.progress(HowFar(1, 1))
    display.retried(trial(1), result(Outcome.CRASHED))
    display.finished(SPEC, trial(1), result(), CHANGED)
    display.close()
    assert terminal.getvalue() == before


class Interrupting(io.StringIO):
    """A stream in the midst of whose first write a signal handler has something to say."""

    display: PlainDisplay | None = None

    def write(self, text: str) -> int:
        display, self.display = self.display, None
        if display:
            display.note("from the handler")
        return super().write(text)


def test_a_note_from_a_signal_handler_waits_for_the_line_being_written() -> None:
    out = Interrupting()
    display = PlainDisplay(out)
    out.display = display
    display.note("first")
    display.note("last")
    assert out.getvalue() == "first\nfrom the handler\nlast\n"


def test_notes_from_many_threads_stay_whole() -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    threads = [
        threading.Thread(target=lambda letter=letter: [display.note(letter * 50) for _ in range(100)])
        for letter in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = out.getvalue().splitlines()
    assert sorted(set(lines)) == [letter * 50 for letter in "abcd"]
    assert len(lines) == 400


def test_a_wide_window_shows_what_each_worker_trains(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with LiveDisplay(terminal) as live:
        live.started(trial(21), "worker-1", 1, "trial 116, 3rd seed")
        live.epoch(SPEC, trial(21), "worker-1", report(3))
        with live._live._lock:
            start = len(terminal.text)
            live._live.refresh()
            line = terminal.text[start:].splitlines()[0].rstrip()
    assert line.startswith("worker-1  trial 21    epoch 3/5   2.50 % of 1,000 ")
    assert line.endswith(" s  trial 116, 3rd seed")


def test_a_line_without_room_for_what_is_trained_leaves_it_out(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with LiveDisplay(terminal) as live:
        live.started(trial(21), f"worker-{'9' * 40}", 1, "units_1=64 units_2=100")
        with live._live._lock:
            start = len(terminal.text)
            live._live.refresh()
            line = terminal.text[start:].splitlines()[0].rstrip()
    assert line.startswith("worker-9999")
    assert "units_1" not in line


def test_a_verdicts_trainings_show_their_error_on_the_test_images_alone() -> None:
    out, clock = io.StringIO(), Clock()
    confirm, spec = trial(3, Role.CONFIRM), make_spec(train_images=sum(BUILT_IN["mnist"].sizes.values()))
    with PlainDisplay(out, clock) as display:
        clock.now_s += QUIET_S
        fast = dataclasses.replace(report(2, error_pct=0.01), seconds=Seconds(train=spec.train_images / 12345))
        display.epoch(spec, confirm, "cpu-0", fast)
        tested = dataclasses.replace(result(), test_wrong_images=(1, 5, 9))
        display.finished(spec, confirm, tested, "trial 12, seed 1000")
        display.finished(spec, confirm, result(), "trial 12, seed 1000")  # trained again, without the test images
    assert out.getvalue().splitlines() == [
        "confirm 3   epoch 2/5 12,345 images/s",
        "confirm 3     0.03 % of 10,000 test images  75 s    trial 12, seed 1000",
        "confirm 3                       75 s    trial 12, seed 1000",
    ]


def test_a_further_seed_says_of_which_trial_it_is() -> None:
    spec = make_spec()
    documented, other = Trial("a", 0, DOCUMENTED, 0, 5, Role.BASELINE), {**DOCUMENTED, "units_2": 100}
    seeds = Seeds(spec, [Record(documented), Record(Trial("b", 1, DOCUMENTED, 1, 5, Role.BASELINE))])
    found = [
        seeds.describe(one)
        for one in (
            Trial("c", 2, other, 0, 5),
            Trial("d", 3, other, 1, 5),
            Trial("e", 4, {**other, "units_1": 33}, 0, 5),
            Trial("f", 5, other, 2, 5),
            Trial("g", 6, DOCUMENTED, 2, 5),
            Trial("h", 7, other, 0, 9),  # of another number of epochs
        )
    ]
    assert found == [
        "units_2=100",
        "trial 2, 2nd seed",
        "units_1=33 units_2=100",
        "trial 2, 3rd seed",
        "baseline 0, 3rd seed",
        "units_2=100",
    ]
    assert seeds.describe(Trial("d", 3, other, 1, 5)) == "trial 2, 2nd seed"  # when it has ended
    verdict = spec.changed(enqueue=(other,), confirms=(7,), kind=Kind.VERDICT)
    confirmed = [Trial("i", n, params, 1000, 5, Role.CONFIRM) for n, params in enumerate((DOCUMENTED, other))]
    assert list(map(Seeds(verdict).describe, confirmed)) == ["baseline, seed 1000", "trial 7, seed 1000"]
