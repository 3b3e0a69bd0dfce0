"""Engines differ in speed only."""

from collections.abc import Callable

import keras
import numpy as np
import pytest

import baselines
from baselines.recipe import RECIPE, Recipe, compile_model
from harness.execution.training import engine_base
from harness.execution.training.engine_base import Images
from harness.execution.training.engines import CompiledEpochs, KerasFit
from harness.execution.training.kernels import fast_kernels

BATCH = 32
STEPS = 8
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (300, 28, 28), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 300).astype(np.uint8)
ORDER = RNG.permutation(300)[: STEPS * BATCH].astype(np.int32).reshape(STEPS, BATCH)
CONFIGS = [
    ("fc", {"units_1": 32, "units_2": 16, "batch_norm": True}),
    ("cnn", {"filters_1": 4, "filters_2": 4, "dense_units": 16}),
]


def model(name: str, params: dict[str, object], recipe: Recipe = RECIPE) -> keras.Model:
    keras.utils.set_random_seed(3)
    architecture = baselines.load(name)
    model = architecture.build(type(architecture.DOCUMENTED)(**params))
    compile_model(model, recipe, 2 * STEPS)
    return model


def compiled(
    model: keras.Model, *, xla: bool = False, augments: bool = False, pictures: engine_base.Pixels = PICTURES
) -> CompiledEpochs:
    held = engine_base.hold(pictures, LABELS)
    return CompiledEpochs(model, held, held, BATCH, augments=augments, xla=xla)


def fit(model: keras.Model, *, augments: bool = False, pictures: engine_base.Pixels = PICTURES) -> KerasFit:
    return KerasFit(model, Images(pictures, LABELS, len(pictures)), BATCH)


def assert_same_weights(ours: keras.Model, theirs: keras.Model, *, rtol: float, atol: float) -> None:
    """Compares all variables except biases before a normalisation.

    These have no gradient, so that Adam steps in a random direction of rounding errors.
    """
    normalised = {layer.name.removesuffix("_norm") for layer in ours.layers if layer.name.endswith("_norm")}
    random = {f"{ours.name}/{name}/bias" for name in normalised}
    assert random <= {each.path for each in ours.variables}
    for one, other in zip(ours.variables, theirs.variables, strict=True):
        if one.path not in random:
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=rtol, atol=atol, err_msg=one.path)


def values(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable).copy() for variable in (*model.variables, *model.optimizer.variables)]


@pytest.mark.parametrize(("name", "params"), CONFIGS)
@pytest.mark.parametrize("make", [compiled, fit])
def test_making_an_engine_leaves_the_model_as_it_is(make: Callable, name: str, params: dict[str, object]) -> None:
    subject = model(name, params)
    before = values(subject)
    make(subject)
    for one, other in zip(before, values(subject), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("name", "params"), CONFIGS)
def test_a_compiled_epoch_is_an_epoch_of_keras(name: str, params: dict[str, object]) -> None:
    ours, theirs = model(name, params), model(name, params)
    ours_engine, theirs_engine = compiled(ours), fit(theirs)
    for _ in range(2):
        assert ours_engine.train(ORDER) == pytest.approx(theirs_engine.train(ORDER), rel=1e-4)
    assert_same_weights(ours, theirs, rtol=0.02, atol=2e-4)
    assert int(ours.optimizer.iterations) == 2 * STEPS


@pytest.mark.parametrize(("name", "params"), CONFIGS[1:])
def test_training_counts_the_images_that_were_wrong_before_their_step(name: str, params: dict[str, object]) -> None:
    subject = model(name, params)
    engine = compiled(subject)
    wrong = []
    for positions in ORDER:
        predicted = subject.predict(PICTURES[positions][..., np.newaxis] / np.float32(255), verbose=0)
        wrong.append(int((predicted.argmax(-1) != LABELS[positions]).sum()))
        engine.train(positions[np.newaxis])
        assert engine.num_wrong == wrong[-1]
    whole = compiled(model(name, params))
    whole.train(ORDER)
    assert whole.num_wrong == sum(wrong)


