"""What cannot work is one line before anything is compiled."""

import numpy as np
import optax
import pytest
from flax import nnx

from cnnlab.data import Split
from cnnlab.training import Callback, Trainer, TrainState
from cnnlab.training.checks import count_classes, expect_seed

SEED = "Expected a whole number from 0 to 4294967295 for a seed, got {}; do choose another."


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, np.int64(7), np.uint32(2**32 - 1)])
def test_a_whole_number_that_a_uint32_holds_is_a_seed(seed):
    number = expect_seed(seed)
    assert type(number) is int and number == int(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, np.float64(1), True, "3", None, np.arange(2)])
def test_anything_else_is_no_seed(seed):
    with pytest.raises(ValueError) as caught:
        expect_seed(seed)
    assert str(caught.value) == SEED.format(repr(seed))


def test_a_state_is_not_made_with_a_seed_that_would_wrap_around(network):
    with pytest.raises(ValueError, match="for a seed, got -1"):
        TrainState.create(network(), optax.sgd(0.1), seed=-1)


class Silent(Callback):
    def on_compile(self, seconds):
        raise AssertionError("it compiles")


def relabelled(split: Split, label: int) -> Split:
    labels = split.labels.copy()
    labels[3] = label
    return Split(split.images, labels)


@pytest.mark.parametrize(
    ("train", "monitor", "text"),
    [
        (3, 0, "Expected training labels from 0 to 2, got 0 to 3; do renumber them, or create the network with more"),
        (-1, 0, "Expected training labels from 0 to 2, got -1 to 2; do renumber"),
        (0, 9, "Expected validation labels from 0 to 2, got 0 to 9; do renumber"),
        (0, -5, "Expected validation labels from 0 to 2, got -5 to 2; do renumber"),
    ],
)
def test_labels_that_are_no_classes_of_the_network_are_refused_before_compiling(
    recipe, split, network, train, monitor, text
):
    trainer = Trainer(recipe(), relabelled(split(35), train), relabelled(split(20, seed=1), monitor), "validation")
    with pytest.raises(ValueError, match=text):
        trainer.run(network(), callbacks=[Silent()])


def test_images_that_the_network_cannot_take_are_refused_before_compiling(recipe, split, network):
    wide = Split(np.zeros((20, 4, 5, 1), np.uint8), np.zeros(20, np.int32))
    with pytest.raises(ValueError, match=r"Expected a network for images 4x5x1, got one that cannot take them \("):
        Trainer(recipe(), split(35), wide, "test").run(network(), callbacks=[Silent()])


def test_a_network_that_gives_no_row_for_each_image_is_refused():
    class Mean(nnx.Module):
        def __call__(self, images):
            return images.mean()

    with pytest.raises(ValueError, match=r"Expected logits \[batch, classes\] of the network, got .*; do return one"):
        count_classes(Mean(), (4, 4, 1))
