import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api.sweeps import sweep_options
from harness.errors import InputError
from harness.execution.data.datasets import DATASETS
from harness.study.data import BUILT_IN
from harness.study.settings import Decides, Flags, Profile, SweepFile, parse_duration_s, settings_that_decide
from harness.study.spec import SweepSpec, check_name
from harness.study.sweep_file import baseline_spec, given_flags, load_sweep
from harness.support.home import sweeps_folder

CNN = (sweeps_folder() / "cnn.toml").read_text()


def load(text: str, folder: Path, flags: Flags | None = None) -> SweepSpec:
    path = folder / "mine.toml"
    path.write_text(text)
    return load_sweep(path, flags or Flags(), "quick")


@pytest.mark.parametrize("path", sorted(sweeps_folder().glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_sweeps_load(path: Path) -> None:
    spec = load_sweep(path, Flags(), "quick")
    spec.search_space.validate(spec.baseline_params)
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('baseline = "cnn"', 'baseline = "resnet"', "baseline is 'resnet'; allowed: 'cnn'"),
        ("max_mflops_per_image", "max_mflop", "constraints.max_mflop is unknown; allowed: max_params, max_mflops_per"),
        ("low = 8, high = 64", "low = 80, high = 64", "space.filters_1: range 80 to 64 is empty"),
        ("low = 8, high = 64", "low = 40, high = 64", "documented baseline, but its filters_1 is 32; allowed: whole"),
        ("epochs = 6", "epochs = 0", "profiles.quick.epochs is 0; allowed: greater than or equal to 1"),
        ('"18m"', '"18 minutes"', "profiles.quick.budget: duration is '18 minutes'; allowed: a number above 0 with"),
        ("filters_1", "filtres_1", "space.filtres_1 is unknown; allowed for cnn: filters_1, filters_2"),
        ("sampler", "smapler", "smapler is unknown; allowed: baseline, dataset, engine"),
        ("[space]", "[recipe]\nmomentum = 0.9\n[space]", "recipe.momentum is unknown; allowed: learning_rate"),
        ("[space]", "[recipe]\nbatch_size = 0\n[space]", "recipe.batch_size is 0; allowed: whole numbers 1 to"),
        ("[space]", '[recipe]\nschedule = "step"\n[space]', "recipe.schedule is 'step'; allowed: warmup_cosine"),
        ("train_images = 10000", "", "profiles.quick.train_images is missing"),
        ("[space]", "[space", "allowed: a TOML file in UTF-8"),
    ],
)
def test_wrong_files_say_file_key_and_what_is_allowed(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in CNN
    with pytest.raises(InputError) as error:
        load(CNN.replace(old, new), tmp_path)
    assert str(tmp_path / "mine.toml") in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_names_the_known_sweeps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is not there; allowed: a TOML file or one of cnn"):
        load_sweep(tmp_path / "no.toml", Flags(), "quick")


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_whatever_a_space_says_it_loads_or_is_refused_in_one_line(content: object) -> None:
    from harness.study.space import domain_from_toml

    if isinstance(content, dict):
        try:
            domain_from_toml(content)
        except InputError as error:
            assert "\n" not in str(error)


def test_flags_lie_over_the_file(tmp_path: Path) -> None:
    spec = load(CNN, tmp_path, Flags(seed=3, trials=40, budget="2h", profile="full", sampler="random"))
    assert (spec.seed, spec.budget.trials, spec.budget.wall_s, spec.profile, spec.sampler) == (
        3, 40, 7200.0, "full", "random"
    )  # fmt: skip
    assert spec.study == "mine-full-random-seed3"


def test_another_engine_brings_its_own_sampler_and_pruner(tmp_path: Path) -> None:
    spec = load(CNN, tmp_path, Flags(engine="keras-tuner", sampler="hyperband"))
    assert (spec.sampler, spec.pruner) == ("hyperband", "none")
    assert spec.study == "mine-quick-keras-tuner-hyperband"
    assert load(CNN, tmp_path, Flags(engine="keras-tuner")).sampler == "bayesian"


def test_two_objectives_drop_the_files_pruner_but_keep_an_explicit_one(tmp_path: Path) -> None:
    assert load(CNN, tmp_path, Flags(objective=("error", "device_time"))).pruner == "none"
    assert load(CNN, tmp_path, Flags(objective=("error", "device_time"), pruner="median")).pruner == "median"


def test_studies_that_find_other_things_have_other_names_and_digests(tmp_path: Path) -> None:
    changes = [
        Flags(),
        Flags(seed=1),
        Flags(sampler="random"),
        Flags(pruner="none"),
        Flags(engine="keras-tuner"),
        Flags(objective=("error", "device_time")),
        Flags(dataset="digits"),
        Flags(precision="bfloat16"),
        Flags(profile="full"),
    ]
    specs = [load(CNN, tmp_path, flags) for flags in changes]
    assert len({spec.study for spec in specs}) == len({spec.digest() for spec in specs}) == len(changes)


def test_every_setting_that_decides_how_good_an_error_can_be_is_a_key_of_sweep_files() -> None:
    keys = SweepFile.model_fields.keys() | Profile.model_fields.keys()
    assert [name for name in settings_that_decide(Decides.ERRORS) if name not in keys] == []


def test_the_example_explains_every_key() -> None:
    keys = SweepFile.model_fields.keys() | Profile.model_fields.keys()
    assert [key for key in keys if not re.search(rf"^(# )?\[?{key}\b", CNN, re.MULTILINE)] == []


def test_the_budget_is_not_part_of_what_a_study_is(tmp_path: Path) -> None:
    short, long = load(CNN, tmp_path, Flags(trials=1)), load(CNN, tmp_path, Flags(trials=99, budget="3h"))
    assert short.study == long.study
    assert short.digest() == long.digest()
    assert short.differing_keys(long) == []


def test_a_changed_file_names_the_differing_keys(tmp_path: Path) -> None:
    old = load(CNN, tmp_path)
    new = load(CNN.replace("high = 64", "high = 128").replace("epochs = 6", "epochs = 7"), tmp_path)
    assert old.differing_keys(new) == ["epochs", "space"]


def test_the_recipe_is_part_of_the_digest(tmp_path: Path) -> None:
    changed = CNN.replace("[space]", "[recipe]\nlearning_rate = 0.01\n[space]")
    assert load(changed, tmp_path).digest() != load(CNN, tmp_path).digest()


def test_the_data_set_bounds_the_number_of_images(tmp_path: Path) -> None:
    spec = load(CNN, tmp_path, Flags(dataset="digits"))
    assert spec.train_images == 1200


def test_the_sizes_of_the_splits_are_the_data_sets_own() -> None:
    for name, facts in BUILT_IN.items():
        kept = DATASETS[name].kept
        assert facts.sizes == {split: kept[f"{split}_labels"].shape[0] for split in facts.sizes}


def test_baseline_study_reads_test_images_and_searches_nothing() -> None:
    spec = baseline_spec("cnn", Flags(), 5, "quick")
    assert (spec.study, spec.baseline_seeds, spec.reads_test) == ("baseline-cnn-quick", 5, True)
    assert dict(spec.baseline_params) == {}
    assert spec.budget.trials == 0


@pytest.mark.parametrize("name", ["a", "A-b_c.1", "x" * 64, "x" * 64 + ".20261231-235959.verdict"])
def test_good_names(name: str) -> None:
    assert check_name(name, "study") == name


@given(st.text(max_size=70))
def test_names_that_pass_are_safe_as_file_names(name: str) -> None:
    try:
        check_name(name, "study")
    except InputError as error:
        assert "allowed" in str(error)
    else:
        assert len(name) <= 64 + len(".20261231-235959.verdict")
        assert Path(name).name == name
        assert name.isascii()
        assert not name.startswith(".")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "-1m", "0s", "15 minutes", "1h30m", "nan", "1e9h"])
