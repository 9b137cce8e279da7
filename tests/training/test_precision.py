"""bfloat16 arithmetic: which numbers are rounded, which stay float32, and that fit, load and fine-tuning agree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import cnnlab
from cnnlab.layers import BatchNorm, Standardized
from cnnlab.training import Recipe, TrainState, make_train_step
from cnnlab.training.precision import set_precision
from cnnlab.training.state import Structure

SMALL = {
    "lenet": {},
    "resnet20": {},
    "resnet18": {"stem": "cifar"},
    "vgg11_bn": {"classifier": "cifar"},
    "alexnet_cifar": {},
    "convnet4": {},
    "mlp": {"hidden": [16]},
}


@pytest.mark.parametrize("name", [*SMALL])
def test_every_family_computes_in_bfloat16_and_keeps_float32_numbers(name):
    """In the abstract: what every module hands on, and the types of a state after a training step."""
    recipe = Recipe(schedule="constant")
    tx = cnnlab.make_optimizer(recipe, 1)
    step = make_train_step(tx, jit=False)
    seen = {}

    def run():
        model = set_precision(cnnlab.create_model(name, **SMALL[name], rngs=nnx.Rngs(0)), "bfloat16")
        seen.update(cnnlab.feature_maps(model, jnp.zeros((2, 32, 32, 3))))
        state = TrainState.create(model, tx)
        after, metrics = step(state, {"image": jnp.zeros((2, 32, 32, 3)), "label": jnp.zeros(2, jnp.int32)})
        return (state.params, state.extra), (after.params, after.extra), after.opt_state, metrics.loss

    before, after, opt_state, loss = jax.eval_shape(run)
    assert {name: str(result.dtype) for name, result in seen.items()} == dict.fromkeys(seen, "bfloat16")
    assert "head" in seen and len(seen) > 1 and loss.dtype == jnp.float32
    kinds = lambda tree: [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]  # noqa: E731
    assert kinds(before) == kinds(after)
    floats = [leaf.dtype for leaf in jax.tree.leaves((before, opt_state)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")}


def test_every_layer_with_an_open_type_gets_it_and_one_that_was_built_with_a_type_keeps_it():
    class Mixed(nnx.Module):
        def __init__(self, rngs):
            self.open = nnx.Linear(4, 4, rngs=rngs)
            self.precise = nnx.Linear(4, 4, dtype=jnp.float32, rngs=rngs)
            self.norms = nnx.List([BatchNorm(4, rngs=rngs)])

    model = Mixed(nnx.Rngs(0))
    half = set_precision(model, "bfloat16")
    assert (half.open.dtype, half.precise.dtype, half.norms[0].dtype) == (jnp.bfloat16, jnp.float32, jnp.bfloat16)
    assert (model.open.dtype, model.norms[0].dtype) == (None, None)  # the given one is not changed
    assert set_precision(model, "float32") is model
    assert Structure(half) != Structure(model) and Structure(half) == Structure(set_precision(model, "bfloat16"))


def test_a_batch_norm_of_flax_does_not_round_its_running_statistics():
    norm = nnx.BatchNorm(2, use_running_average=True, epsilon=0.0, rngs=nnx.Rngs(0))
    norm.mean[...] = jnp.array([1000.5, 0.0])  # bfloat16 has 1000 and 1004 next to it
    x = jnp.array([[1000.5, 0.25], [1001.75, -3.0]])
    half = set_precision(nnx.Sequential(norm, nnx.Linear(2, 2, rngs=nnx.Rngs(0))), "bfloat16")
    np.testing.assert_array_equal(half.layers[0](x), [[0.0, 0.25], [1.25, -3.0]])
    assert half(x).dtype == jnp.bfloat16  # the layer behind it rounds again


def test_the_result_of_a_layer_is_that_of_rounded_inputs_and_weights():
    layer = nnx.Linear(64, 8, use_bias=False, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(16, 64))
    rounded = lambda a: np.asarray(jnp.bfloat16(a), np.float64)  # noqa: E731
    expected = rounded(x) @ rounded(layer.kernel[...])
    got = set_precision(layer, "bfloat16")(jnp.float32(x))
    assert got.dtype == jnp.bfloat16 and layer(jnp.float32(x)).dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=2**-8, atol=1e-6)  # its own rounding


def test_behind_a_standardisation_the_network_inside_gets_it():
    model = Standardized(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), (0.5,) * 3, (0.2,) * 3)
    assert set_precision(model, "bfloat16")(jnp.ones((1, 2, 2, 3))).dtype == jnp.bfloat16


@pytest.fixture(scope="module")
def recipe():
    return Recipe(precision="bfloat16", schedule="cosine", epochs=6, learning_rate=0.1, batch_size=64, held_out=0.1)


@pytest.fixture(scope="module")
def run(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("half") / "run"
    return cnnlab.fit("mlp", "digits", recipe, model_options={"hidden": [32]}, out=folder, progress=False)


def types(model) -> set:
    return {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))}


def test_a_run_in_bfloat16_learns_and_loads_as_it_was(run):
    assert run.evaluation.accuracy > 0.85
    assert types(run.best) == types(run.last.model) == {"float32"}
    images = jnp.asarray(np.random.default_rng(0).random((4, 8, 8, 1)), jnp.float32)
    logits, loaded = run.best(images), cnnlab.load(run.folder)(images)
    assert logits.dtype == loaded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(loaded, np.float32), np.asarray(logits, np.float32))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_from_a_run_in_bfloat16_goes_on_in_the_precision_of_the_next_recipe(run, recipe, tmp_path, precision):
    again = recipe.replace(precision=precision, epochs=1, learning_rate=1e-3)
    network = cnnlab.load(run.folder)
    tuned = cnnlab.fit(network, "digits", again, out=tmp_path / "tuned", progress=False)
    images = jnp.zeros((1, 8, 8, 1))
    assert tuned.best(images).dtype == cnnlab.load(tmp_path / "tuned")(images).dtype == jnp.dtype(precision)
    assert network(images).dtype == jnp.bfloat16  # the given network is not changed


def test_rounding_is_not_lost_on_the_way_to_the_step():
    """Negative control: a step in bfloat16 gives other, but similar, losses than one in float32."""
    model = cnnlab.create_model("mlp", hidden=[16], image_size=8, in_channels=1, rngs=nnx.Rngs(0))
    batch = {"image": jnp.ones((8, 8, 8, 1)) / 3, "label": jnp.arange(8)}
    tx = optax.sgd(0.1)
    losses = []
    for precision in ("float32", "bfloat16"):
        _, metrics = make_train_step(tx)(TrainState.create(set_precision(model, precision), tx), batch)
        losses.append(float(metrics.loss))
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)
