"""A training step whose batch is spread over two devices: only the arrays are placed, and the numbers stay."""

import os
import subprocess
import sys

import pytest

# Of the largest number of an array, after two steps: sums over the batch are added up in another order.
TOLERANCE = 1e-5

TWO_DEVICES = """
import sys
import jax, numpy as np, optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec as P
from cnnlab.data import build_augmentation
from cnnlab.models import ResNet, create_model
from cnnlab.training import TrainState, make_train_step

name, tolerance = sys.argv[1], float(sys.argv[2])
assert len(jax.devices()) == 2
if name == "small_resnet":
    model = ResNet("basic", (1, 1), width=4, stem="cifar", rngs=nnx.Rngs(0))
else:
    model = create_model(name)
tx = optax.sgd(0.1, momentum=0.9)
step = make_train_step(tx, augment=build_augmentation(noise=0.1, flip="random"))
rng = np.random.default_rng(0)
batches = [
    {
        "image": rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8),
        "label": rng.integers(0, 10, 8).astype(np.int32),
    }
    for _ in range(2)
]
mesh = jax.make_mesh((2,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))
spread, whole = NamedSharding(mesh, P("images")), NamedSharding(mesh, P())

def trained(batches, place=lambda state: state):
    state, losses = place(TrainState.create(model, tx, seed=5)), []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    return state, losses

expected, losses = trained(batches)
placed = [jax.device_put(batch, spread) for batch in batches]
assert len(placed[0]["image"].sharding.device_set) == 2
found, losses_there = trained(placed, lambda state: jax.device_put(state, whole))
for leaf in jax.tree.leaves(found.params):
    assert len(leaf.sharding.device_set) == 2

def off(state, other):
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()) for a, b in pairs)

np.testing.assert_allclose(losses_there, losses, rtol=tolerance)
assert off(found, expected) < tolerance, off(found, expected)
half = [{key: value[:4] for key, value in batch.items()} for batch in batches]
assert off(trained(half)[0], expected) > 100 * tolerance  # negative control: the half that one device has
print("done")
"""


@pytest.mark.slow  # tests/layers has the convolutions over devices in a quarter of the time
@pytest.mark.parametrize("name", ["lenet", "small_resnet", "resnet20"])
def test_a_step_over_a_batch_that_is_spread_over_devices_gives_the_numbers_of_one_device(name):
    variables = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TWO_DEVICES, name, str(TOLERANCE)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "done", done.stderr
