"""Evaluation of a network: every image counts once, and nothing of the network changes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.data import Split
from cnnlab.evaluation import evaluate
from cnnlab.evaluation.evaluate import compute_logits

# The same float32 network on batches of another size, relative to the largest logit.
FLOAT32 = 1e-5


class Small(nnx.Module):
    """A convolution, batch normalisation, dropout and a head: two layers that know whether they train."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(images)))
        return self.head(self.dropout(x.mean((1, 2))))


class Reader(nnx.Module):
    """Answers with the class that the first pixel names; no weights."""

    def __call__(self, images: jax.Array) -> jax.Array:
        return 20 * jax.nn.one_hot(jnp.round(images[:, 0, 0, 0] * 255).astype(jnp.int32), 5)


@pytest.fixture
def model() -> Small:
    """In training mode, with batch statistics that are not the initial ones."""
    model = Small(nnx.Rngs(0))
    model.norm.mean[...] = jnp.asarray([0.1, -0.2, 0.3, 0.0])
    model.norm.var[...] = jnp.asarray([0.5, 1.5, 1.0, 2.0])
    model.train()
    return model


def split_of(images: int) -> Split:
    rng = np.random.default_rng(images)
    return Split(rng.integers(0, 256, (images, 6, 6, 3), dtype=np.uint8), rng.integers(0, 5, images).astype(np.int32))


def expected_logits(model: nnx.Module, images: np.ndarray) -> np.ndarray:
    """All images at once, by the network itself, in evaluation mode."""
    copy = nnx.clone(model)
    copy.eval()
    return np.asarray(jax.jit(copy)(images.astype(np.float32) / 255), np.float64)


@pytest.mark.parametrize(("images", "batch_size"), [(1, 4), (4, 4), (9, 4), (103, None)])
def test_logits_are_those_of_the_network_whatever_the_batch(model: Small, images: int, batch_size: Any) -> None:
    pixels = split_of(images).images
    found, expected = compute_logits(model, pixels, batch_size=batch_size), expected_logits(model, pixels)
    assert (found.shape, found.dtype) == ((images, 5), np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())


def test_loss_and_metrics_are_those_of_numpy(model: Small) -> None:
    split = split_of(11)
    found = evaluate(model, split, classes=["a", "b", "c", "d", "e"], batch_size=4)
    logits = expected_logits(model, split.images)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert found.loss == pytest.approx(-logs[np.arange(11), split.labels].mean(), rel=FLOAT32)
    assert found.accuracy == (logits.argmax(-1) == split.labels).mean()
    assert (found.images, found.classes) == (11, ("a", "b", "c", "d", "e"))


