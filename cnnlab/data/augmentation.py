"""What happens to a batch of training images inside the compiled step: a chain of transforms in a fixed order.

The transforms themselves are in `image_transforms.py` (of images alone) and `batch_transforms.py` (of images with their
labels, places and epoch).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .batch_transforms import Batch, alternating_flip, cutmix, mixup, mixup_or_cutmix
from .image_transforms import Colour, Fill, add_noise, cutout, pca_colour, random_crop, random_flip

Augmentation = Callable[[Batch, jax.Array], Batch]
Flip = Literal["none", "random", "alternating"]


def to_float(images: jax.Array) -> jax.Array:
    """Turn integer images, 0 to 255, into float32 in [0, 1]; images that are floats stay as they are."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / 255.0


def on_images(transform: Callable[[jax.Array, jax.Array], jax.Array]) -> Augmentation:
    """Make an augmentation of a function `(images, key) -> images`; the rest of the batch stays as it is.

    Example:
        >>> darker = on_images(lambda images, key: images * jax.random.uniform(key))
        >>> batch = darker({"image": jnp.ones((2, 4, 4, 3)), "label": jnp.zeros(2, int)}, jax.random.key(0))
        >>> batch["image"].shape, batch["label"].shape
        ((2, 4, 4, 3), (2,))
    """
    return lambda batch, key: {**batch, "image": transform(batch["image"], key)}


def build_augmentation(
    *,
    crop: int = 0,
    crop_fill: Fill = "zero",
    flip: Flip = "none",
    pca_colour_scale: float = 0.0,
    principal_colours: ArrayLike | None = None,
    cutout_size: int = 0,
    cutout_fill: Colour = 0.0,
    noise: float = 0.0,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
) -> Augmentation:
    """Chain crop, flip, PCA colour, cutout, noise and a blend of images, each left out at its neutral value.

    The i-th part that is in the chain gets the key `fold_in(key, i)`. With both `mixup_alpha` and `cutmix_alpha` each
    batch gets one of the two, with probability one half.

    Args:
        crop: pixels of padding before a random crop.
        crop_fill: what they hold, see `random_crop`.
        flip: "none", "random", or "alternating" (see `alternating_flip` for what the batch must hold).
        pca_colour_scale: standard deviation of the steps along the principal colours.
        principal_colours: these, from the function of that name; only used with `pca_colour_scale`.
        cutout_size: side of the square that is erased.
        cutout_fill: what it holds, see `cutout`.
        noise: standard deviation of the noise.
        mixup_alpha: see `mixup`.
        cutmix_alpha: see `cutmix`.

    Returns:
        A function `(batch, key) -> batch`; see `cnnlab.training.make_train_step` for what a batch is.

    Raises:
        ValueError: a word that `flip` or `crop_fill` does not know, or no principal colours to vary.
    """
    for name, word, words in (("flip", flip, Flip), ("crop_fill", crop_fill, Fill)):
        if word not in get_args(words):
            raise ValueError(f"Expected {name} to be one of {', '.join(get_args(words))}, got {word!r}; do choose one.")
    parts: list[Augmentation] = []
    if crop:
        parts.append(on_images(partial(random_crop, pad=crop, fill=crop_fill)))
    if flip != "none":
        parts.append(alternating_flip if flip == "alternating" else on_images(random_flip))
    if pca_colour_scale:
        if principal_colours is None:
            raise ValueError("Expected principal_colours with pca_colour_scale, got None; do compute them.")
        parts.append(on_images(partial(pca_colour, components=principal_colours, scale=pca_colour_scale)))
    if cutout_size:
        parts.append(on_images(partial(cutout, size=cutout_size, fill=cutout_fill)))
    if noise:
        parts.append(on_images(partial(add_noise, scale=noise)))
    if mixup_alpha and cutmix_alpha:
        parts.append(partial(mixup_or_cutmix, mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha))
    elif mixup_alpha:
        parts.append(partial(mixup, alpha=mixup_alpha))
    elif cutmix_alpha:
        parts.append(partial(cutmix, alpha=cutmix_alpha))

    def augment(batch: Batch, key: jax.Array) -> Batch:
        for i, part in enumerate(parts):
            batch = part(batch, jax.random.fold_in(key, i))
        return batch

    return augment
