"""A small network, small data and ways to look at runs, for the tests of training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.data import Split
from cnnlab.training import Outcome, Recipe

CLASSES, SIDE = 3, 4


class SmallNetwork(nnx.Module):
    """Everything that makes a state interesting: batch statistics, dropout keys, weights and biases."""

    def __init__(self, width: int = 8, dropout: float = 0.3, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(SIDE * SIDE, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.first(images.reshape(images.shape[0], -1))
        return self.head(self.dropout(nnx.relu(self.norm(x))))


def small_network(seed: int = 0, **options: Any) -> SmallNetwork:
    return SmallNetwork(**options, rngs=nnx.Rngs(seed))


def small_split(images: int, seed: int = 0) -> Split:
    """Images whose label shows in their brightness, half of it noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images).astype(np.int32)
    noise = rng.integers(0, 160, (images, SIDE, SIDE, 1))
    return Split((labels[:, None, None, None] * 40 + noise).astype(np.uint8), labels)


def small_recipe(**changes: Any) -> Recipe:
    """A recipe in which everything is switched on that going on has to get right; the rate is cut early."""
    recipe = Recipe(name="small", epochs=4, batch_size=8, order="shuffled", noise=0.1, plateau_patience=1)
    return recipe.replace(**changes)


def plain(leaf: Any) -> np.ndarray:
    """A leaf as NumPy numbers; those of a random key too."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def named(tree: Any) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): plain(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unequal(one: Any, other: Any) -> list[str]:
    """The names of the leaves whose bits differ."""
    a, b = named(one), named(other)
    assert a.keys() == b.keys()
    return [name for name in a if (a[name].dtype, a[name].tobytes()) != (b[name].dtype, b[name].tobytes())]


def without_clock(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in history]


def runs_differ_in(one: Outcome, other: Outcome) -> list[str]:
    """What two runs differ in, the clock apart: leaves of state and best network, and records of the history."""
    found = [f"last{name}" for name in unequal(one.last, other.last)]
    found += [f"best{name}" for name in unequal(nnx.state(one.best), nnx.state(other.best))]
    pairs = zip(without_clock(one.position.history), without_clock(other.position.history), strict=True)
    found += [f"epoch {a['epoch']}" for a, b in pairs if a != b]
    positions = [(p.epoch, p.step, p.sums, p.plateau, p.stop_reason) for p in (one.position, other.position)]
    return found + ["position"] * (positions[0] != positions[1])


@pytest.fixture(scope="session")
def network():
    return small_network


@pytest.fixture(scope="session")
def split():
    return small_split


@pytest.fixture(scope="session")
def recipe():
    return small_recipe


@pytest.fixture(scope="session")
def differences():
    return unequal


@pytest.fixture(scope="session")
def run_differences():
    return runs_differ_in
