"""Changes to batches against NumPy: sides by seed and index, blends of images and of labels."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnnlab.data import alternating_flip, cutmix, mixup, mixup_or_cutmix
from cnnlab.data.batch_transforms import symmetric_beta

# A blend: two products and one sum in float32.
FLOAT32 = 1e-6
ERRORS = 5  # standard errors of a statistic


@pytest.fixture
def key() -> jax.Array:
    return jax.random.fold_in(jax.random.key(0), 1)


@pytest.fixture
def batch() -> dict[str, jax.Array]:
    """32 images of 6 x 9 whose pixels are all different; the label is the image's number."""
    images = np.random.default_rng(0).permutation(32 * 6 * 9 * 2).reshape(32, 6, 9, 2).astype(np.float32) + 1
    return {"image": jnp.asarray(images / images.size), "label": jnp.arange(32, dtype=jnp.int32)}


@jax.jit
def mirrored(seed, index, epoch) -> jax.Array:
    """Which images of one row `[0, 1]` are mirrored."""
    images = jnp.broadcast_to(jnp.asarray([0.0, 1.0]).reshape(1, 1, 2, 1), (len(index), 1, 2, 1))
    return alternating_flip({"image": images, "index": index, "epoch": epoch, "seed": seed})["image"][:, 0, 0, 0] == 1


def sides(seed: int, epoch: int = 0, images: int = 8192) -> np.ndarray:
    index = jnp.arange(images, dtype=jnp.int32)
    return np.asarray(mirrored(jnp.uint32(seed), index, jnp.int32(epoch)), np.float64)


def test_an_alternating_flip_shows_the_other_side_in_every_epoch(batch, key) -> None:
    images = np.asarray(batch["image"])
    whole = {**batch, "index": jnp.arange(32, dtype=jnp.int32), "seed": jnp.uint32(3)}
    epochs = [np.asarray(alternating_flip({**whole, "epoch": jnp.int32(e)}, key)["image"]) for e in range(4)]
    same = (epochs[0] == images).all((1, 2, 3))
    assert np.all(same ^ (epochs[0] == images[:, :, ::-1]).all((1, 2, 3)))
    assert 4 < same.sum() < 28  # fails by chance in one of 10**4 seeds; this one is fixed
    for before, after in zip(epochs[:-1], epochs[1:], strict=True):
        np.testing.assert_array_equal(after, before[:, :, ::-1])


def test_an_image_keeps_its_side_in_any_batch_and_with_any_key(batch, key) -> None:
    order = np.random.default_rng(1).permutation(32)
    whole = {**batch, "index": jnp.arange(32, dtype=jnp.int32), "seed": jnp.uint32(3), "epoch": jnp.int32(1)}
    expected = np.asarray(alternating_flip(whole)["image"])
    part = {**whole, "image": batch["image"][order[:5]], "index": whole["index"][order[:5]]}
    found = alternating_flip(part, jax.random.fold_in(key, 9))
    np.testing.assert_array_equal(found["image"], expected[order[:5]])
    assert found.keys() == part.keys()


@pytest.mark.parametrize("seed", [0, 1, 2, 0x9E3779B9, 2**32 - 1])
def test_half_of_the_images_start_mirrored_without_a_pattern(seed: int) -> None:
    side = 2 * sides(seed) - 1
    assert abs(side.sum()) < ERRORS * math.sqrt(side.size)
    for lag in (1, 2, 3, 4, 10, 32, 100, 1000, 1024, 4096):  # independent of the neighbours
        assert abs((side[lag:] * side[:-lag]).sum()) < ERRORS * math.sqrt(side.size)
    for bit in range(13):  # and of every bit of the index
        sign = 1 - 2 * (np.arange(side.size) >> bit & 1)
        assert abs((side * sign).sum()) < ERRORS * math.sqrt(side.size)


