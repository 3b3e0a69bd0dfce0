"""Networks and data of users' own: the example of docs/own-network.md from end to end, checks, and whose code runs."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filled_ledger import FilledLedger
from numpy.typing import NDArray
from PIL import Image

import baselines
from baselines.layers import MNIST, Task
from harness import (
    InputError,
    TroubleError,
    export_study,
    import_study,
    leaderboard,
    load_sweep,
    run_sweep,
    status,
    verdict,
)
from harness.execution.base import Place
from harness.execution.data import cache
from harness.execution.messages import Command, Setup, read_command, to_line
from harness.ledger.ledger import Ledger
from harness.study import network as networks
from harness.study.network import read_network, required_code, required_source
from harness.study.own_data import read_data
from harness.study.records import Role
from harness.study.spec import SweepSpec
from harness.support.home import project_root
from harness.workflows.predict import predict

EXAMPLES = project_root() / "docs" / "examples"
PLAIN = (EXAMPLES / "strided.py").read_text()

Arrays = dict[str, NDArray[Any]]


def shapes(num_train: int = 180, num_test: int = 30) -> Arrays:
    """Few pictures of the example's data."""
    made = importlib.util.spec_from_file_location("make_shapes", EXAMPLES / "make_shapes.py")
    assert made is not None and made.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    rng = np.random.default_rng(0)
    (x_train, y_train), (x_test, y_test) = module.pictures(num_train, rng), module.pictures(num_test, rng)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep file of the example, with its network and few data beside it."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("strided.py", "strided.toml"):
        shutil.copy(EXAMPLES / name, folder)
    np.savez(folder / "shapes.npz", **shapes())  # type: ignore[arg-type] # its option is not among the names
    return folder / "strided.toml"


