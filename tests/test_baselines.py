"""The documented networks, layer by layer, as the documents have them."""

import dataclasses
import math

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
from baselines.recipe import RECIPE, Recipe, optimizer
from baselines.settings import YES_OR_NO, Allowed, OneOf, Real, Whole
from harness.cli import _parsed
from harness.study.sweep_file import read_sweep_file
from harness.support.home import sweeps_folder

DOCUMENTED = {
    "fc": [
        ("Flatten", (None, 784), 0),
        ("Dense", (None, 512), 401_920),
        ("Dense", (None, 512), 262_656),
        ("Dense", (None, 10), 5_130),
    ],
    "cnn": [
        ("Conv2D", (None, 28, 28, 32), 832),
        ("MaxPooling2D", (None, 14, 14, 32), 0),
        ("Conv2D", (None, 14, 14, 64), 51_264),
        ("MaxPooling2D", (None, 7, 7, 64), 0),
        ("Flatten", (None, 3136), 0),
        ("Dense", (None, 1024), 3_212_288),
        ("Dense", (None, 10), 10_250),
    ],
}
TOTALS = {"fc": 669_706, "cnn": 3_274_634}


@pytest.fixture(params=baselines.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, **changes: object) -> keras.Model:
    architecture = baselines.load(name)
    return architecture.build(dataclasses.replace(architecture.DOCUMENTED, **changes))


def test_documented_layers(name: str) -> None:
    model = build(name)
    assert [(type(layer).__name__, layer.output.shape, layer.count_params()) for layer in model.layers] == DOCUMENTED[
        name
    ]
    assert model.input_shape == (None, 28, 28, 1)
    assert model.count_params() == TOTALS[name] == baselines.load(name).NUM_PARAMS
    assert sum(int(keras.ops.size(weight)) for weight in model.trainable_weights) == TOTALS[name]


def test_documented_activations(name: str) -> None:
    model = build(name)
    activations = [layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")]
    assert activations == ["relu"] * (len(activations) - 1) + ["softmax"]


def test_documented_values_are_frozen(name: str) -> None:
    documented = baselines.load(name).DOCUMENTED
    with pytest.raises(dataclasses.FrozenInstanceError):
        documented.dropout = 0.5


def test_cost_counts_the_documented_parameters(name: str) -> None:
    architecture = baselines.load(name)
    assert architecture.cost(architecture.DOCUMENTED).num_params == TOTALS[name]


CNN_FAMILY = {
    "stages": st.integers(2, 3),
    "stage_convs": st.integers(1, 3),
    "stage_end": st.sampled_from(("max_pool", "average_pool", "stride")),
    "padding": st.sampled_from(("same", "valid")),
    "head": st.sampled_from(("dense", "global_average")),
    "batch_norm": st.booleans(),
    "kernel_1": st.integers(1, 28),
    "kernel_2": st.integers(1, 14),
    "kernel_3": st.integers(1, 7),
    "inner_kernel": st.integers(1, 7),
    "stride_kernel": st.integers(2, 7),
    "conv_dropout": st.sampled_from((0.0, 0.3)),
    "dropout": st.sampled_from((0.0, 0.3)),
    **{f"filters_{number}": st.integers(1, 4) for number in (1, 2, 3)},
    "dense_units": st.integers(1, 8),
}


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries(CNN_FAMILY))
def test_the_cost_of_a_convolutional_network_is_that_of_its_layers(changes: dict[str, object]) -> None:
    config = dataclasses.replace(baselines.load("cnn").DOCUMENTED, **changes)
    model, cost = build("cnn", **changes), baselines.load("cnn").cost(config)
    assert cost.num_params == model.count_params()
    flops = activations = 0
    for layer in model.layers:
        num_outputs = math.prod(layer.output.shape[1:])
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            num_positions = num_outputs // layer.output.shape[-1]
            flops += 2 * num_positions * math.prod(layer.kernel.shape)
        if isinstance(layer, keras.layers.Conv2D | keras.layers.BatchNormalization) or layer.name == "dense":
            activations += num_outputs
    assert (cost.flops_per_image, cost.activations_per_image) == (flops, activations + 10)


def test_a_published_stack_is_in_the_family() -> None:
    """Two stages of 3x3, 3x3 and 5x5 with stride 2 (cdeotte/MNIST-CNN-99.75)."""
    model = build(
        "cnn", kernel_1=3, kernel_2=3, stage_convs=2, stage_end="stride", padding="valid", batch_norm=True,
        dense_units=128,
    )  # fmt: skip
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [(conv.kernel_size, conv.strides, conv.padding) for conv in convs] == [
        ((3, 3), (1, 1), "valid"), ((3, 3), (1, 1), "valid"), ((5, 5), (2, 2), "same")
    ] * 2  # fmt: skip
    assert [conv.output.shape[1] for conv in convs] == [26, 24, 12, 10, 8, 4]
    assert model.count_params() == 327_242


@pytest.mark.parametrize(
    "changes",
    [{"batch_norm": True}, {"dropout": 0.3}],
)
def test_cost_counts_the_parameters_of_every_option(name: str, changes: dict[str, object]) -> None:
    architecture = baselines.load(name)
    config = dataclasses.replace(architecture.DOCUMENTED, **changes)
    assert architecture.cost(config).num_params == build(name, **changes).count_params()