def test_the_sides_of_different_seeds_are_independent() -> None:
    """Neighbouring seeds and such that differ in one bit; shifted by some images, too."""
    chosen = [*range(8), *(1 << bit for bit in range(3, 32)), 2**32 - 1]
    side = np.stack([2 * sides(seed) - 1 for seed in chosen])
    products = side @ side.T / math.sqrt(side.shape[1])
    others = products[~np.eye(len(chosen), dtype=bool)]
    assert np.abs(others).max() < ERRORS
    assert abs(others.var() - 1) < ERRORS * math.sqrt(2 / (others.size / 2))
    for shift in (1, 2, 7):
        products = side[:, shift:] @ side[:, :-shift].T / math.sqrt(side.shape[1])
        assert np.abs(products).max() < ERRORS


@pytest.mark.parametrize(
    ("given", "missing"),
    [((), "index and epoch and seed"), (("index", "seed"), "epoch"), (("epoch", "index"), "seed")],
)
def test_a_batch_without_what_alternating_flips_need_is_an_error(batch, given, missing) -> None:
    whole = {**batch, **dict.fromkeys(given, jnp.int32(0))}
    text = f'without {missing}; do put them in, or set flip = "random".'
    with pytest.raises(ValueError, match=f"Expected a batch with index, epoch and seed .* got one {text}"):
        jax.jit(alternating_flip)(whole)


def partners(batch, found) -> np.ndarray:
    """The images' partners, by their labels; each image is one image's partner."""
    assert (found["other_label"].dtype, found["share"].dtype) == (jnp.int32, jnp.float32)
    np.testing.assert_array_equal(found["label"], batch["label"])
    partner = np.asarray(found["other_label"])
    np.testing.assert_array_equal(np.sort(partner), np.arange(32))
    return partner


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_blends_each_image_and_its_partner_by_one_share(batch, key, alpha) -> None:
    found = mixup(batch, key, alpha)
    images, other, share = np.asarray(batch["image"], np.float64), partners(batch, found), np.asarray(found["share"])
    assert np.all(share == share[0]) and 0 <= share[0] <= 1
    expected = share[0] * images + (1 - float(share[0])) * images[other]
    np.testing.assert_allclose(found["image"], expected, rtol=0, atol=FLOAT32)
    assert found["image"].dtype == jnp.float32


def test_cutmix_replaces_one_rectangle_by_that_of_the_partner_and_counts_its_pixels(batch, key) -> None:
    images, areas = np.asarray(batch["image"]), set()
    for number in range(20):
        found = jitted_cutmix(batch, jax.random.fold_in(key, number))
        other, image = partners(batch, found), np.asarray(found["image"])
        moved = np.flatnonzero(other != np.arange(32))
        changed = (image != images)[moved].all(axis=-1)  # [b, h, w]
        assert np.all(changed == changed[0])
        rows, columns = changed[0].any(axis=1), changed[0].any(axis=0)
        np.testing.assert_array_equal(changed[0], rows[:, None] & columns[None])
        for line in (rows, columns):  # in one piece
            assert np.abs(np.diff(np.pad(line.astype(int), 1))).sum() in (0, 2)
        np.testing.assert_array_equal(image, np.where(changed[0][None, :, :, None], images[other], images))
        area = int(changed[0].sum())
        np.testing.assert_allclose(found["share"], np.full(32, 1 - area / 54), rtol=0, atol=FLOAT32)
        areas.add(area)
    assert len(areas) > 8


@jax.jit
def jitted_cutmix(batch, key):
    return cutmix(batch, key, 1.0)