def load(sweep: Path) -> SweepSpec:
    return load_sweep(sweep, trials=1, precision="float32")


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process, which has run no file yet."""
    monkeypatch.setattr(networks, "_CODE", networks._Code())


def test_the_example_from_sweep_to_prediction(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, spec = tmp_path / "home", load(example)
    assert (spec.task, dict(spec.sizes)) == (Task((24, 32, 3), 3), {"train": 150, "validation": 30, "test": 30})
    run_sweep(spec, workers=1, quiet=True)
    with closing(Ledger(home / "ledger.db")) as ledger:
        origin = ledger.study(spec.study).provenance
    assert spec.network is not None
    assert origin["network_sha256"] == spec.network.sha256
    assert origin["network_file"] == str(example.with_name("strided.py"))
    assert origin["data_file"] == str(example.with_name("shapes.npz"))
    board = leaderboard(spec)
    assert set(board["dataset"]) == {spec.dataset}
    assert board["flops_per_image"].min() > 0
    assert verdict(spec, top=1, seeds=3, epochs=1, workers=1, quiet=True).test_images == 30
    Image.fromarray(shapes()["x_test"][0]).save(tmp_path / "picture.png")
    model, (answer,) = predict(home, "champion", [tmp_path / "picture.png"])
    assert model.name == f"{spec.dataset}-{spec.baseline}"
    assert len(answer.probabilities) == 3

    # Another home, which has run nothing: the study is read, and its code is not there.
    export_study(spec, tmp_path / "theirs.study.gz")
    forget(monkeypatch)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "other"))
    import_study(tmp_path / "theirs.study.gz")
    read = leaderboard(spec.study)
    assert list(read["error_rate_pct"]) == list(board["error_rate_pct"])
    assert read["flops_per_image"].isna().all()
    assert read["run_id"].notna().all(), "MLflow shows it without the code"
    with pytest.raises(TroubleError, match=r"strided-\w+ was never run in this home.* run the sweep file that names"):
        verdict(spec.study, top=1, seeds=3, epochs=1, workers=1, fresh=True, quiet=True)

    # It goes on with the files beside the sweep, and an edited file is another network.
    run_sweep(load_sweep(example, trials=1, precision="float32"), workers=1, quiet=True)
    assert leaderboard(spec.study)["flops_per_image"].notna().all()
    example.with_name("strided.py").write_text(PLAIN + "# edited\n")
    with pytest.raises(InputError, match=r"started with other settings \(baseline strided-\w+, now strided-\w+\)"):
        run_sweep(load(example), workers=1, quiet=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("DOCUMENTED = Config()", "", "it has no DOCUMENTED; needed: Config, DOCUMENTED, NUM_PARAMS, build, cost"),
        ("    dropout: Dropped = 0.0\n", "", "Config has no dropout; needed: dropout, batch_norm, augment_shift"),
        ("DOCUMENTED = Config()", "DOCUMENTED = 3", "DOCUMENTED is a int; allowed: an instance of Config"),
        ("NUM_PARAMS = 5_322", "NUM_PARAMS = 5", "NUM_PARAMS is 5, and cost"),
        ("Annotated[int, Whole(1, 4)] = 2", "int = 2", "Config.convs does not say which values it allows"),
        ("Whole(1, 4)] = 2", "Whole(1, 4)] = 5", "DOCUMENTED.convs is 5; allowed by Config: whole numbers 1 to 4"),
        (
            "    dropout: Dropped",
            "    schedule: Dropped = 0.0\n    dropout: Dropped",
            "Config has schedule; allowed: names",
        ),
        ("KERNEL = 3", "KERNEL = 1 / 0", ", line 34: ZeroDivisionError: division by zero"),
        ("KERNEL = 3", "KERNEL = (", ", line 34: '(' was never closed"),
        ("import math", "import no_such_module", ", line 13: ModuleNotFoundError: No module named 'no_such_module'"),
        ("KERNEL = 3", "raise SystemExit", ", line 34: SystemExit"),
        ("total = Cost(0, 0, 0)", "return 7", "cost() gives a int; allowed: a Cost of baselines.layers"),
        ("GPU", "GPU", None),
    ],
)
def test_a_wrong_file_gets_one_line(tmp_path: Path, old: str, new: str, said: str | None) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLAIN.replace(old, new))
    if said is None:
        assert read_network(file).documented["convs"] == 2
        return
    with pytest.raises(InputError) as raised:
        read_network(file)
    message = str(raised.value)
    assert message.startswith(str(file))
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("need", "said"),
    [
        ("Needs('filter', (16,))", "Config.convs needs 'filter'; allowed: another setting of Config, or one of the"),
        ("Needs('convs', (1,))", "Config.convs needs 'convs'; allowed: another setting"),
        (
            "Needs('filters', (0, 16))",
            "Config.convs needs filters to be one of (0, 16); allowed: a tuple of its values",
        ),
        ("Needs('filters', 16)", "Config.convs needs filters to be one of 16; allowed: a tuple"),
        ("Needs('filters', ())", "Config.convs needs filters to be one of (); allowed: a tuple"),
        ("Needs('schedule', 'constant')", "Config.convs needs schedule to be one of 'constant'; allowed: a tuple"),
        ("Needs('schedule', ('constant',))", None),
        ("Needs('filters', (16, 32))", None),
    ],
)
def test_what_a_setting_needs_is_checked_with_its_file(tmp_path: Path, need: str, said: str | None) -> None:
    file = tmp_path / "mine.py"
    text = PLAIN.replace("import Whole", "import Needs, Whole").replace("Whole(1, 4)] = 2", f"Whole(1, 4), {need}] = 2")
    assert need in text
    file.write_text(text)
    if said is None:
        assert read_network(file).documented["convs"] == 2
        return
    with pytest.raises(InputError) as raised:
        read_network(file)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.py': No such file or directory; allowed: a Python file"):
        read_network(tmp_path / "no.py")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"which is no text in UTF-8"):
        read_network(tmp_path / "binary.py")
    (tmp_path / "a b.py").write_text(PLAIN)
    with pytest.raises(InputError, match=r"name is 'a b'; allowed: 1 to 32 letters"):
        read_network(tmp_path / "a b.py")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("task.num_classes, activation", "10, activation", r"takes and gives \(\(None, 24, 32, 3\), \(None, 10\)\)"),
        (
            "width, KERNEL, strides",
            "width + 1, KERNEL, strides",
            r"what build\(\) made has .* parameters; allowed: .*as cost",
        ),
        ("    body = []", "    body = [nothing]", r"strided\.py, line 6\d: NameError: name 'nothing' is not defined"),
    ],
)
def test_a_network_is_built_before_its_study_is_stored(
    example: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    example.with_name("strided.py").write_text(PLAIN.replace(old, new))
    with pytest.raises(InputError, match=said):
        run_sweep(load(example), workers=1, quiet=True)
    assert not (tmp_path / "home" / "ledger.db").exists()


def test_a_study_does_not_lead_to_a_file_that_was_not_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, mark = tmp_path / "mine.py", tmp_path / "it ran"
    file.write_text(f"{PLAIN}\nopen({str(mark)!r}, 'w').close()\n")
    network = read_network(file)
    mark.unlink()
    forget(monkeypatch)
    assert not networks.has_code(network)
    # A file of this name with another content is not what was run.
    (tmp_path / networks.FOLDER).mkdir()
    (tmp_path / networks.FOLDER / f"{network.sha256}.py").write_text(f"open({str(mark)!r}, 'w').close()")
    networks.look_in(tmp_path)
    assert not networks.has_code(network)
    assert not mark.exists()


def test_a_home_knows_what_was_run_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = read_network(EXAMPLES / "strided.py")
    networks.keep(network, tmp_path)
    forget(monkeypatch)
    networks.look_in(tmp_path)
    found = networks.required_code(network)
    assert found.NUM_PARAMS == 5_322
    assert found.GPU_STEP_S == baselines.USUAL_GPU_STEP_S


def test_a_study_is_shown_although_its_network_no_longer_runs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that it imports was removed since."""
    marks = [tmp_path / "package", tmp_path / "runs"]
    marks[0].touch()
    file = example.with_name("strided.py")
    file.write_text(
        f"{PLAIN}\nwith open({str(marks[1])!r}, 'a') as runs:\n    runs.write('.')\nopen({str(marks[0])!r}).close()\n"
    )
    spec = load(example)
    assert spec.network is not None
    home = tmp_path / "home"
    with closing(Ledger(home / "ledger.db")) as ledger:
        networks.keep(spec.network, home)
        FilledLedger(ledger, spec).add(5.0, params=spec.baseline_params, role=Role.BASELINE)
    marks[0].unlink()
    forget(monkeypatch)
    networks.look_in(home)
    board = leaderboard(spec.study)
    assert board["error_rate_pct"].tolist() == [5.0]
    assert board["flops_per_image"].isna().all()
    assert [one.done for one in status()] == [1]
    with pytest.raises(TroubleError, match=f"{spec.network.sha256}.py, line .*FileNotFoundError"):
        required_code(spec.network)
    marks[0].touch()
    ran = marks[1].read_text()
    assert not networks.has_code(spec.network)
    assert marks[1].read_text() == ran, "what failed is not run again for each trial"
    assert required_code(spec.network).NUM_PARAMS == 5_322
    assert networks.has_code(spec.network)