def test_options_add_layers_that_act_in_training_only(name: str) -> None:
    model = build(name, batch_norm=True, dropout=0.25)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert "BatchNormalization" in kinds
    assert "Dropout" in kinds
    image = keras.random.uniform((2, 28, 28, 1), seed=1)
    first, second = (keras.ops.convert_to_numpy(model(image, training=False)) for _ in range(2))
    assert (first == second).all()


def ends(allowed: Allowed) -> list[object]:
    """The outermost values that are allowed."""
    if isinstance(allowed, OneOf):
        return list(allowed.options)
    inside = [math.nextafter(allowed.low, math.inf), math.nextafter(allowed.high, -math.inf)]
    return [value for value in (allowed.low, allowed.high, *inside) if value in allowed]


def test_each_setting_says_what_it_may_be(name: str) -> None:
    defaults = dataclasses.asdict(baselines.load(name).DOCUMENTED) | dataclasses.asdict(RECIPE)
    assert list(baselines.allowed(name)) == list(defaults)
    for setting, default in defaults.items():
        allowed = baselines.allowed(name)[setting]
        assert default in allowed
        assert len(ends(allowed)) >= 2
        kind = {int: Whole, float: Real}.get(type(default), OneOf)
        assert type(allowed) is kind
        for wrong in (None, "1", [default], math.nan, math.inf, -math.inf, -1, 10**400, -(10**400)):
            assert wrong not in allowed
        assert (True in allowed) == (setting == "batch_norm")


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "text"),
    [
        (Whole(1, 3), [1, 2, 3], [0, 4, 2.0, True, "2"], "whole numbers 1 to 3"),
        (Whole(1, 3, "as many as there are"), [3], [4], "whole numbers 1 to 3, as many as there are"),
        (Real(0, 1), [0, 1, 0.5], [-0.1, 1.1, True], "numbers 0 to 1"),
        (Real(0, 1, is_below_high=True), [0, 0.999], [1, 1.0], "numbers 0 to below 1"),
        (Real(0, 1, is_above_low=True), [1e-300, 1], [0, 0.0, False], "numbers above 0 to 1"),
        (OneOf(("a", "b")), ["a"], ["c", 0], "a, b"),
        (YES_OR_NO, [True, False], [0, 1, "true"], "true, false"),
    ],
)
def test_what_is_allowed(allowed: Allowed, inside: list[object], outside: list[object], text: str) -> None:
    assert [value in allowed for value in inside] == [True] * len(inside)
    assert [value in allowed for value in outside] == [False] * len(outside)
    assert str(allowed) == text


def test_a_network_can_be_whatever_is_allowed(name: str) -> None:
    """Built as it is recorded, with as many parameters as are counted, and trained forward."""
    architecture = baselines.load(name)
    small = {"units_1": 8, "units_2": 8, "units_3": 8, "dense_units": 8, "filters_1": 2, "filters_2": 2}
    small = {setting: value for setting, value in small.items() if hasattr(architecture.DOCUMENTED, setting)}
    images = keras.random.uniform((2, 28, 28, 1), seed=1)
    for setting in dataclasses.asdict(architecture.DOCUMENTED):
        for value in ends(baselines.allowed(name)[setting]):
            config = dataclasses.replace(architecture.DOCUMENTED, **{**small, setting: value})
            model = architecture.build(config)
            assert model.count_params() == architecture.cost(config).num_params
            assert bool(keras.ops.all(keras.ops.isfinite(model(images, training=True)))), (setting, value)
            keras.backend.clear_session()


def test_no_network_has_more_parameters_than_31_bits_can_count(name: str) -> None:
    allowed = {setting: one for setting, one in baselines.allowed(name).items() if isinstance(one, Whole)}
    architecture = baselines.load(name)
    fields = dataclasses.asdict(architecture.DOCUMENTED)
    largest = {setting: one.high for setting, one in allowed.items() if setting in fields} | {"batch_norm": True}
    assert architecture.cost(architecture.Config(**largest)).num_params < 2**31


def test_each_has_a_sweep_of_its_name_around_it(name: str) -> None:
    """`harness baseline NAME` trains it by that file's profiles."""
    assert read_sweep_file(sweeps_folder() / f"{name}.toml").baseline == name


def test_the_command_offers_each_by_name(name: str) -> None:
    assert _parsed(["baseline", name]).baseline == name


def test_unknown_baseline_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'resnet'; allowed: " + ", ".join(baselines.NAMES)):
        baselines.load("resnet")


def test_schedule_rises_to_its_peak_and_ends_at_zero() -> None:
    rate = optimizer(RECIPE, num_steps=100)._learning_rate
    values = [float(rate(step)) for step in range(101)]
    assert values[0] == 0.0
    assert max(values) == pytest.approx(RECIPE.learning_rate, rel=1e-6)
    assert values.index(max(values)) == 10
    assert values[100] == pytest.approx(0.0, abs=1e-9)


def test_constant_and_cosine_schedules() -> None:
    assert float(optimizer(Recipe(schedule="constant"), 100).learning_rate) == pytest.approx(RECIPE.learning_rate)
    cosine = optimizer(Recipe(schedule="cosine"), 100)._learning_rate
    assert float(cosine(0)) == pytest.approx(RECIPE.learning_rate)
    assert float(cosine(50)) == pytest.approx(RECIPE.learning_rate / 2)
    assert float(cosine(100)) == pytest.approx(0.0, abs=1e-9)


def test_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="'step'; allowed: warmup_cosine, cosine, constant"):
        optimizer(Recipe(schedule="step"), 100)
