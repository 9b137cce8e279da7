"""Classification of files and arrays: names, order, shapes and errors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from cnnlab.data import ImageError
from cnnlab.evaluation import Prediction, predict

# A softmax of float32 logits.
FLOAT32 = 1e-6


class Ink(nnx.Module):
    """Logits 0, 2, 4, 6 turned by what the first pixel says; needs images of one size if told so."""

    def __init__(self, shape: tuple[int, int, int] | None = None):
        self.shape = shape

    def __call__(self, images: jax.Array) -> jax.Array:
        if self.shape is not None and images.shape[1:] != self.shape:
            raise AssertionError(f"images are {images.shape[1:]}")
        turn = jnp.round(images[:, 0, 0, 0] * 255).astype(jnp.int32)[:, None]
        return 2.0 * ((jnp.arange(4)[None] + turn) % 4)


def pixels_of(*turns: int, shape: tuple[int, int, int] = (4, 4, 3)) -> np.ndarray:
    return np.stack([np.full(shape, turn, np.uint8) for turn in turns])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    for path, pixels in zip(paths, pixels_of(0, 1, 2), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def test_files_are_named_and_classified_in_their_order(files: list[Path]) -> None:
    found = predict(Ink(), files)
    assert [p.image for p in found] == [str(path) for path in files]
    assert [p.label for p in found] == ["3", "2", "1"]
    assert [p.label for p in predict(Ink(), [str(path) for path in reversed(files)])] == ["1", "2", "3"]


def test_probabilities_are_the_softmax_best_first() -> None:
    (found,) = predict(Ink(), pixels_of(0), top_k=4)
    assert found.labels == ("3", "2", "1", "0")
    expected = np.exp([6, 4, 2, 0]) / np.exp([6, 4, 2, 0]).sum()
    np.testing.assert_allclose(found.probabilities, expected, rtol=FLOAT32)
    assert sum(found.probabilities) == pytest.approx(1, rel=FLOAT32)
    assert all(type(p) is float for p in found.probabilities)


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (4, 4), (9, 4)])
def test_top_k_says_how_many_and_never_more_than_there_are(top_k: int, count: int) -> None:
    (found,) = predict(Ink(), pixels_of(1), top_k=top_k)
    assert len(found.labels) == len(found.probabilities) == count
    assert found.label == found.labels[0] == "2"


def test_three_classes_are_named_by_default() -> None:
    assert len(predict(Ink(), pixels_of(0))[0].labels) == 3


def test_arrays_are_numbered_and_may_hold_floats() -> None:
    found = predict(Ink(), pixels_of(2, 3))
    assert [p.image for p in found] == ["image 0", "image 1"]
    assert predict(Ink(), pixels_of(2, 3).astype(np.float32) / 255) == found


def test_class_names_are_those_given_else_those_of_the_model_else_numbers() -> None:
    model = Ink()
    assert predict(model, pixels_of(0))[0].label == "3"
    model.classes = ("ant", "bee", "cow", "dog")
    assert predict(model, pixels_of(0))[0].label == "dog"
    assert predict(model, pixels_of(0), classes=["k", "l", "m", "n"])[0].labels == ("n", "m", "l")


def test_files_are_brought_to_the_shape_given_else_that_of_the_model_else_32_pixels(files: list[Path]) -> None:
    predict(Ink((32, 32, 3)), files)
    known = Ink((8, 6, 1))
    known.image_shape = (8, 6, 1)
    predict(known, files)
    known.shape = (5, 7, 3)
    predict(known, files, image_shape=(5, 7, 3))


def test_arrays_of_another_shape_than_the_model_knows_are_refused_unless_asked_for() -> None:
    model = Ink()
    model.image_shape = (8, 6, 1)
    with pytest.raises(ValueError, match="Expected images 8x6x1, as the network was trained on, got 4x4x3"):
        predict(model, pixels_of(0))
    assert predict(model, pixels_of(0), image_shape=(4, 4, 3))[0].label == "3"
    with pytest.raises(ValueError, match=r"Expected images \[n, height, width, channels\], got shape \(4, 4, 3\)"):
        predict(Ink(), pixels_of(0)[0])


def test_equal_probabilities_keep_the_order_of_the_classes() -> None:
    class Undecided(nnx.Module):
        def __call__(self, images: jax.Array) -> jax.Array:
            return jnp.zeros((len(images), 4))

    assert predict(Undecided(), pixels_of(0), top_k=4)[0].labels == ("0", "1", "2", "3")


def test_dropout_is_off_and_the_model_keeps_its_mode() -> None:
    class Dropping(nnx.Module):
        def __init__(self) -> None:
            self.dropout = nnx.Dropout(0.9, rngs=nnx.Rngs(0))

        def __call__(self, images: jax.Array) -> jax.Array:
            return self.dropout(images.reshape(len(images), -1))

    model = Dropping()
    model.train()
    first, again = predict(model, pixels_of(200), top_k=48), predict(model, pixels_of(200), top_k=48)
    assert first == again
    np.testing.assert_allclose(first[0].probabilities, 1 / 48, rtol=FLOAT32)
    assert model.dropout.deterministic is False


def test_a_prediction_prints_as_one_line() -> None:
    assert str(Prediction("a.png", ("cat", "dog"), (0.9, 0.0625))) == "a.png: cat 90.0%, dog 6.2%"


@pytest.mark.parametrize("top_k", [0, -1])
def test_fewer_than_one_class_is_an_error(top_k: int) -> None:
    with pytest.raises(ValueError, match=f"Expected top_k of at least 1, got {top_k}"):
        predict(Ink(), pixels_of(0), top_k=top_k)


@pytest.mark.parametrize("images", [[], np.zeros((0, 4, 4, 3), np.uint8)])
def test_no_image_is_an_error(images: list | np.ndarray) -> None:
    with pytest.raises(ValueError, match="Expected at least one image, got none; do name image files"):
        predict(Ink(), images)


def test_a_missing_file_is_an_error_that_names_it(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no-such.png"):
        predict(Ink(), [files[0], tmp_path / "no-such.png"])


def test_a_file_that_is_no_image_is_an_error_that_names_it(files: list[Path]) -> None:
    files[1].write_text("words")
    with pytest.raises(ImageError, match="b.png"):
        predict(Ink(), files)


def test_one_file_needs_no_list(files: list[Path]) -> None:
    assert predict(Ink(), files[0]) == predict(Ink(), [files[0]]) == predict(Ink(), str(files[0]))


def test_too_few_names_are_one_line_that_counts_them() -> None:
    with pytest.raises(ValueError, match="a name for each of 4 classes, got 2 names"):
        predict(Ink(), pixels_of(0), classes=("a", "b"))