def test_workers_get_the_content(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load(example)
    assert spec.network is not None
    setup = Setup(spec, Place("w", "cpu", 1, 1), Path("data"), "code", required_source(spec.network))
    received = read_command(to_line(Command(setup=setup))).setup
    assert received == setup
    forget(monkeypatch)
    assert received is not None and received.network is not None  # noqa: PT018
    networks.permit(received.network)
    assert received.spec.cost(spec.baseline_params).num_params == spec.cost(spec.baseline_params).num_params


def changed(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: change(arrays[name])}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays: {k: v for k, v in arrays.items() if k != "y_test"}, "it has no y_test; needed: x_train"),
        (changed("x_train", lambda x: x[..., 0]), "allowed: images of one shape and type"),
        (changed("x_train", lambda x: x.astype(np.int32)), "x_train is int32; allowed: uint8"),
        (changed("x_train", lambda x: x.reshape(len(x), -1)), r"x_train has shape \(180, 2304\); allowed: "),
        (changed("x_train", lambda x: x / 0.0), "x_train has values that are not finite"),
        (changed("y_train", lambda y: y[1:]), r"y_train is int64 \(179,\); allowed: integers \(180,\)"),
        (changed("y_train", lambda y: y / 1.0), r"y_train is float64 \(180,\); allowed: integers"),
        (changed("y_train", lambda y: y - 1), "labels are -1 to 2; allowed: from 0"),
        (changed("y_test", lambda y: y + 1), "y_train has 0 images of class 3; allowed: at least 6 of each"),
    ],
)
def test_wrong_data_get_one_line(tmp_path: Path, change: Callable[[Arrays], Arrays], said: str) -> None:
    file = tmp_path / "mine.npz"
    with np.errstate(all="ignore"):
        np.savez(file, **change(shapes()))  # type: ignore[arg-type] # see above
    with pytest.raises(InputError, match=said) as raised:
        read_data(file)
    assert str(raised.value).startswith(f"{file}: ")


