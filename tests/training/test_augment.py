"""From a recipe to an augmentation: which parts, and which statistics of the training images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnlab.data import Split, build_augmentation, principal_colours
from cnnlab.layers import Standardized
from cnnlab.training import Recipe, RecipeError, TrainState, make_train_step
from cnnlab.training import augment as augment_module
from cnnlab.training.augment import make_augmentation

# Two float32 formulas of the same numbers.
FLOAT32 = 1e-6


@pytest.fixture
def train() -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (24, 6, 6, 3)) + np.asarray([0, 20, 50])
    return Split(images.astype(np.uint8), rng.integers(0, 3, 24).astype(np.int32))


@pytest.fixture
def batch(train) -> dict[str, jax.Array]:
    return {
        "image": jnp.asarray(train.images[:8], jnp.float32) / 255,
        "label": jnp.asarray(train.labels[:8]),
        "index": jnp.arange(8, dtype=jnp.int32),
        "epoch": jnp.int32(0),
        "seed": jnp.uint32(7),
    }


def test_a_recipe_without_augmentation_has_none(train):
    assert make_augmentation(Recipe(crop_fill="reflect", standardize=True), train) is None


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"noise": 0.1}, {"noise": 0.1}),
        ({"flip": "random"}, {"flip": "random"}),
        ({"flip": "alternating"}, {"flip": "alternating"}),
        ({"crop": 2}, {"crop": 2}),
        ({"crop": 2, "crop_fill": "reflect"}, {"crop": 2, "crop_fill": "reflect"}),
        ({"cutout": 3}, {"cutout_size": 3}),
        ({"mixup": 0.2}, {"mixup_alpha": 0.2}),
        ({"cutmix": 1.0}, {"cutmix_alpha": 1.0}),
        ({"mixup": 0.2, "cutmix": 1.0}, {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}),
    ],
    ids=lambda value: "+".join(value),
)
def test_each_field_of_the_recipe_switches_its_part_on(train, batch, fields, options):
    key = jax.random.key(3)
    found = make_augmentation(Recipe(**fields), train)(batch, key)
    expected = build_augmentation(**options)(batch, key)
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])
    assert not np.array_equal(found["image"], batch["image"])


def test_pca_colour_takes_the_colours_of_the_training_images(train, batch):
    key = jax.random.key(3)
    found = make_augmentation(Recipe(pca_colour=0.5), train)(batch, key)["image"]
    options = {"pca_colour_scale": 0.5, "principal_colours": principal_colours(train)}
    np.testing.assert_array_equal(found, build_augmentation(**options)(batch, key)["image"])
    assert not np.array_equal(found, batch["image"])


def test_what_cutout_erases_is_zero_after_the_standardisation_and_without_it_before(train, batch):
    values = train.images.reshape(-1, 3) / 255
    network = Standardized(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), values.mean(axis=0), values.std(axis=0))
    key = jax.random.key(3)
    for standardize in (True, False):
        images = make_augmentation(Recipe(cutout=6, standardize=standardize), train)(batch, key)["image"]
        seen = network._standardize(images) if standardize else images
        np.testing.assert_allclose(seen, 0, atol=FLOAT32)
        assert np.any(np.asarray(images)) == standardize


def test_statistics_are_computed_only_where_a_part_needs_them(train, monkeypatch):
    def refuse(split):
        raise AssertionError("the training images were read")

    monkeypatch.setattr(augment_module, "mean_colour", refuse)
    monkeypatch.setattr(augment_module, "principal_colours", refuse)
    assert make_augmentation(Recipe(noise=0.1, cutout=2, mixup=1.0, crop=1, flip="random"), train) is not None
    assert make_augmentation(Recipe(noise=0.1, standardize=True), train) is not None
    for fields in ({"cutout": 2, "standardize": True}, {"pca_colour": 0.1}):
        with pytest.raises(AssertionError, match="were read"):
            make_augmentation(Recipe(**fields), train)


def test_a_cutout_larger_than_the_images_is_refused_before_training(train):
    with pytest.raises(RecipeError, match="Expected a cutout inside images of 6x6, got 7; do lower cutout."):
        make_augmentation(Recipe(cutout=7), train)


class Pixels(nnx.Module):
    """Logits that are linear in the image."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(6 * 6 * 3, 3, rngs=rngs)

    def __call__(self, images):
        return self.linear(images.reshape(len(images), -1))


def test_a_training_step_passes_on_seed_index_and_epoch(train):
    """Two epochs of alternating flips over the same images: the losses are those of one side, then of the other."""
    step = make_train_step(optax.sgd(0.0), augment=make_augmentation(Recipe(flip="alternating"), train))
    plain = make_train_step(optax.sgd(0.0))
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)

    def loss(step, seed, **batch):
        state = TrainState.create(Pixels(nnx.Rngs(0)), optax.sgd(0.0), seed=seed)
        return float(step(state, {"label": labels, "image": images, **batch})[1].loss_sum)

    index = jnp.arange(24, dtype=jnp.int32)
    first, second, third = (loss(step, 5, index=index, epoch=jnp.int32(epoch)) for epoch in range(3))
    assert first == third != second
    both = loss(plain, 5) + loss(plain, 5, image=images[:, :, ::-1])
    np.testing.assert_allclose(first + second, both, rtol=1e-5)
    assert loss(step, 6, index=index, epoch=jnp.int32(0)) != first
    with pytest.raises(ValueError, match="got one without index and epoch; do put them in"):
        loss(step, 5)


@pytest.mark.parametrize("fields", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}], ids="+".join)
def test_a_training_step_weighs_the_labels_by_the_share_of_the_image(train, fields):
    """rtol 1e-5 between two float32 programs; a batch of one has the loss of its image alone."""
    augment = make_augmentation(Recipe(**fields), train)
    step, plain = (make_train_step(optax.sgd(0.0), augment=a) for a in (augment, None))

    def loss(step, image, label):
        state = TrainState.create(Pixels(nnx.Rngs(0)), optax.sgd(0.0), seed=9)
        return float(step(state, {"image": image, "label": label})[1].loss_sum)

    image, label = jnp.asarray(train.images[:8]), jnp.asarray(train.labels[:8])
    key = jax.random.fold_in(jax.random.key(9), 0)
    mixed = augment({"image": image.astype(jnp.float32) / 255, "label": label}, key)
    share = float(mixed["share"][0])
    model = Pixels(nnx.Rngs(0))
    weights = share * np.eye(3)[label] + (1 - share) * np.eye(3)[mixed["other_label"]]
    expected = -(weights * np.asarray(jax.nn.log_softmax(model(mixed["image"])))).sum()
    np.testing.assert_allclose(loss(step, image, label), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(step, image[:1], label[:1]), loss(plain, image[:1], label[:1]), rtol=1e-5)
