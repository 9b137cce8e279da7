"""cnnlab's side of `architectures.py`: one network, trained as `cnnlab.fit` does it, and its logits."""

from __future__ import annotations

from contender import Channel

if __name__ == "__main__":  # binds the process to its CPUs: before JAX starts its threads
    CHANNEL = Channel()

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from architecture_task import MOMENTUM, RATE, Pass, forget_peak, make_batch, peak_bytes, resident_bytes, steps_a_call

import cnnlab
from cnnlab.data import Split
from cnnlab.data.augmentation import to_float
from cnnlab.training import Metrics
from cnnlab.training.epoch import Epoch, put_on_device


class Training:
    """A network's epoch over copies of one batch, as many as a call has steps; calling it trains so many.

    Args:
        options: the task (`architecture_task`).

    Attributes:
        steps: of a call.
        state: before the next call.
        metrics: sums over the last call.
        data: the copies, on the device.
        epoch: with the compiled programs.
        compile_seconds: what these took.
        copied_bytes: of the batch's copies beyond the first, no part of what a step needs.
    """

    def __init__(self, options: dict[str, Any]):
        images, labels = make_batch(options)
        tx = optax.sgd(RATE, momentum=MOMENTUM)
        self.state = cnnlab.TrainState.create(cnnlab.create_model(options["name"], **options["model_options"]), tx)
        self.metrics = Metrics.zero()
        self.steps = steps_a_call(options)
        self.copied_bytes = (self.steps - 1) * (images.nbytes + labels.nbytes)
        self.data = put_on_device(Split(np.concatenate([images] * self.steps), np.concatenate([labels] * self.steps)))
        self.epoch = Epoch(cnnlab.make_train_step(tx, jit=False), options["batch_size"])
        self.compile_seconds = self.epoch.compile(self.state, self.data, None)

    def __call__(self) -> Metrics:
        """Train; return what there is to wait for."""
        self.state, self.metrics = self.epoch.run(self.state, Metrics.zero(), self.data, None, 0, self.steps)
        return self.metrics


def run(channel: Channel) -> None:
    """Compile, then time a pass of forward and one of training steps per request."""
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache would be no compilation
    options = channel.options
    wake()
    before = resident_bytes()
    train = Training(options)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(train.state.params))

    def forward(state: cnnlab.TrainState, images: jax.Array) -> jax.Array:
        return state.model(to_float(images[: options["batch_size"]]))

    start = time.perf_counter()
    logits = jax.jit(forward).lower(train.state, train.data.images).compile()
    forward_compile_seconds = time.perf_counter() - start

    forget_peak()
    forward_pass = Pass(lambda: logits(train.state, train.data.images), jax.block_until_ready, options["seconds"])
    train_pass = Pass(train, jax.block_until_ready, options["seconds"], steps_a_call=train.steps)
    device = jax.local_devices()[0]
    channel.answer(ready=True)
    while True:
        forward, training = forward_pass(), train_pass()
        loss = float(train.metrics.loss)
        memory = device.memory_stats()
        channel.answer(
            forward_seconds=forward,
            train_seconds=training,
            steps={"forward": forward_pass.steps, "train": train_pass.steps},
            loss=loss if math.isfinite(loss) else None,
            parameters=parameters,
            compile_seconds=train.compile_seconds,
            forward_compile_seconds=forward_compile_seconds,
            peak_bytes=(memory["peak_bytes_in_use"] if memory else peak_bytes() - before) - train.copied_bytes,
            program_bytes=max(map(program_bytes, train.epoch.programs)) - train.copied_bytes,
            device=device.device_kind,
        )


def wake() -> None:
    """Compile and run a gradient, so that what JAX loads for that is not counted as the network's memory."""
    image, kernel = jnp.zeros((1, 8, 8, 3)), jnp.zeros((3, 3, 3, 4))
    numbers = ("NHWC", "HWIO", "NHWC")

    def loss(kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=numbers).sum()

    jax.jit(jax.grad(loss))(kernel).block_until_ready()


def program_bytes(compiled: Any) -> int:
    """What a compiled program needs while it runs: arguments, outputs and temporaries; what they share counts once."""
    sizes = compiled.memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return held - sizes.alias_size_in_bytes


if __name__ == "__main__":
    run(CHANNEL)