@pytest.mark.parametrize("images", [1, 5, 6, 12, 13])
def test_every_image_counts_once_for_sizes_that_do_not_divide_the_batch(images: int) -> None:
    labels = (np.arange(images) % 5).astype(np.int32)
    pixels = np.zeros((images, 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 0] = labels
    found = evaluate(Reader(), Split(pixels, labels), batch_size=6)
    np.testing.assert_array_equal(found.confusion_matrix, np.diag(np.bincount(labels, minlength=5)))
    assert (found.images, found.accuracy) == (images, 1)
    assert found.classes == ("0", "1", "2", "3", "4")


def test_the_batch_size_does_not_change_the_result(model: Small) -> None:
    split = split_of(10)
    results = [evaluate(model, split, batch_size=size).to_dict() for size in (1, 3, 10)]
    losses = [result.pop("loss") for result in results]
    assert results[0] == results[1] == results[2]
    np.testing.assert_allclose(losses, losses[0], rtol=FLOAT32)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_keeps_its_mode_its_statistics_and_its_random_state(model: Small, training: bool) -> None:
    model.train() if training else model.eval()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    evaluate(model, split_of(9), batch_size=4)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert model.norm.use_running_average is (not training)
    assert model.dropout.deterministic is (not training)
    # The control: had it been evaluated in training mode, this is what one would have seen.
    model.train()
    model(jnp.zeros((2, 6, 6, 3)))
    assert np.any(before["norm"]["mean"] != np.asarray(model.norm.mean[...]))


def test_float_images_are_taken_as_they_are(model: Small) -> None:
    pixels = split_of(5).images
    from_bytes, from_floats = compute_logits(model, pixels), compute_logits(model, pixels.astype(np.float32) / 255)
    np.testing.assert_allclose(from_bytes, from_floats, rtol=0, atol=FLOAT32 * np.abs(from_floats).max())


def test_few_programs_serve_any_number_of_images_and_count_each_once() -> None:
    traced = []

    class Counted(Reader):
        def __call__(self, images: jax.Array) -> jax.Array:
            traced.append(len(images))
            return super().__call__(images)

    labels = (np.arange(40) % 5).astype(np.int32)
    pixels = np.zeros((40, 2, 2, 3), np.uint8)
    pixels[:, 0, 0, 0] = labels
    model = Counted()
    for images in (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 40):
        logits = compute_logits(model, pixels[:images], batch_size=8)
        np.testing.assert_array_equal(logits.argmax(axis=-1), labels[:images])
    assert traced == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((6, 6, 3), np.uint8), r"Expected images \[n, height, width, channels\], got shape \(6, 6, 3\); do"),
        (np.zeros((0, 6, 6, 3), np.uint8), "Expected at least one image, got none"),
        (
            np.zeros((2, 6, 6, 1), np.uint8),
            "Expected images 6x6x3, as the network was trained on, got 6x6x1; do resize",
        ),
        (
            np.zeros((2, 8, 6, 3), np.uint8),
            "Expected images 6x6x3, as the network was trained on, got 8x6x3; do resize",
        ),
        (np.zeros((2, 6, 6, 3), np.int32), r"Expected images uint8, or float in \[0, 1\], got int32; do convert"),
        (np.full((2, 6, 6, 3), 255.0), "Expected float images from 0 to 1, got 255 to 255; do divide by 255"),
        (np.full((2, 6, 6, 3), -0.5), "Expected float images from 0 to 1, got -0.5 to -0.5; do"),
        (np.full((2, 6, 6, 3), np.nan, np.float32), "Expected float images from 0 to 1, got nan to nan; do"),
        (np.full((2, 6, 6, 3), np.inf, np.float32), "Expected float images from 0 to 1, got inf to inf; do"),
    ],
    ids=str,
)
def test_what_are_no_images_of_the_network_is_one_line(model: Small, images: np.ndarray, text: str) -> None:
    model.image_shape = (6, 6, 3)
    with pytest.raises(ValueError, match=text):
        compute_logits(model, images)


def test_rounding_is_no_reason_to_refuse_a_float_image(model: Small) -> None:
    pixels = np.full((1, 6, 6, 3), 1 + 1e-6, np.float32)
    assert compute_logits(model, pixels).shape == (1, 5)


def test_a_network_that_cannot_take_the_images_is_named_in_one_sentence(model: Small) -> None:
    with pytest.raises(ValueError, match=r"Expected images that the network can take, got 6x6x1 \(.*\); do resize"):
        compute_logits(model, np.zeros((2, 6, 6, 1), np.uint8))
    model.image_shape = (6, 6, 3)
    split = Split(np.zeros((2, 5, 5, 3), np.uint8), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="Expected images 6x6x3, as the network was trained on, got 5x5x3"):
        evaluate(model, split)


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected at least one image to evaluate, got none; do pass another split"):
        evaluate(Reader(), split_of(0))


def test_a_label_that_is_no_output_is_an_error() -> None:
    split = Split(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 5], np.int32))
    with pytest.raises(ValueError, match="Expected labels below 5, the outputs of the network, got 5; do create"):
        evaluate(Reader(), split)


def test_a_negative_label_is_an_error() -> None:
    split = Split(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, -1], np.int32))
    with pytest.raises(ValueError, match="Expected classes 0 to 4, got -1"):
        evaluate(Reader(), split)
