"""Checks of the images' height and width, with errors that say what to do."""

from __future__ import annotations

import warnings

import jax

from .registry import SMALL_IMAGES


def expect_side(images: jax.Array, side: int) -> None:
    """Raise ValueError unless the images, `[batch, height, width, channels]`, have height and width `side`."""
    if images.shape[1:3] != (side, side):
        raise ValueError(
            f"Expected images of {side} x {side} pixels, got {images.shape[1]} x {images.shape[2]}; "
            "do resize them, or build the network with another image_size."
        )


def expect_at_least(side: int, smallest: int, name: str, remedy: str = "resize them") -> None:
    """Raise ValueError when images of `side` pixels are too small for the network called `name`."""
    if side < smallest:
        raise ValueError(f"Expected images of at least {smallest} pixels for {name}, got {side}; do {remedy}.")


def warn_below_imagenet(images: jax.Array, part: str, remedy: str) -> None:
    """Warn the caller's caller when images below `SMALL_IMAGES` pixels meet a part that is made for ImageNet's."""
    height, width = images.shape[1:3]
    if min(height, width) < SMALL_IMAGES:
        warnings.warn(
            f"Expected images of at least {SMALL_IMAGES} pixels for {part}, got {height} x {width}; do {remedy}.",
            stacklevel=3,
        )
