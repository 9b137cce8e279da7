"""The JAX contenders of `lenet_step.py`: cnnlab as it is used, and a plain Flax network as a baseline."""

from __future__ import annotations

from contender import BATCH, MOMENTUM, NOISE, RATE, WIDTHS, Channel, make_data

if __name__ == "__main__":  # binds the process to its CPUs: before JAX starts its threads
    CHANNEL = Channel()

import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import cnnlab
from cnnlab.data import Split
from cnnlab.training import Trainer
from cnnlab.training.callbacks import Callback
from cnnlab.training.precision import set_precision


class Answering(Callback):
    """Makes each epoch of a run one timed pass: answers at its end, and waits there for the next request."""

    def __init__(self, channel: Channel):
        self._channel = channel
        self._facts: dict[str, Any] = {}

    def on_start(self, info: dict[str, Any]) -> None:
        """Keep what the run says of itself."""
        self._facts |= {"parameters": info["parameters"], "images": info["train_images"]}

    def on_compile(self, seconds: float | None) -> None:
        """Keep the seconds of compilation."""
        self._facts["compile_seconds"] = seconds

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Answer with the time of the epoch's steps (the evaluation after them is not in it)."""
        seconds = self._facts["images"] / record["images_per_second"]
        self._channel.answer(seconds=seconds, loss=record["train_loss"], **self._facts)


def run_cnnlab(channel: Channel, *, noise: float) -> None:
    """Train with `Trainer`, as `cnnlab.fit` does, a pass per request."""
    # No end but the parent's: the rules that stop a run or cut its rate are put out of reach.
    never = 1_000_000
    recipe = cnnlab.get_recipe("thesis").replace(
        noise=noise,
        epochs=never,
        plateau_patience=never,
        convergence_patience=never,
        target_accuracy=2.0,
        precision=channel.options["dtype"],
    )
    train = Split(*make_data(channel.options["steps"]))
    trainer = Trainer(recipe, train, train.take(slice(0, BATCH)), "test")
    network = set_precision(cnnlab.create_model("lenet"), recipe.precision)
    trainer.run(network, callbacks=[Answering(channel)])


class PlainLeNet(nnx.Module):
    """The thesis' network as a Flax user writes it."""

    def __init__(self, rngs: nnx.Rngs, dtype: str):
        self.conv1 = nnx.Conv(3, 6, (5, 5), padding="VALID", dtype=dtype, rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", dtype=dtype, rngs=rngs)
        sizes = zip(WIDTHS[:-1], WIDTHS[1:], strict=True)
        self.dense = nnx.List([nnx.Linear(a, b, dtype=dtype, rngs=rngs) for a, b in sizes])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[b, 32, 32, 3]` to logits `[b, 10]`."""
        for conv in (self.conv1, self.conv2):
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for layer in self.dense[:-1]:
            x = nnx.relu(layer(x))
        return self.dense[-1](x)


def run_flax(channel: Channel) -> None:
    """Train with one jitted step per batch: split once, donated state, data on the device."""
    steps = channel.options["steps"]
    images, labels = map(jnp.asarray, make_data(steps))
    graph, params = nnx.split(PlainLeNet(nnx.Rngs(0), channel.options["dtype"]))
    tx = optax.sgd(RATE, momentum=MOMENTUM)

    def step(carry, i, images, labels):
        params, opt_state, key, total = carry
        x = jax.lax.dynamic_slice_in_dim(images, i * BATCH, BATCH).astype(jnp.float32) / 255
        y = jax.lax.dynamic_slice_in_dim(labels, i * BATCH, BATCH)
        key, noise_key = jax.random.split(key)
        x = x + NOISE * jax.random.normal(noise_key, x.shape)

        def objective(params):
            logits = nnx.merge(graph, params)(x).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss, gradient = jax.value_and_grad(objective)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, key, total + loss

    carry = (params, tx.init(params), jax.random.key(0), jnp.zeros(()))
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(carry, jnp.int32(0), images, labels).compile()
    facts = {
        "parameters": sum(p.size for p in jax.tree.leaves(params)),
        "compile_seconds": time.perf_counter() - start,
        "images": len(images),
    }
    indices = [jnp.int32(i) for i in range(steps)]
    while True:
        start = time.perf_counter()
        for i in indices:
            carry = compiled(carry, i, images, labels)
        loss = float(carry[-1]) / steps
        seconds = time.perf_counter() - start
        carry = (*carry[:-1], jnp.zeros(()))
        channel.answer(seconds=seconds, loss=loss, **facts)


if __name__ == "__main__":
    kind = CHANNEL.options["kind"]
    if kind == "plain flax":
        run_flax(CHANNEL)
    else:
        run_cnnlab(CHANNEL, noise=NOISE if kind == "cnnlab" else 0.0)
