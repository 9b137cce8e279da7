"""The state of training: one pytree of plain arrays, with the network's structure as static data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from .checks import expect_seed
from .groups import frozen_modules, trained_filter


class Structure:
    """What a network is apart from its numbers: its graph in training and in evaluation mode.

    It travels as static data of `TrainState`; two networks built alike have equal structures, so that
    compiled programs serve both. What is frozen is part of the structure: frozen parameters are not among the
    trained arrays, and a module that holds nothing but frozen ones stays in evaluation mode while others train.

    Args:
        model: the network.
        freeze: patterns of the parameters to freeze, as in `Recipe.freeze`.

    Raises:
        RecipeError: a pattern that matches nothing, or no parameter is left to train.
    """

    def __init__(self, model: nnx.Module, freeze: Sequence[str] = ()):
        model = nnx.merge(*nnx.split(model))  # the caller's stays in its mode
        self._trained = trained_filter(model, freeze)
        model.eval()
        self._eval, params, extra = nnx.split(model, self._trained, ...)
        model.train()
        for module in frozen_modules(model, self._trained):
            module.eval()
        self._train = nnx.graphdef(model)
        self._params = jax.tree.structure(params)
        self._extra = jax.tree.structure(extra)

    def merge(self, params: Any, extra: Any, *, train: bool) -> nnx.Module:
        """Put numbers into the structure.

        Args:
            params: pure nested dictionary of trained arrays.
            extra: pure nested dictionary of all other arrays (frozen ones, batch statistics, dropout keys).
            train: training mode (dropout on, batch statistics of the batch) or evaluation mode.
        """
        graph = self._train if train else self._eval
        params = jax.tree.unflatten(self._params, jax.tree.leaves(params))
        extra = jax.tree.unflatten(self._extra, jax.tree.leaves(extra))
        return nnx.merge(graph, params, extra)

    def split(self, model: nnx.Module) -> tuple[Any, Any]:
        """Return what `merge` puts in, `(params, extra)`, as pure nested dictionaries of arrays."""
        _, params, extra = nnx.split(model, self._trained, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(extra)

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


def split_model(model: nnx.Module, freeze: Sequence[str] = ()) -> tuple[Structure, Any, Any]:
    """Return `(structure, params, extra)`, the last two as pure nested dictionaries of arrays."""
    structure = Structure(model, freeze)
    return structure, *structure.split(model)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything a training step reads and writes.

    Attributes:
        params: trained arrays, a nested dictionary.
        extra: all other arrays of the network: frozen parameters, batch statistics, dropout keys.
        opt_state: state of the optax optimiser, for the trained arrays alone.
        learning_rate_scale: float32 scalar that multiplies every update; the plateau rule sets it.
        step: int32 scalar, updates done.
        seed: uint32 scalar; the noise of a step is `fold_in(key(seed), step)`. Dropout keys live in `extra`.
        average: `(params, extra)` averaged over the steps, which is then what is evaluated; None for none.
        structure: the network's graph, static.
    """

    params: Any
    extra: Any
    opt_state: Any
    learning_rate_scale: jax.Array
    step: jax.Array
    seed: jax.Array
    average: tuple[Any, Any] | None
    structure: Structure = field(metadata={"static": True})

    @classmethod
    def create(
        cls,
        model: nnx.Module,
        tx: optax.GradientTransformation,
        *,
        seed: int = 0,
        freeze: Sequence[str] = (),
        average: bool = False,
    ) -> TrainState:
        """Start training `model` with the optimiser `tx`; copies the model's arrays (steps may donate them).

        The seed, from 0 to 2**32 - 1 (else ValueError), is folded into the network's random keys, so that it decides
        about dropout too. Parameters that a pattern of `freeze` matches are not trained (`Recipe.freeze`). With
        `average` there is room for the average that a step with `averaging` keeps.
        """
        seed = expect_seed(seed)
        structure, params, extra = split_model(model, freeze)
        params, extra = jax.tree.map(jnp.copy, params), jax.tree.map(partial(_seeded, seed=seed), extra)
        return cls(
            params=params,
            extra=extra,
            opt_state=tx.init(params),
            learning_rate_scale=jnp.asarray(1.0, jnp.float32),
            step=jnp.asarray(0, jnp.int32),
            seed=jnp.asarray(seed, jnp.uint32),
            average=jax.tree.map(jnp.copy, (params, extra)) if average else None,
            structure=structure,
        )

    @property
    def evaluated(self) -> tuple[Any, Any]:
        """The `(params, extra)` to evaluate and to keep: the average where there is one."""
        return (self.params, self.extra) if self.average is None else self.average

    @property
    def model(self) -> nnx.Module:
        """The network to evaluate, in evaluation mode (shares the arrays: copy before donating)."""
        return self.structure.merge(*self.evaluated, train=False)


def _seeded(x: jax.Array, seed: int) -> jax.Array:
    """Copy an array; where it holds random keys, of any shape, fold the seed into each."""
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jnp.copy(x)
    return jax.vmap(jax.random.fold_in, (0, None))(x.reshape(-1), jnp.uint32(seed)).reshape(x.shape)
