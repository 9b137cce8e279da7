"""Feature maps by name: the right numbers, in order, and the network left as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.layers import Conv, max_pool

# The same few layers in another program: XLA may sum in another order.
ROUNDING = dict(rtol=1e-5, atol=1e-6)


class Small(nnx.Module):
    """A convolution, BatchNorm, dropout, and one dense layer used twice."""

    def __init__(self, rngs):
        self.stages = nnx.List([nnx.Sequential(Conv(3, 4, 3, rngs=rngs), nnx.BatchNorm(4, rngs=rngs))])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.mix = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, images):
        x = self.dropout(nnx.relu(self.stages[0](images)))
        return self.mix(jnp.tanh(self.mix(x.mean((1, 2)))))


def pictures(images=2, side=32):
    return jnp.asarray(np.random.default_rng(0).random((images, side, side, 3)), jnp.float32)


def small():
    """In training mode, with statistics as training leaves them."""
    model = Small(nnx.Rngs(0))
    norm = model.stages[0].layers[1]
    norm.mean[...], norm.var[...] = jnp.arange(4.0), jnp.arange(1.0, 5.0)
    model.train()
    return model


def test_the_maps_of_lenet_are_what_its_layers_hand_on():
    model = cnnlab.create_model("lenet")
    images = pictures()
    maps = cnnlab.feature_maps(model, images)
    assert list(maps) == ["conv1", "conv2", *(f"hidden.{i}" for i in range(4)), "head"]

    @jax.jit
    def expected(images):
        pooled = max_pool(model.conv1(images), 2)
        return pooled, max_pool(model.conv2(nnx.relu(pooled)), 2), model.features(images), model(images)

    conv1, conv2, features, logits = expected(images)
    np.testing.assert_allclose(maps["conv1"], conv1, **ROUNDING)
    np.testing.assert_allclose(maps["conv2"], conv2, **ROUNDING)
    np.testing.assert_allclose(nnx.relu(maps["hidden.3"]), features, **ROUNDING)
    np.testing.assert_allclose(maps["head"], logits, **ROUNDING)


def test_maps_come_in_the_order_of_the_calls_and_a_second_call_has_a_number():
    maps = cnnlab.feature_maps(small(), pictures(side=8))
    names = ["stages.0", "stages.0.layers.0", "stages.0.layers.1", "dropout", "mix", "mix#2"]
    assert list(maps) == names
    np.testing.assert_array_equal(maps["stages.0"], maps["stages.0.layers.1"])
    assert not np.array_equal(maps["mix"], maps["mix#2"])


def test_the_network_runs_in_evaluation_mode_and_is_left_as_it_was():
    model, images = small(), pictures(side=8)
    graph, state = nnx.split(model)
    state = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
    maps = cnnlab.feature_maps(model, images)
    assert nnx.graphdef(model) == graph  # mode and classes
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))), state)
    assert int(model.dropout.rngs.count[...]) == 0  # and no random key is spent
    conv = np.asarray(maps["stages.0.layers.0"], np.float64)
    expected = (conv - np.arange(4)) / np.sqrt(np.arange(1, 5) + 1e-5)  # the running statistics, nothing dropped
    np.testing.assert_allclose(maps["stages.0.layers.1"], expected, **ROUNDING)
    np.testing.assert_allclose(maps["dropout"], np.maximum(expected, 0), **ROUNDING)
    nnx.jit(lambda model: model(images))(model)  # the negative control: training mode does change it
    assert int(model.dropout.rngs.count[...]) == 1


def test_a_residual_block_is_a_map_and_so_are_its_parts():
    model = cnnlab.models.ResNet("basic", (1, 1), width=4, stem="cifar", rngs=nnx.Rngs(0))
    maps = cnnlab.feature_maps(model, pictures(side=8))
    assert [name for name in maps if name.startswith("layer2")][:3] == ["layer2.0", "layer2.0.conv1", "layer2.0.bn1"]
    block, branches = maps["layer2.0"], maps["layer2.0.bn2"] + maps["layer2.0.downsample.1"]
    np.testing.assert_allclose(block, np.maximum(branches, 0), **ROUNDING)
    logits = np.asarray(block).mean((1, 2)) @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(maps["head"], logits, **ROUNDING)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("conv1", ["conv1"]),
        ("conv*", ["conv1", "conv2"]),
        ("hidden.[01]", ["hidden.0", "hidden.1"]),
        ("*.3", ["hidden.3"]),
    ],
)
def test_a_pattern_chooses_maps(pattern, names):
    assert list(cnnlab.feature_maps(cnnlab.create_model("lenet"), pictures(1), pattern)) == names


def test_a_name_chooses_all_calls_of_its_module():
    assert list(cnnlab.feature_maps(small(), pictures(side=8), "mix")) == ["mix", "mix#2"]
    assert list(cnnlab.feature_maps(small(), pictures(side=8), "mix#2")) == ["mix#2"]


def test_a_pattern_without_a_match_is_an_error_with_the_names():
    text = (
        r"Expected the name or a pattern of a feature map, got 'layer\*'; the names are conv1, conv2, hidden.0, .* head"
    )
    with pytest.raises(ValueError, match=text):
        cnnlab.feature_maps(cnnlab.create_model("lenet"), pictures(1), "layer*")


def test_feature_maps_work_inside_jit_and_have_gradients():
    model, images = cnnlab.create_model("lenet"), pictures()
    strength = lambda images: cnnlab.feature_maps(model, images, "conv2")["conv2"][..., 0].sum()  # noqa: E731
    both = jax.jit(jax.value_and_grad(strength))
    value, gradient = both(images)
    np.testing.assert_allclose(value, cnnlab.feature_maps(model, images, "conv2")["conv2"][..., 0].sum(), rtol=1e-5)
    step = 1e-2 * gradient / jnp.linalg.norm(gradient)
    # Ascent: where the network is piecewise linear, the gain is step times gradient; 10 % for its edges.
    np.testing.assert_allclose(both(images + step)[0] - value, jnp.vdot(gradient, step), rtol=0.1)