def test_the_rectangle_of_cutmix_has_the_sides_and_the_centres_it_should(batch) -> None:
    """At alpha = 1, in law: a copy in NumPy with its own random numbers."""
    sides = np.asarray([6, 9])
    keys = jax.random.split(jax.random.key(4), 4096)
    share = jax.jit(jax.vmap(lambda key: cutmix(batch, key, 1.0)["share"][0]))(keys)
    rng = np.random.default_rng(0)
    cut = np.round(sides * np.sqrt(1 - rng.uniform(size=(40960, 1)))).astype(int)
    start = rng.integers(0, sides, (40960, 2)) - cut // 2
    seen = np.minimum(start + cut, sides) - np.maximum(start, 0)
    expected = 1 - seen.prod(axis=1) / 54
    found = np.asarray(share, np.float64)
    assert abs(found.mean() - expected.mean()) < ERRORS * expected.std() / math.sqrt(4096) * math.sqrt(1.1)
    for level in np.arange(0.05, 1, 0.1):  # the distribution, at ten places
        p = (expected < level).mean()
        assert abs((found < level).mean() - p) <= ERRORS * math.sqrt(1.1 * p * (1 - p) / 4096)


@jax.jit
def either(batch, keys):
    """The three blends of each key."""
    blends = lambda key: (mixup_or_cutmix(batch, key, 0.2, 1.0), mixup(batch, key, 0.2), cutmix(batch, key, 1.0))  # noqa: E731
    return jax.vmap(blends)(keys)


def test_either_blend_is_used_with_probability_one_half(batch, key) -> None:
    small = {name: x[:3] for name, x in batch.items()}
    found, *choices = either(small, jax.random.split(key, 1024))
    is_choice = [
        np.all([np.isclose(found[k], c[k], rtol=0, atol=FLOAT32).reshape(1024, -1).all(axis=1) for k in found], axis=0)
        for c in choices
    ]
    mixed, cut = is_choice
    assert np.all(mixed | cut)
    assert np.mean(mixed & cut) < 0.1  # all images their own partners, or shares of 1
    share = (mixed & ~cut).sum() / (mixed ^ cut).sum()
    assert abs(share - 0.5) < ERRORS * 0.5 / math.sqrt((mixed ^ cut).sum())


@pytest.mark.parametrize("blend", [mixup, cutmix])
def test_a_batch_of_one_stays_as_it_is(batch, key, blend) -> None:
    """But for the rounding of `share * x + (1 - share) * x`."""
    one = {name: x[:1] for name, x in batch.items()}
    found = blend(one, key, 1.0)
    np.testing.assert_allclose(found["image"], one["image"], rtol=FLOAT32)
    np.testing.assert_array_equal(found["other_label"], one["label"])


def test_partners_change_from_key_to_key_and_are_random(batch, key) -> None:
    """Over 2048 draws the partner of image 0 is each image about as often."""
    draw = jax.jit(jax.vmap(lambda key: mixup(batch, key, 1.0)["other_label"][0]))
    counts = np.bincount(draw(jax.random.split(key, 2048)), minlength=32)
    assert np.abs(counts - 64).max() < ERRORS * math.sqrt(64)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 8.0])
def test_the_share_follows_the_beta_distribution(alpha: float) -> None:
    """SciPy's, at nine levels, and its variance."""
    draws = np.asarray(symmetric_beta(jax.random.uniform(jax.random.key(1), (2, 4096)), alpha), np.float64)
    law = stats.beta(alpha, alpha)
    for level in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999):
        p = law.cdf(level)
        assert abs((draws < level).mean() - p) <= ERRORS * math.sqrt(p * (1 - p) / 4096) + 1e-9
    error = law.var() * math.sqrt((law.stats("k") + 2) / 4096)  # its kurtosis less 3, plus 2
    assert abs(((draws - 0.5) ** 2).mean() - law.var()) < ERRORS * error
    assert np.all((draws >= 0) & (draws <= 1))


@pytest.mark.parametrize("alpha", [1e-3, 1000.0])
def test_extreme_alphas_give_whole_images_or_halves(alpha: float) -> None:
    draws = symmetric_beta(jax.random.uniform(jax.random.key(1), (2, 256)), alpha)
    distance = np.abs(np.asarray(draws) - 0.5)
    assert np.all(np.isfinite(distance))
    assert np.mean(distance > 0.49) > 0.97 if alpha < 1 else distance.max() < ERRORS / math.sqrt(4 * 2001)
