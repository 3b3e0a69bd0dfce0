"""The documented networks, layer by layer, as the documents have them."""

import dataclasses

import keras
import pytest

import baselines
from baselines.recipe import RECIPE, Recipe, optimizer

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
    assert model.count_params() == TOTALS[name]
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


def test_options_add_layers_that_act_in_training_only(name: str) -> None:
    model = build(name, batch_norm=True, dropout=0.25, augment_shift=0.1, augment_rotation=0.05, augment_zoom=0.1)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds[:3] == ["RandomTranslation", "RandomRotation", "RandomZoom"]
    assert "BatchNormalization" in kinds
    assert "Dropout" in kinds
    image = keras.random.uniform((2, 28, 28, 1), seed=1)
    first, second = (keras.ops.convert_to_numpy(model(image, training=False)) for _ in range(2))
    assert (first == second).all()


def test_unknown_baseline_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'resnet'; allowed: cnn, fc"):
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
