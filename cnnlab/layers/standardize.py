"""Standardisation of the input as part of the network, so that a saved network needs no side information."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx


class Constant(nnx.Variable):
    """State that training leaves alone."""


class Standardized(nnx.Module):
    """A network behind `(images - mean) / std`, per channel.

    Args:
        network: any module that maps images to logits and has `features`.
        mean: one number per channel, of images in [0, 1].
        std: likewise, positive.
    """

    def __init__(self, network: nnx.Module, mean: Sequence[float], std: Sequence[float]):
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"Expected one mean and one positive std per channel, got {mean!r} and {std!r}.")
        self.network = network
        self.mean = Constant(jnp.asarray(mean, jnp.float32))
        self.std = Constant(jnp.asarray(std, jnp.float32))

    def _standardize(self, images: jax.Array) -> jax.Array:
        mean, std = (v[...].reshape((1,) * (images.ndim - 1) + (-1,)) for v in (self.mean, self.std))
        return (images - mean) / std

    def prepare(self, images: jax.Array) -> None:
        """Let a network that computes weights from images do so (such as `CifarNet`); others stay as they are.

        Args:
            images: float32 in [0, 1], `[n, height, width, channels]`.
        """
        prepare = getattr(self.network, "prepare", None)
        if prepare is not None:
            prepare(self._standardize(images))

    def features(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to the features of the network."""
        return self.network.features(self._standardize(images))  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to logits `[batch, classes]`."""
        return self.network(self._standardize(images))  # pyright: ignore[reportCallIssue]
