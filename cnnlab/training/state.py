"""The state of training: one pytree of plain arrays, with the network's structure as static data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class Structure:
    """What a network is apart from its numbers: its graph in training and in evaluation mode.

    It travels as static data of `TrainState`; two networks built alike have equal structures, so that
    compiled programs serve both.
    """

    def __init__(self, model: nnx.Module):
        model = nnx.merge(*nnx.split(model))  # the caller's stays in its mode
        model.eval()
        self._eval, params, extra = nnx.split(model, nnx.Param, ...)
        model.train()
        self._train = nnx.graphdef(model)
        self._params = jax.tree.structure(params)
        self._extra = jax.tree.structure(extra)

    def merge(self, params: Any, extra: Any, *, train: bool) -> nnx.Module:
        """Put numbers into the structure.

        Args:
            params: pure nested dictionary of trained arrays.
            extra: pure nested dictionary of all other arrays (batch statistics, dropout keys).
            train: training mode (dropout on, batch statistics of the batch) or evaluation mode.
        """
        graph = self._train if train else self._eval
        params = jax.tree.unflatten(self._params, jax.tree.leaves(params))
        extra = jax.tree.unflatten(self._extra, jax.tree.leaves(extra))
        return nnx.merge(graph, params, extra)

    @cached_property
    def _hash(self) -> int:
        return hash((self._params, self._extra))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Structure) and (
            (self._params, self._extra, self._eval, self._train)
            == (other._params, other._extra, other._eval, other._train)
        )


def split_model(model: nnx.Module) -> tuple[Structure, Any, Any]:
    """Return `(structure, params, extra)`, the last two as pure nested dictionaries of arrays."""
    _, params, extra = nnx.split(model, nnx.Param, ...)
    return Structure(model), nnx.to_pure_dict(params), nnx.to_pure_dict(extra)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything a training step reads and writes.

    Attributes:
        params: trained arrays, a nested dictionary.
        extra: all other arrays of the network: batch statistics, dropout keys.
        opt_state: state of the optax optimiser.
        learning_rate_scale: float32 scalar that multiplies every update; the plateau rule sets it.
        step: int32 scalar, updates done.
        seed: uint32 scalar; the noise of a step is `fold_in(key(seed), step)`. Dropout keys live in `extra`.
        structure: the network's graph, static.
    """

    params: Any
    extra: Any
    opt_state: Any
    learning_rate_scale: jax.Array
    step: jax.Array
    seed: jax.Array
    structure: Structure = field(metadata={"static": True})

    @classmethod
    def create(cls, model: nnx.Module, tx: optax.GradientTransformation, *, seed: int = 0) -> TrainState:
        """Start training `model` with the optimiser `tx`; copies the model's arrays (steps may donate them).

        The seed is folded into the network's random keys, so that it decides about dropout too.
        """
        structure, params, extra = split_model(model)
        params, extra = jax.tree.map(jnp.copy, params), jax.tree.map(partial(_seeded, seed=seed), extra)
        return cls(
            params=params,
            extra=extra,
            opt_state=tx.init(params),
            learning_rate_scale=jnp.asarray(1.0, jnp.float32),
            step=jnp.asarray(0, jnp.int32),
            seed=jnp.asarray(seed, jnp.uint32),
            structure=structure,
        )

    @property
    def model(self) -> nnx.Module:
        """The network with these numbers, in evaluation mode (shares the arrays: copy before donating)."""
        return self.structure.merge(self.params, self.extra, train=False)


def _seeded(x: jax.Array, seed: int) -> jax.Array:
    """Copy an array; where it holds random keys, of any shape, fold the seed into each."""
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jnp.copy(x)
    return jax.vmap(jax.random.fold_in, (0, None))(x.reshape(-1), jnp.uint32(seed)).reshape(x.shape)