@pytest.mark.parametrize("recipe", [Recipe(weight_decay=0.5), Recipe(label_smoothing=0.2)])
def test_an_option_of_the_recipe_is_that_of_keras(recipe: Recipe) -> None:
    name, params = CONFIGS[1]
    plain, ours, theirs = model(name, params), model(name, params, recipe), model(name, params, recipe)
    assert compiled(ours).train(ORDER) == pytest.approx(fit(theirs).train(ORDER), rel=1e-4)
    assert_same_weights(ours, theirs, rtol=0.02, atol=2e-4)
    compiled(plain).train(ORDER)
    kernels = [keras.ops.convert_to_numpy(each.get_layer("conv_2").kernel) for each in (plain, ours)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


@pytest.mark.parametrize("num_images", [1, 200, 300])
def test_predictions_are_those_of_the_model(num_images: int) -> None:
    subject = model(*CONFIGS[0])
    expected = subject.predict(PICTURES[:num_images, ..., np.newaxis] / np.float32(255), verbose=0)
    held = engine_base.hold(PICTURES, LABELS)
    for engine, images in ((compiled(subject), held), (fit(subject), Images(PICTURES, LABELS, 300))):
        found = engine.predict(images, num_images)
        assert found.shape == (num_images, 10)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_all_shapes_are_compiled_before_the_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA compiles for one shape only, and what it compiles within an epoch would count as training."""
    run, shapes = CompiledEpochs._run, []

    def watched(function: object, *data: np.ndarray, count: int) -> np.ndarray:
        found = run(function, *data, count=count)
        shapes.append((id(function), *(tuple(each.shape) for each in data), found.shape))
        return found

    monkeypatch.setattr(CompiledEpochs, "_run", staticmethod(watched))
    train, validation = engine_base.hold(PICTURES[:256], LABELS[:256]), engine_base.hold(PICTURES[:40], LABELS[:40])
    engine = CompiledEpochs(model(*CONFIGS[0]), train, validation, BATCH, xla=False)
    compiled_shapes = set(shapes)
    engine.train(ORDER)
    engine.predict(validation, 20)
    engine.predict(validation, 40)
    assert (len(shapes), set(shapes)) == (5, compiled_shapes)


def test_xla_is_used_where_all_layers_can_be_compiled() -> None:
    plain = compiled(model(*CONFIGS[0]), xla=True)
    assert plain.name == "compiled+xla"
    assert plain.train(ORDER) == pytest.approx(compiled(model(*CONFIGS[0])).train(ORDER), rel=1e-3)
    assert compiled(model(*CONFIGS[0]), xla=True, augments=True).name == "compiled"


@pytest.mark.parametrize("batch_norm", [False, True])
def test_layers_in_fast_kernels_predict_as_keras_does(batch_norm: bool) -> None:
    subject = model("cnn", {**CONFIGS[1][1], "batch_norm": batch_norm, "dropout": 0.5, "conv_dropout": 0.3})
    layers = [dict(vars(layer)) for layer in subject.layers]
    engine = compiled(subject)
    engine.train(ORDER)
    expected = subject.predict(PICTURES[..., np.newaxis] / np.float32(255), verbose=0)
    np.testing.assert_allclose(engine.predict(engine_base.hold(PICTURES, LABELS), 300), expected, atol=1e-5)
    for layer, before in zip(subject.layers, layers, strict=True):
        assert (vars(layer).get("call"), vars(layer).get("activation")) == (None, before.get("activation"))


@pytest.mark.parametrize("rate", [0.3, 0.5, 1e-6, 1 - 1e-12, 1.0])
def test_dropout_of_the_engine_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    layer = keras.layers.Dropout(rate, seed=1)
    network = keras.Sequential([keras.Input((7, 9, 101)), layer])
    ones = np.ones((20, 7, 9, 101), np.float32)
    with fast_kernels(network):
        first, second = (keras.ops.convert_to_numpy(network(ones, training=True)) for _ in range(2))
        np.testing.assert_array_equal(network(ones, training=False), ones)
    num_values, kept = ones.size, first != 0
    spread = 4 * np.sqrt(rate * (1 - rate) / num_values)
    assert 1 - kept.mean() == pytest.approx(rate, abs=spread + 5e-5)
    np.testing.assert_allclose(first[kept], 1 / max(1 - rate, 2**-16), rtol=1e-4)
    both = (~kept & (second == 0)).mean()
    assert both == pytest.approx(rate**2, abs=4 * np.sqrt(rate**2 / num_values) + 1e-4), "new numbers at each step"
    by_channel = 1 - kept.mean(axis=(0, 1, 2))
    assert np.abs(by_channel - rate).max() < 5 * np.sqrt(rate * (1 - rate) / (num_values / 101)) + 1e-3


def test_normalisation_in_one_kernel_is_that_of_keras() -> None:
    ours, theirs = (model("cnn", {**dict(CONFIGS[1][1]), "batch_norm": True}) for _ in range(2))
    one_step = ORDER[:1]
    assert compiled(ours).train(one_step) == pytest.approx(fit(theirs).train(one_step), rel=1e-6)
    assert any("moving_variance" in each.path for each in ours.variables)
    assert_same_weights(ours, theirs, rtol=1e-4, atol=1e-5)
    assert {type(layer) for layer in ours.layers} == {type(layer) for layer in theirs.layers}
    assert all("call" not in vars(layer) for layer in ours.layers), "the layers stay Keras's own"


@pytest.mark.parametrize(
    ("shape", "dtype", "is_fused"),
    [
        ((8, 8, 32), "mixed_bfloat16", True),
        ((8, 8, 24), "mixed_bfloat16", False),
        ((8, 8, 24), "float32", True),
        ((32,), "mixed_bfloat16", False),
        ((32,), "float32", False),
    ],
)
def test_normalisation_is_one_kernel_where_that_is_faster(shape: tuple[int, ...], dtype: str, is_fused: bool) -> None:
    layer = keras.layers.BatchNormalization(dtype=dtype)
    with fast_kernels(keras.Sequential([keras.Input(shape), layer])):
        assert ("call" in vars(layer)) is is_fused


@pytest.mark.parametrize("make", [compiled, fit])
def test_each_image_is_moved_by_its_transform(make: Callable) -> None:
    """An image that is moved by whole pixels trains as the image that lies there."""
    moved, plain = model(*CONFIGS[1]), model(*CONFIGS[1])
    right_2 = np.tile(np.array([1, 0, -2, 0, 1, 0, 0, 0], np.float32), (*ORDER.shape, 1))
    there = np.pad(PICTURES, ((0, 0), (0, 0), (2, 0)))[:, :, :-2]
    loss = make(moved, augments=True).train(ORDER, right_2)
    assert loss == pytest.approx(make(plain, pictures=there).train(ORDER), rel=1e-5)
    assert loss != pytest.approx(make(model(*CONFIGS[1])).train(ORDER), rel=1e-5)
