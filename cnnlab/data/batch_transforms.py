"""Changes that need more of a batch than its images: labels, places in the data set, the epoch.

A batch is a dictionary: `"image"` float32 `[b, h, w, c]` in [0, 1], `"label"` int32 `[b]`, and, where known, `"index"`
int32 `[b]` (the places of the images in the data set), `"epoch"` (int32 scalar, from 0) and `"seed"` (uint32 scalar, of
the run). Each function returns a new batch with the same images in number, shape and type.

Blended images have two labels: `"label"` counts `"share"` (float32 `[b]`), `"other_label"` (int32 `[b]`) the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from .image_transforms import mirror
from .noise import scramble

Batch = Mapping[str, jax.Array]


def alternating_flip(batch: Batch, key: jax.Array | None = None) -> Batch:
    """Mirror each image left to right in every other epoch.

    In epoch 0 the side is random, a function of the run's seed and the image's index; in each later epoch it is the
    other one than in the epoch before. Two epochs thus show each image from both sides once.

    Args:
        batch: with `"index"`, `"epoch"` and `"seed"` beside `"image"`.
        key: not used; it changes from step to step, and an image must find its side again.

    Raises:
        ValueError: the batch lacks one of these.

    Source:
        Jordan (2024), "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498.
    """
    del key
    missing = [name for name in ("index", "epoch", "seed") if name not in batch]
    if missing:
        raise ValueError(
            "Expected a batch with index, epoch and seed for alternating flips, got one without "
            f'{" and ".join(missing)}; do put them in, or set flip = "random".'
        )
    index, epoch, seed = (jnp.asarray(batch[name], jnp.uint32) for name in ("index", "epoch", "seed"))
    # The seed is scrambled first, or one seed's sides would be another's, a few images further on.
    sides = scramble(scramble(index) ^ scramble(seed ^ jnp.uint32(0x9E3779B9))) >> 31
    return {**batch, "image": mirror(batch["image"], (sides ^ (epoch & 1)) == 1)}


def mixup(batch: Batch, key: jax.Array, alpha: float) -> Batch:
    """Blend each image with another of the batch: `share * image + (1 - share) * other`.

    `share` is drawn from Beta(alpha, alpha), once for the batch, as in the paper's program; the others are the batch
    in a random order. An image may meet itself and then stays as it is, up to rounding: so does a batch of one.

    Args:
        batch: `"image"` and `"label"`.
        key: decides about share and others.
        alpha: positive; near 0 most images stay nearly whole, at 1 every share is as likely.

    Returns:
        The batch with `"other_label"` and `"share"`.

    Source:
        Zhang, Cisse, Dauphin and Lopez-Paz (2018), "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412.
    """
    order, chance = _draw(batch, key)
    return _blend(batch, order, *_mixup_weights(batch["image"].shape, chance, alpha))


def cutmix(batch: Batch, key: jax.Array, alpha: float) -> Batch:
    """Replace a rectangle of each image by that of another of the batch.

    The rectangle is one for the batch: its sides are those of the image times `sqrt(1 - s)`, rounded, with `s` from
    Beta(alpha, alpha); its centre is uniform over the image, and what sticks out is cut off. `share` is what is left of
    the image, counted in pixels. The others are the batch in a random order; a batch of one stays as it is.

    Args:
        batch: `"image"` and `"label"`.
        key: decides about rectangle and others.
        alpha: positive; 1 in the paper.

    Returns:
        The batch with `"other_label"` and `"share"`.

    Source:
        Yun et al. (2019), "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
        arXiv:1905.04899.
    """
    order, chance = _draw(batch, key)
    return _blend(batch, order, *_cutmix_weights(batch["image"].shape, chance, alpha))


def mixup_or_cutmix(batch: Batch, key: jax.Array, mixup_alpha: float, cutmix_alpha: float) -> Batch:
    """Apply to each batch either `mixup` or `cutmix`, with probability one half."""
    order, chance = _draw(batch, key)
    shape = batch["image"].shape
    pairs = zip(_mixup_weights(shape, chance, mixup_alpha), _cutmix_weights(shape, chance, cutmix_alpha), strict=True)
    return _blend(batch, order, *(jnp.where(chance[4] < 0.5, mixed, cut) for mixed, cut in pairs))


def _draw(batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a random order of the batch and five uniform numbers: two for a share, two for a centre, one to choose."""
    order_key, key = jax.random.split(key)
    # One round of what `jax.random.permutation` does, which is enough for a batch and compiles faster.
    order = jnp.argsort(jax.random.bits(order_key, batch["label"].shape))
    return order, jax.random.uniform(key, (5,))


def _blend(batch: Batch, order: jax.Array, weight: jax.Array, share: jax.Array) -> Batch:
    """Add to image `order[i]`, weighed by `weight` `[h, w]`, the rest of image i; weights of 1 and 0 copy exactly."""
    images, labels = batch["image"], batch["label"]
    weight = weight[None, :, :, None].astype(images.dtype)
    # Not `weight * images + (1 - weight) * images[partner]`: on CPU XLA takes five times as long over it.
    return {
        **batch,
        "image": (weight * images).at[order].add((1 - weight) * images, unique_indices=True),
        "other_label": jnp.zeros_like(labels).at[order].set(labels, unique_indices=True),
        "share": jnp.broadcast_to(share, labels.shape),
    }


def _mixup_weights(shape: tuple[int, ...], chance: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Return the weights of the images, `[h, w]`, and the share of their labels."""
    share = symmetric_beta(chance[:2], alpha)
    return jnp.broadcast_to(share, shape[1:3]), share


def _cutmix_weights(shape: tuple[int, ...], chance: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Return the weights of the images, `[h, w]`, and the share of their labels."""
    sides = jnp.asarray(shape[1:3], jnp.float32)
    cut = jnp.round(sides * jnp.sqrt(1 - symmetric_beta(chance[:2], alpha)))
    start = jnp.floor(sides * chance[2:4]) - cut // 2
    rows, columns = (
        (place >= first) & (place < first + length)
        for place, first, length in zip(map(jnp.arange, shape[1:3]), start, cut, strict=True)
    )
    weight = 1.0 - (rows[:, None] & columns[None, :])  # [h, w]
    return weight, 1 - rows.sum() * columns.sum() / (shape[1] * shape[2])


def symmetric_beta(uniform: jax.Array, alpha: float) -> jax.Array:
    """Make of two independent uniform numbers in [0, 1) one from Beta(alpha, alpha), for any positive alpha.

    Student's t with 2 alpha degrees of freedom, by Bailey's polar method, gives 1/2 + t / sqrt(2 alpha + t^2) / 2. That
    is exact; `jax.random.beta` rejects in loops, which take long to compile.

    Args:
        uniform: `[2]`, or `[2, n]` for n numbers.
        alpha: both parameters of the distribution.

    Source:
        Bailey (1994), "Polar generation of random variates with the t-distribution", Mathematics of Computation 62.
    """
    radius, angle = uniform
    cosine = jnp.cos(2 * jnp.pi * angle)
    square = jnp.expm1(-jnp.log1p(-radius) / alpha) * cosine**2  # t^2 / (2 alpha)
    return 0.5 + 0.5 * jnp.sign(cosine) / jnp.sqrt(1 + 1 / square)