def test_wrong_durations_say_what_is_allowed(text: str) -> None:
    with pytest.raises(InputError, match="allowed: a number above 0 with s, m or h"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trials": 0}, "--trials is 0; allowed: greater than or equal to 1"),
        ({"seed": -1}, "--seed is -1; allowed: greater than or equal to 0"),
        ({"engine": "hyperopt"}, "--engine is 'hyperopt'; allowed: 'optuna' or 'keras-tuner'"),
        ({"objective": ("err",)}, "--objective is 'err'; allowed: 'error' or 'device_time'"),
        ({"budget": "x"}, "--budget: duration is 'x'; allowed: a number above 0"),
        ({"learn_from": 3}, "--learn-from is 3; allowed: a valid string"),
        ({"study": 3}, "--as is 3; allowed: a valid string"),
    ],
)
def test_wrong_flags_are_refused_by_their_names(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        given_flags(given, {option.name: option.long_flag for option in sweep_options()})


def test_a_study_remembers_how_long_the_full_profile_trains(tmp_path: Path) -> None:
    quick = load(CNN, tmp_path)
    assert (quick.epochs, quick.full_epochs) == (6, 12)
    assert load(CNN.split("[profiles.full]")[0], tmp_path).full_epochs is None
    longer = load(CNN.replace("epochs = 12", "epochs = 20"), tmp_path)
    assert longer.differing_keys(quick) == [], "a quick study finds the same"


def test_the_names_of_verdicts_are_theirs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study is 'mine\.verdict'; allowed: a name that does not end in \.verdict"):
        load(CNN, tmp_path, Flags(study="mine.verdict"))


@pytest.mark.parametrize("name", ["../x", "\udcff", "a b", ""])
def test_a_study_to_learn_from_has_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"^learn_from is '.*'; allowed: 1 to 64 letters"):
        load(CNN, tmp_path, Flags(learn_from=name))


@pytest.mark.parametrize("seeds", [0, -1, 2**31, 10**30])
def test_a_number_of_baseline_seeds_that_cannot_be_is_refused(seeds: int) -> None:
    with pytest.raises(InputError, match=r"^--seeds is \S+; allowed: 1 to 2147483647$"):
        baseline_spec("fc", Flags(), seeds, "quick")


WRONG = [
    {"epochs": 0},
    {"epochs": 3_000_000_000},
    {"trial_timeout_s": 3e9},
    {"baseline_seeds": -1},
    {"seed": 2**31},
    {"study": "a/b"},
    {"budget": {"trials": 1, "wall_s": 1e12}},
    {"space": {"nothing": {"low": 1, "high": 2}}},
    {"colour": "red"},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_a_changed_study_keeps_the_rules_of_a_new_one(smoke: SweepSpec, changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=rf"^study smoke-quick: .*{next(iter(changes))}.* (allowed|unknown)") as caught:
        smoke.changed(**changes)
    assert "\n" not in str(caught.value)
    assert smoke.changed(epochs=7) == smoke.model_copy(update={"epochs": 7})
