"""The chain of augmentations: which parts, in which order, with which keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.data import (
    add_noise,
    alternating_flip,
    build_augmentation,
    cutmix,
    cutout,
    mixup,
    mixup_or_cutmix,
    on_images,
    pca_colour,
    random_crop,
    random_flip,
    to_float,
)

# One product and one sum in float32, compiled in one piece or in several.
FLOAT32 = 1e-6
COLOURS = np.asarray([[0.1, 0.2], [-0.02, 0.01]])
ALL = {
    "noise": 0.1,
    "flip": "alternating",
    "crop": 2,
    "crop_fill": "reflect",
    "cutout_size": 3,
    "cutout_fill": (0.5, 0.25),
    "pca_colour_scale": 0.1,
    "principal_colours": COLOURS,
    "mixup_alpha": 0.2,
    "cutmix_alpha": 1.0,
}


everything = jax.jit(build_augmentation(**ALL))


@pytest.fixture
def key() -> jax.Array:
    return jax.random.fold_in(jax.random.key(0), 1)


@pytest.fixture
def batch() -> dict[str, jax.Array]:
    """16 images of 5 x 7, and all that a step knows of them."""
    images = np.random.default_rng(0).uniform(0, 1, (16, 5, 7, 2)).astype(np.float32)
    label = jnp.arange(16, dtype=jnp.int32) % 3
    index = jnp.arange(16, dtype=jnp.int32) + 40
    return {
        "image": jnp.asarray(images),
        "label": label,
        "index": index,
        "epoch": jnp.int32(1),
        "seed": jnp.uint32(2**32 - 1),
    }


def test_to_float_brings_all_bytes_to_zero_to_one() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    found = to_float(jnp.asarray(values))
    assert found.dtype == jnp.float32
    # XLA may multiply by the rounded 1 / 255 instead: one more rounding.
    np.testing.assert_allclose(found, values / 255, rtol=FLOAT32)
    assert (float(found.min()), float(found.max())) == (0, 1)


def test_images_that_are_floats_already_stay_as_they_are() -> None:
    images = jnp.asarray([[[[0.25]]]], jnp.bfloat16)
    assert to_float(images) is images


def test_a_function_of_images_becomes_one_of_batches(batch, key) -> None:
    found = on_images(lambda images, key: images + jax.random.uniform(key))(batch, key)
    np.testing.assert_array_equal(found.pop("image"), batch["image"] + jax.random.uniform(key))
    assert found == {name: batch[name] for name in ("label", "index", "epoch", "seed")}
    assert all(found[name] is batch[name] for name in found)


def test_neutral_values_change_nothing(batch, key) -> None:
    for neutral in (build_augmentation(), build_augmentation(noise=0.0, flip="none", crop=0, cutout_size=0)):
        found = neutral(batch, key)
        assert found.keys() == batch.keys()
        np.testing.assert_array_equal(found["image"], batch["image"])


def test_the_chain_of_the_older_parts_is_crop_flip_noise_each_with_a_key_of_its_own(batch, key) -> None:
    """Runs on record depend on these keys."""
    expected = random_crop(batch["image"], jax.random.fold_in(key, 0), 1)
    expected = random_flip(expected, jax.random.fold_in(key, 1))
    expected = add_noise(expected, jax.random.fold_in(key, 2), 0.1)
    found = build_augmentation(noise=0.1, flip="random", crop=1)(batch, key)
    np.testing.assert_array_equal(found["image"], expected)
    alone = add_noise(batch["image"], jax.random.fold_in(key, 0), 0.1)
    np.testing.assert_array_equal(build_augmentation(noise=0.1)(batch, key)["image"], alone)


@jax.jit
def by_hand(batch, key):
    keys = [jax.random.fold_in(key, i) for i in range(6)]
    image = random_crop(batch["image"], keys[0], 2, "reflect")
    image = alternating_flip({**batch, "image": image})["image"]
    image = pca_colour(image, keys[2], COLOURS, 0.1)
    image = cutout(image, keys[3], 3, (0.5, 0.25))
    image = add_noise(image, keys[4], 0.1)
    return mixup_or_cutmix({**batch, "image": image}, keys[5], 0.2, 1.0)


def test_the_whole_chain_is_crop_flip_colour_cutout_noise_blend_and_keeps_shape_and_types(batch, key) -> None:
    for step_key in jax.random.split(key, 4):
        found, expected = everything(batch, step_key), by_hand(batch, step_key)
        assert {name: (x.shape, x.dtype) for name, x in found.items()} == {
            **{name: (x.shape, x.dtype) for name, x in batch.items()},
            "other_label": ((16,), jnp.int32),
            "share": ((16,), jnp.float32),
        }
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=FLOAT32)


@pytest.mark.parametrize(("name", "blend"), [("mixup_alpha", mixup), ("cutmix_alpha", cutmix)])
def test_one_kind_of_blend_alone_is_used_for_every_batch(batch, key, name, blend) -> None:
    augment = build_augmentation(**{name: 0.5})
    for number in range(4):
        key = jax.random.fold_in(key, number)
        expected = blend(batch, jax.random.fold_in(key, 0), 0.5)
        found = augment(batch, key)
        for name in ("image", "other_label", "share"):
            np.testing.assert_array_equal(found[name], expected[name])


def test_the_key_alone_decides(batch, key) -> None:
    first, again, other = (everything(batch, k)["image"] for k in (key, key, jax.random.fold_in(key, 1)))
    np.testing.assert_array_equal(first, again)
    assert np.mean(np.asarray(first) == np.asarray(other)) < 0.01


PARTS = {
    # options of the part alone, and whether its images stay between black and white
    "crop": ({"crop": 2}, True),
    "reflecting crop": ({"crop": 2, "crop_fill": "reflect"}, True),
    "random flip": ({"flip": "random"}, True),
    "cutout": ({"cutout_size": 3, "cutout_fill": (0.5, 0.25)}, True),
    "colour": ({"pca_colour_scale": 0.1, "principal_colours": COLOURS}, False),
    "noise": ({"noise": 0.1}, False),
    "mixup": ({"mixup_alpha": 0.5}, True),
    "cutmix": ({"cutmix_alpha": 0.5}, True),
}


@pytest.mark.parametrize(("options", "bounded"), PARTS.values(), ids=PARTS)
def test_of_each_part_the_key_alone_decides_compiled_or_not(batch, key, options, bounded) -> None:
    augment = build_augmentation(**options)
    compiled, other = jax.jit(augment), jax.random.fold_in(key, 1)
    first, again, changed = (compiled(batch, k)["image"] for k in (key, key, other))
    np.testing.assert_array_equal(first, again)
    assert (first.shape, first.dtype) == (batch["image"].shape, batch["image"].dtype)
    assert not np.array_equal(first, batch["image"]) and not np.array_equal(first, changed)
    np.testing.assert_allclose(augment(batch, key)["image"], first, rtol=0, atol=FLOAT32)
    if bounded:
        assert first.min() >= 0 and first.max() <= 1


def test_many_seeds_in_one_looping_program_get_what_each_gets_alone(batch, key) -> None:
    seeds, keys = jnp.arange(3, dtype=jnp.uint32), jax.random.split(key, 3)
    start = everything(batch, key)

    def last_of_two_epochs(seed, key):
        body = lambda epoch, _: everything({**batch, "seed": seed, "epoch": epoch}, key)  # noqa: E731
        return jax.lax.fori_loop(0, 2, body, start)

    together = jax.jit(jax.vmap(last_of_two_epochs))(seeds, keys)
    for i in range(3):
        alone = everything({**batch, "seed": seeds[i]}, keys[i])  # the batch's epoch is 1
        for name in alone:
            np.testing.assert_allclose(together[name][i], alone[name], rtol=0, atol=FLOAT32)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"flip": True}, "Expected flip to be one of none, random, alternating, got True; do choose one."),
        ({"crop_fill": "edge"}, "Expected crop_fill to be one of zero, reflect, got 'edge'; do choose one."),
        ({"pca_colour_scale": 0.1}, "Expected principal_colours with pca_colour_scale, got None; do compute them."),
    ],
)
def test_a_chain_that_cannot_be_is_refused(options, text) -> None:
    with pytest.raises(ValueError, match=text):
        build_augmentation(**options)
