"""A network with weights goes on learning: other classes, frozen layers, and a run that anybody can load again."""

import json
import signal

import numpy as np
import pytest
from flax import nnx
from PIL import Image

import cnnlab
from cnnlab.layers import Standardized
from cnnlab.models.registry import REGISTRY, register_model
from cnnlab.training import Callback, Recipe, RecipeError, RunFolderError

RECIPE = Recipe(name="short", epochs=2, batch_size=8, learning_rate=0.05, target_accuracy=2.0)
FREEZE = RECIPE.replace(freeze=["body", "norm"])


class Tiny(nnx.Module):
    """Compiles in a moment; batch statistics included."""

    def __init__(self, num_classes, in_channels, image_size, rngs):
        self.body = nnx.Linear(image_size * image_size * in_channels, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.head = nnx.Linear(6, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.head(nnx.relu(self.norm(self.body(images.reshape(images.shape[0], -1)))))


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with REGISTRY.temporarily():

        @register_model
        def tiny(num_classes: int = 10, *, in_channels: int = 3, image_size: int = 32, rngs: nnx.Rngs):
            return Tiny(num_classes, in_channels, image_size, rngs)

        yield


def images(n, classes, seed):
    """Images whose label shows in their brightness, on a background of their own set."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return (labels[:, None, None, None] * 40 + rng.integers(0, 40 + 20 * seed, (n, 4, 4, 1))).astype(np.uint8), labels


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run on three classes, standardised."""
    data = cnnlab.dataset_from_arrays(*images(32, 3, 0), *images(9, 3, 1))
    out = tmp_path_factory.mktemp("runs") / "source"
    cnnlab.fit("tiny", data, RECIPE.replace(standardize=True), out=out, progress=False)
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The name of a data set: a folder of PNG files of two classes."""
    root = tmp_path_factory.mktemp("photos")
    for i, (image, label) in enumerate(zip(*images(40, 2, 2), strict=True)):
        place = root / ("dark", "light")[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{i}.png")
    return f"folder:{root}?channels=1"


@pytest.fixture(scope="module")
def tuned(source, photos, tmp_path_factory):
    network = cnnlab.replace_head(cnnlab.load(source), 2)
    out = tmp_path_factory.mktemp("runs") / "tuned"
    return cnnlab.fit(network, photos, FREEZE.replace(held_out=0.25), out=out, progress=False)


def arrays(model):
    flat = nnx.to_flat_state(nnx.state(model))
    return {".".join(map(str, path)).removeprefix("network."): np.asarray(value[...]) for path, value in flat}


def test_the_frozen_layers_are_those_of_the_source_and_the_head_has_learnt(source, tuned):
    before, after = arrays(cnnlab.load(source)), arrays(tuned.last.model)
    same = {name for name in before if before[name].tobytes() == after[name].tobytes()}
    assert same == set(before) - {"head.kernel", "head.bias"} and "norm.mean" in same
    start = arrays(cnnlab.replace_head(cnnlab.load(source), 2))
    assert not np.array_equal(start["head.kernel"], after["head.kernel"])


def test_a_fine_tuned_run_loads_by_its_folder_alone_and_knows_its_own_classes(tuned):
    model = cnnlab.load(tuned.folder)
    assert isinstance(model, Standardized) and model.classes == ("dark", "light") and model.image_shape == (4, 4, 1)
    for name, value in arrays(tuned.best).items():
        np.testing.assert_array_equal(arrays(model)[name], value)
    (prediction,) = cnnlab.predict(model, np.zeros((1, 4, 4, 1), np.uint8), top_k=2)
    assert set(prediction.labels) == {"dark", "light"}
    record = json.loads((tuned.folder / "recipe.json").read_text())
    assert record["model"]["name"] == "tiny" and record["model"]["has_weights"] is True
    assert record["model"]["options"] == {"num_classes": 2, "in_channels": 1, "image_size": 4}
    assert record["recipe"]["freeze"] == ["body", "norm"]


def test_a_share_is_held_out_of_the_training_images(tuned):
    record = json.loads((tuned.folder / "recipe.json").read_text())["dataset"]
    assert (record["train_images"], record["held_out_images"], record["test_images"]) == (27, 9, 4)
    assert json.loads((tuned.folder / "result.json").read_text())["protocol"] == "held-out"


@pytest.mark.parametrize("standardize", [False, True])
def test_a_network_keeps_its_own_standardisation_and_gets_no_second_one(source, photos, standardize):
    network = cnnlab.replace_head(cnnlab.load(source), 2)
    run = cnnlab.fit(network, photos, FREEZE.replace(epochs=1, standardize=standardize), progress=False)
    assert isinstance(run.best.network, Tiny)
    np.testing.assert_array_equal(run.best.mean[...], network.mean[...])
    np.testing.assert_array_equal(run.best.std[...], network.std[...])


def test_a_network_without_one_is_standardised_by_the_new_images(photos):
    model = cnnlab.create_model("tiny", num_classes=2, in_channels=1, image_size=4)
    run = cnnlab.fit(model, photos, RECIPE.replace(epochs=1, standardize=True), progress=False)
    train = np.asarray(cnnlab.load_dataset(photos).train.images) / 255
    np.testing.assert_allclose(run.best.mean[...], [train.mean()], rtol=1e-6)


def test_a_network_that_was_changed_by_hand_is_not_taken_for_the_registered_one(source, photos, tmp_path):
    network = cnnlab.replace_head(cnnlab.load(source), 2)
    network.network.norm.epsilon = 0.1  # the same arrays, another function
    run = cnnlab.fit(network, photos, FREEZE.replace(epochs=1), out=tmp_path / "run", progress=False)
    with pytest.raises(RunFolderError, match="got a run of an object of class Tiny; do pass model= built like it"):
        cnnlab.load(run.folder)
    again = cnnlab.load(run.folder, model=network)
    for name, value in arrays(run.best).items():
        np.testing.assert_array_equal(arrays(again)[name], value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"num_classes": 10},
            "Expected a network for the 2 classes of .*, got one with 10 outputs; do cnnlab.replace_",
        ),
        ({"image_size": 8}, "Expected a network for images 4x4x1, got one that cannot take them .*; do resize the im"),
        ({"in_channels": 3}, "Expected a network for images 4x4x1, got one that cannot take them"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused_before_a_folder_is_made(photos, tmp_path, options, text):
    model = cnnlab.create_model("tiny", **{"num_classes": 2, "in_channels": 1, "image_size": 4, **options})
    with pytest.raises(ValueError, match=text):
        cnnlab.fit(model, photos, RECIPE, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"freeze": ["bodi"]}, {"learning_rates": {"bodi": 2.0}}])
def test_a_pattern_that_matches_nothing_is_refused_before_a_folder_is_made(photos, tmp_path, changes):
    with pytest.raises(RecipeError, match="to match a parameter, got 'bodi'; did you mean body[?]"):
        cnnlab.fit("tiny", photos, RECIPE.replace(**changes), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


class StopInEpoch(Callback):
    """Press Ctrl-C when so many epochs have ended."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch(self, record):
        if record["epoch"] == self.epoch:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_fine_tuning_resumes_to_the_end_of_an_unbroken_one(source, photos, tmp_path):
    recipe = FREEZE.replace(epochs=3, learning_rates={"head.bias": 0.5})
    unbroken, broken = (
        cnnlab.fit(
            cnnlab.replace_head(cnnlab.load(source), 2),
            photos,
            recipe,
            out=tmp_path / name,
            callbacks=callbacks,
            progress=False,
        )
        for name, callbacks in (("unbroken", []), ("broken", [StopInEpoch(1)]))
    )
    assert broken.interrupted
    resumed = cnnlab.resume(tmp_path / "broken", progress=False)
    for one, other in ((resumed.best, unbroken.best), (resumed.last.model, unbroken.last.model)):
        for name, value in arrays(other).items():
            np.testing.assert_array_equal(arrays(one)[name], value, err_msg=name)


def test_a_fine_tuning_without_a_checkpoint_is_not_begun_again_with_other_weights(tuned, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    for name in ("recipe.json", "environment.json"):
        (folder / name).write_bytes((tuned.folder / name).read_bytes())
    with pytest.raises(RunFolderError, match="the weights that the run began with are not in it; do run"):
        cnnlab.resume(folder, progress=False)