def test_other_wrong_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.npz': No such file or directory; allowed: an \.npz file"):
        read_data(tmp_path / "no.npz")
    (tmp_path / "text.npz").write_text("no archive")
    what = r"which is cut off, damaged or something else \(.*\); allowed: an \.npz file with x_train, y_train, x_test, "
    with pytest.raises(InputError, match=rf"^dataset is '.*/text\.npz', {what}"):
        read_data(tmp_path / "text.npz")
    np.savez(tmp_path / "whole.npz", **shapes())  # type: ignore[arg-type] # see above
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bad.npz").write_bytes(whole[:500] + bytes(100) + whole[600:])
    for name in ("cut", "bad"):
        with pytest.raises(InputError, match=rf"^dataset is '.*/{name}\.npz', {what}"):
            read_data(tmp_path / f"{name}.npz")
    pickled = shapes() | {"x_train": np.array([{}], object)}
    np.savez(tmp_path / "pickled.npz", **pickled)  # type: ignore[arg-type] # see above
    with pytest.raises(InputError, match="allow_pickle=False"):
        read_data(tmp_path / "pickled.npz")


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_data_are_kept_as_they_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[np.generic]
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    grey = {name: array[..., :1] if name[0] == "x" else array for name, array in shapes().items()}
    grey |= {name: grey[name].astype(kind) for name in ("x_train", "x_test")}
    np.savez(tmp_path / "grey.npz", **grey)  # type: ignore[arg-type] # see above
    data = read_data(tmp_path / "grey.npz")
    assert data.facts.task == Task((24, 32, 1), 3)
    folder = cache.prepare(data, lambda line: None)
    images, labels = cache.load(data, "test", folder)
    assert images.dtype == (np.uint8 if kind is np.uint8 else np.float32)
    np.testing.assert_array_equal(images, grey["x_test"][..., 0])
    np.testing.assert_array_equal(labels, grey["y_test"])
    assert len(cache.data_digest(data)) <= 36  # MLflow's limit
    # The cache is enough, and only right contents are taken.
    (tmp_path / "grey.npz").unlink()
    assert cache.prepare(data, lambda line: None) == folder
    (folder / "train_images.npy").write_bytes(b"")
    with pytest.raises(TroubleError, match=r"Run the sweep file that names grey\.npz"):
        cache.prepare(data, lambda line: None)


def test_mnist_in_a_file_is_split_as_the_built_in_one(tmp_path: Path) -> None:
    labels = (np.arange(600) % 10).astype(np.uint8)
    images = np.zeros((600, 28, 28), np.uint8)
    np.savez(tmp_path / "m.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    data = read_data(tmp_path / "m.npz")
    assert data.facts.task == MNIST
    assert dict(data.facts.sizes) == {"train": 500, "validation": 100, "test": 600}


@pytest.mark.parametrize("name", baselines.NAMES)
@pytest.mark.parametrize("task", [Task((24, 32, 3), 3), Task((7, 5, 1), 300)])
def test_the_built_in_networks_are_built_for_other_images(name: str, task: Task) -> None:
    architecture = baselines.load(name)
    small = {
        key: 8 for key in ("units_1", "units_2", "dense_units", "filters_1") if hasattr(architecture.DOCUMENTED, key)
    }
    for padding in ("same", "valid"):
        more = {"padding": padding, "stages": 3} if name == "cnn" else {}
        config = replace(architecture.DOCUMENTED, **small, **more)
        model = architecture.build(config, task)
        assert (model.input_shape, model.output_shape) == ((None, *task.shape), (None, task.num_classes))
        assert model.count_params() == architecture.cost(config, task).num_params


def test_the_built_in_networks_have_the_interface_of_own_ones() -> None:
    for name in baselines.NAMES:
        assert baselines.check(baselines.load(name)) is baselines.load(name)
