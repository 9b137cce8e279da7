"""fit, load and resume by name, on scikit-learn's digits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.experiment.networks import record_model, with_data_options
from cnnlab.models.registry import REGISTRY
from cnnlab.training import Callback, CheckpointError, Recipe, RecipeError, RunFolderError

pytest.importorskip("sklearn")

DATA = "digits?size=16"
OPTIONS = {"hidden": [32]}
SHORT = Recipe(name="short", epochs=2, batch_size=64, learning_rate=0.05, noise=0.05)


class StopInEpoch(Callback):
    """Asks the run to stop, as Ctrl-C does, when so many epochs have ended."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_epoch(self, record: dict) -> None:
        """Raise the signal of Ctrl-C."""
        if record["epoch"] == self.epoch:
            import signal

            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with held-out images and standardisation."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    recipe = SHORT.replace(held_out=200, standardize=True)
    return cnnlab.fit("lenet", DATA, recipe, model_options=OPTIONS, out=out, progress=False)


def leaves(model: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


def test_a_run_folder_holds_everything_that_the_design_promises(finished):
    names = {path.name for path in finished.folder.iterdir()}
    expected = {"recipe.json", "environment.json", "metrics.jsonl", "result.json", "report.html", "checkpoints"}
    assert expected | {"figures", "per_class.csv", "confusion_matrix.csv"} <= names
    record = json.loads((finished.folder / "recipe.json").read_text())
    assert record["model"]["options"] == {"num_classes": 10, "in_channels": 1, "image_size": 16, "hidden": [32]}
    assert record["dataset"]["train_images"] == 1097 and record["dataset"]["held_out_images"] == 200
    figures = {path.name for path in (finished.folder / "figures").iterdir()}
    assert {"learning_curves.png", "confusion_matrix.png", "per_class.png", "filters.png", "mistakes.png"} <= figures


def test_the_held_out_protocol_reads_the_test_set_only_at_the_end(finished):
    result = json.loads((finished.folder / "result.json").read_text())
    assert result["protocol"] == "held-out"
    assert {record["monitor"] for record in finished.history} == {"validation"}
    assert result["evaluation"]["images"] == finished.evaluation.images == 500


def test_load_gives_back_the_best_network_ready_to_predict(finished):
    model = cnnlab.load(finished.folder)
    for ours, theirs in zip(leaves(model), leaves(finished.best), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    data = cnnlab.load_dataset(DATA)
    assert cnnlab.evaluate(model, data.test).accuracy == finished.evaluation.accuracy
    prediction = cnnlab.predict(model, np.asarray(data.test.images[:1]), top_k=2)[0]
    assert prediction.label in data.classes and len(prediction.probabilities) == 2


def test_standardisation_is_part_of_the_network_and_uses_training_images_only(finished):
    train, _ = cnnlab.load_dataset(DATA).hold_out(200)
    values = train.images.astype(np.float64) / 255
    # Sums of integers against NumPy in double precision; the network keeps float32.
    np.testing.assert_allclose(np.asarray(finished.best.mean[...]), [values.mean()], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(finished.best.std[...]), [values.std()], rtol=1e-6)


@pytest.mark.slow  # tests/training has the same of a small network
def test_an_interrupted_run_resumes_to_the_same_end_as_an_unbroken_one(tmp_path):
    recipe = SHORT.replace(epochs=3, order="shuffled")
    common = {"model_options": OPTIONS, "progress": False, "seed": 3}
    whole = cnnlab.fit("lenet", DATA, recipe, out=tmp_path / "whole", **common)
    broken = cnnlab.fit("lenet", DATA, recipe, out=tmp_path / "broken", callbacks=[StopInEpoch(1)], **common)
    assert broken.interrupted and broken.evaluation is None and len(broken.history) == 1
    assert "cnnlab resume" in (tmp_path / "broken" / "report.html").read_text()
    resumed = cnnlab.resume(tmp_path / "broken", progress=False)
    assert resumed.evaluation.accuracy == whole.evaluation.accuracy
    for ours, theirs in zip(leaves(resumed.last.model), leaves(whole.last.model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    timeless = [
        [{k: v for k, v in record.items() if "second" not in k} for record in run.history] for run in (resumed, whole)
    ]
    assert timeless[0] == timeless[1]


def test_several_seeds_give_a_folder_each_and_a_summary_with_mean_and_deviation(tmp_path):
    runs = cnnlab.fit(
        "lenet",
        DATA,
        SHORT.replace(epochs=1),
        seeds=[1, 5],
        model_options=OPTIONS,
        out=tmp_path / "two",
        progress=False,
    )
    accuracies = [run.evaluation.accuracy for run in runs]
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["seeds"] == [1, 5] and [row["accuracy"] for row in summary["rows"]] == accuracies
    assert summary["accuracy"] == {
        "n": 2,
        "mean": np.mean(accuracies),
        "std": pytest.approx(np.std(accuracies, ddof=1)),
    }
    assert (tmp_path / "two" / "report.html").exists() and (tmp_path / "two" / "seed-5" / "report.html").exists()
    alone = cnnlab.fit("lenet", DATA, SHORT.replace(epochs=1), seed=5, model_options=OPTIONS, progress=False)
    for ours, theirs in zip(leaves(runs[1].best), leaves(alone.best), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_interruption_among_several_seeds_resumes_all_that_were_left(tmp_path):
    out = tmp_path / "seeds"
    common = {"model_options": OPTIONS, "progress": False}
    broken = cnnlab.fit("lenet", DATA, SHORT, seeds=[0, 1], out=out, callbacks=[StopInEpoch(1)], **common)
    assert broken.interrupted and len(broken) == 1
    resumed = cnnlab.resume(out, progress=False)
    assert not resumed.interrupted and [run.seed for run in resumed] == [0, 1]
    assert all(len(run.history) == SHORT.epochs for run in resumed)


def test_a_network_of_ones_own_trains_without_being_registered(tmp_path):
    class Tiny(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(256, 10, rngs=rngs)

        def __call__(self, images):
            return self.linear(images.reshape(images.shape[0], -1))

    run = cnnlab.fit(lambda rngs: Tiny(rngs), DATA, SHORT.replace(epochs=1), out=tmp_path / "own", progress=False)
    assert run.evaluation.accuracy > 0.3
    with pytest.raises(RunFolderError, match="pass model="):
        cnnlab.load(run.folder)
    again = cnnlab.load(run.folder, model=Tiny(nnx.Rngs(9)))
    np.testing.assert_array_equal(leaves(again)[0], leaves(run.best)[0])


def test_fit_does_not_change_the_network_it_is_given():
    model = cnnlab.create_model("lenet", in_channels=1, image_size=16, hidden=(32,))
    before = [leaf.copy() for leaf in leaves(model)]
    cnnlab.fit(model, DATA, SHORT.replace(epochs=1), progress=False)
    for now, then in zip(leaves(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "lenett"}, "did you mean lenet"),
        ({"recipe": "thesys"}, "did you mean thesis"),
        ({"model_options": {"hiden": [3]}}, "Expected options of lenet"),
        ({"seeds": []}, "at least one seed"),
        ({"model": cnnlab.create_model("lenet"), "seeds": [0, 1]}, "pass a function"),
    ],
)
def test_a_wrong_word_is_one_line_that_says_what_to_do(arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        cnnlab.fit(**{"model": "lenet", "data": DATA, "recipe": SHORT, "progress": False, **arguments})
    assert "\n" not in str(caught.value)


def test_holding_out_everything_is_refused(tmp_path):
    with pytest.raises((RecipeError, cnnlab.DatasetError), match="Expected"):
        cnnlab.fit("lenet", DATA, SHORT.replace(held_out=5000), progress=False, out=tmp_path / "none")


def test_a_folder_with_a_run_is_not_written_over(finished):
    with pytest.raises(RunFolderError, match="choose another --out, resume it, or overwrite it"):
        cnnlab.fit("lenet", DATA, SHORT, model_options=OPTIONS, out=finished.folder, progress=False)


def test_loading_before_the_first_epoch_says_how_to_go_on(tmp_path, finished):
    folder = tmp_path / "unborn"
    folder.mkdir()
    (folder / "recipe.json").write_text((finished.folder / "recipe.json").read_text())
    with pytest.raises(CheckpointError, match="cnnlab resume"):
        cnnlab.load(folder)


def test_resume_refuses_other_data_than_it_was_trained_on(tmp_path, finished):
    folder = tmp_path / "other"
    folder.mkdir()
    record = json.loads((finished.folder / "recipe.json").read_text())
    record["dataset"]["fingerprint"] = "0" * 64
    (folder / "recipe.json").write_text(json.dumps(record))
    with pytest.raises(RunFolderError, match="got other images or labels"):
        cnnlab.resume(folder, progress=False)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(32, {"stem": "cifar"}), (63, {"stem": "cifar"}), (64, {}), (224, {})],
)
def test_small_images_get_the_stem_for_small_images(size, expected):
    images, labels = np.zeros((4, size, size, 3), np.uint8), [0, 1, 2, 0]
    data = cnnlab.dataset_from_arrays(images, labels, images, labels)
    assert with_data_options("resnet18", {}, data) == {"num_classes": 3, "in_channels": 3, **expected}
    assert with_data_options("resnet18", {"stem": "imagenet"}, data)["stem"] == "imagenet"
    assert with_data_options("vgg11", {}, data).get("classifier") == expected.get("stem")


def test_small_images_get_what_a_model_declares_for_them_and_no_other_model_has_to_know_the_words():
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), [0, 1, 2, 0]
    data = cnnlab.dataset_from_arrays(images, labels, images, labels)
    with REGISTRY.temporarily():

        @cnnlab.register_model(small_images={"depth": 2})
        def declares(num_classes=10, *, depth=5, rngs):
            """With options for small images."""

        @cnnlab.register_model
        def declares_not(num_classes=10, *, stem="round", rngs):
            """With an option that other networks have, too, and another meaning."""

        assert with_data_options("declares", {}, data) == {"num_classes": 3, "depth": 2}
        assert with_data_options("declares", {"depth": 4}, data) == {"num_classes": 3, "depth": 4}
        assert with_data_options("declares_not", {}, data) == {"num_classes": 3}


def test_options_of_numpy_and_jax_are_recorded_as_plain_values_that_build_the_same_network():
    model = cnnlab.create_model("lenet", num_classes=np.int64(3), dtype=jnp.bfloat16, hidden=(8,))
    expected = {"num_classes": 3, "dtype": "bfloat16", "hidden": [8]}
    assert record_model(model) == {"name": "lenet", "options": expected}
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), [0, 1, 2, 0]
    data = cnnlab.dataset_from_arrays(images, labels, images, labels)
    found = with_data_options("lenet", {"dtype": jnp.bfloat16, "hidden": (8,)}, data)
    assert found == {**expected, "in_channels": 3, "image_size": 32}
