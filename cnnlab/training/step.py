"""The one training step and the one evaluation step: pure functions of a state and a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnlab.data.augmentation import Augmentation, to_float
from cnnlab.data.batch_transforms import Batch as Batch

from .averaging import Averaging
from .state import TrainState

Loss = Callable[[jax.Array, jax.Array], jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, "Metrics"]]


class Metrics(NamedTuple):
    """Sums over images, so that batches of any size add up exactly; all scalars on the device."""

    loss_sum: jax.Array
    correct: jax.Array
    count: jax.Array

    @classmethod
    def zero(cls) -> Metrics:
        """Return sums over no image."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def __add__(self, other: Metrics) -> Metrics:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Metrics(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def loss(self) -> jax.Array:
        """Mean loss per image."""
        return self.loss_sum / self.count

    @property
    def accuracy(self) -> jax.Array:
        """Share of images whose largest logit is the label's."""
        return self.correct / self.count


def cross_entropy(logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0) -> jax.Array:
    """Return the cross entropy of each image in nats, `[batch]`, in float32.

    Args:
        logits: `[batch, classes]`.
        labels: int `[batch]`.
        label_smoothing: share of the target spread evenly over all classes.
    """
    logits = logits.astype(jnp.float32)
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def make_train_step(
    tx: optax.GradientTransformation,
    *,
    loss: Loss = cross_entropy,
    augment: Augmentation | None = None,
    averaging: Averaging | None = None,
    jit: bool = True,
) -> TrainStep:
    """Return `step(state, batch) -> (state, metrics)`: loss, gradient, update and metrics in one program.

    Args:
        tx: the optimiser whose state is in `state.opt_state`.
        loss: `(logits [batch, classes], labels [batch]) -> [batch]`; the step minimises its mean.
        augment: `(batch, key) -> batch`, with `batch["image"]` float32 in [0, 1] and `batch["seed"]`, uint32, that of
            the run; `cnnlab.data.on_images` makes one of a function of images. It may add `"other_label"` (int32 `[b]`)
            and `"share"` (float32 `[b]`): the loss of an image is then share times that of its label plus the rest
            times that of the other label.
        averaging: what `cnnlab.training.make_averaging` returns; the state needs `average=True` then.
        jit: compile the step and donate the old state; False returns the plain function, to be part of
            a larger program.

    Returns:
        A function of a `TrainState` and a batch, giving the next state and the `Metrics` of the batch (before the
        update). The batch is a dictionary: `"image"` is uint8, or float in [0, 1], `[b, h, w, c]`; `"label"` is int32
        `[b]`. Alternating flips also want `"index"`, int32 `[b]`, the places of the images in the data set, and
        `"epoch"`, an int32 scalar from 0.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        batch = {**batch, "image": to_float(batch["image"]), "seed": state.seed}
        if augment is not None:
            batch = augment(batch, jax.random.fold_in(jax.random.key(state.seed), state.step))

        def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Any]]:
            model = state.structure.merge(params, state.extra, train=True)
            logits = model(batch["image"])  # pyright: ignore[reportCallIssue]
            losses = _losses(loss, logits, batch)
            _, extra = state.structure.split(model)
            return losses.mean(), (losses, logits, extra)

        gradient, (losses, logits, extra) = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: u * state.learning_rate_scale.astype(u.dtype), updates)
        network, average, number = (optax.apply_updates(state.params, updates), extra), state.average, state.step + 1
        if averaging is not None:
            if average is None:
                raise ValueError("Expected a state with room for the average; do create it with average=True.")
            average, network = averaging(average, network, number)
        params, extra = network
        new_state = dataclasses.replace(
            state, params=params, extra=extra, opt_state=opt_state, step=number, average=average
        )
        return new_state, _metrics(losses, logits, batch["label"])

    return jax.jit(step, donate_argnums=0) if jit else step


def make_eval_step(*, loss: Loss = cross_entropy, jit: bool = True) -> Callable[[TrainState, Batch], Metrics]:
    """Return `step(state, batch) -> metrics` with the network in evaluation mode.

    The batch is that of the training step; an optional `"mask"` (bool `[batch]`) leaves padding out of
    every sum, so that a short last batch can keep the shape of the others.
    """

    def step(state: TrainState, batch: Batch) -> Metrics:
        logits = state.model(to_float(batch["image"]))  # pyright: ignore[reportCallIssue]
        return _metrics(loss(logits, batch["label"]), logits, batch["label"], batch.get("mask"))

    return jax.jit(step) if jit else step


def _losses(loss: Loss, logits: jax.Array, batch: Batch) -> jax.Array:
    losses = loss(logits, batch["label"])
    if "other_label" not in batch:
        return losses
    return batch["share"] * losses + (1 - batch["share"]) * loss(logits, batch["other_label"])


def _metrics(losses: jax.Array, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None) -> Metrics:
    mask = jnp.ones(labels.shape, bool) if mask is None else mask
    correct = (jnp.argmax(logits, axis=-1) == labels) & mask
    return Metrics(
        jnp.where(mask, losses, 0.0).sum(dtype=jnp.float32),
        correct.sum(dtype=jnp.int32),
        mask.sum(dtype=jnp.int32),
    )
