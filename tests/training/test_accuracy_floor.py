"""Real images: the thesis' network learns handwritten digits in seconds, and nothing from shuffled labels."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.data import Split
from cnnlab.models import LeNet
from cnnlab.training import Recipe, Trainer

pytest.importorskip("sklearn")

RECIPE = Recipe(
    name="digits", epochs=4, batch_size=32, learning_rate=0.02, schedule="cosine", nesterov=True, noise=0.05
)


@pytest.fixture(scope="module")
def digits() -> tuple[Split, Split]:
    """1,297 training and 500 test images, 8 x 8 enlarged to 32 x 32."""
    from sklearn.datasets import load_digits

    ink, labels = load_digits(return_X_y=True)
    images = np.kron(ink.reshape(-1, 8, 8, 1), np.ones((1, 4, 4, 1))) * (255 / 16)
    order = np.random.default_rng(0).permutation(len(labels))
    everything = Split(images.round().astype(np.uint8)[order], labels.astype(np.int32)[order])
    return everything.take(slice(500, None)), everything.take(slice(0, 500))


@pytest.fixture(scope="module")
def trainer(digits):
    return Trainer(RECIPE, *digits, "test")


def lenet() -> LeNet:
    return LeNet(hidden=(120, 84), in_channels=1, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_lenet_reaches_93_percent_of_the_test_digits_and_the_figure_is_true(trainer, digits):
    run = trainer.run(lenet(), seed=0)
    assert run.position.plateau.best >= 0.93
    logits = run.best(jnp.asarray(digits[1].images) / 255.0)
    measured = (np.asarray(logits).argmax(axis=1) == digits[1].labels).mean()
    assert abs(measured - run.position.plateau.best) <= 1 / 500  # a tie of logits may fall otherwise
    losses = [record["train_loss"] for record in run.position.history]
    assert losses == sorted(losses, reverse=True)


def test_shuffled_labels_teach_nothing(trainer, digits):
    """Negative control: four standard deviations above chance (10 %) on 500 images are 15 %; allow 25 %."""
    train = digits[0]
    labels = np.random.default_rng(1).permutation(train.labels)
    other = copy.copy(trainer)
    other._train = Split(trainer._train.images, jnp.asarray(labels))
    assert other.run(lenet(), seed=0).position.plateau.best <= 0.25
