"""`replace_head` gives a network another last layer and leaves the rest, and the original, alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.layers import Standardized

OPTIONS = {"image_size": 16, "hidden": (32,)}


class Foreign(nnx.Module):
    """A network whose last layer has PyTorch's name."""

    def __init__(self, rngs: nnx.Rngs, **options):
        self.body = nnx.Linear(12, 6, rngs=rngs)
        self.fc = nnx.Linear(6, 10, rngs=rngs, **options)

    def __call__(self, x):
        return self.fc(self.body(x))


def arrays(model):
    return {path: np.asarray(value[...]) for path, value in nnx.to_flat_state(nnx.state(model))}


def lenet(**options):
    return cnnlab.create_model("lenet", **OPTIONS, **options)


def test_only_the_head_changes_and_the_original_stays():
    model = lenet()
    before = arrays(model)
    new = cnnlab.replace_head(model, 5)
    after = arrays(new)
    assert new.head.out_features == 5 and after["head", "kernel"].shape == (32, 5)
    assert after.keys() == before.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(arrays(model)[path], value)
        if path[0] != "head":
            np.testing.assert_array_equal(after[path], value)
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    assert new(images).shape == (2, 5) and model(images).shape == (2, 10)
    np.testing.assert_array_equal(new.features(images), model.features(images))


def test_training_the_copy_cannot_reach_the_original():
    model = lenet()
    new = cnnlab.replace_head(model, 5)
    new.conv1.kernel[...] += 1
    assert not np.array_equal(new.conv1.kernel[...], model.conv1.kernel[...])


def test_the_mode_of_the_network_is_kept():
    for train in (True, False):
        model = cnnlab.create_model("lenet")
        model.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        model.train() if train else model.eval()
        assert cnnlab.replace_head(model, 3).dropout.deterministic is not train


def test_the_new_weights_have_variance_one_over_inputs_and_the_biases_are_zero():
    """LeCun normal, truncated at two standard deviations; 256 x 500 draws, so 2 % is about ten standard errors."""
    model = cnnlab.create_model("lenet", hidden=(256,))
    head = cnnlab.replace_head(model, 500, rngs=nnx.Rngs(1)).head
    np.testing.assert_array_equal(head.bias[...], np.zeros(500, np.float32))
    np.testing.assert_allclose(np.std(head.kernel[...]), 256**-0.5, rtol=0.02)
    other = cnnlab.replace_head(model, 500, rngs=nnx.Rngs(2)).head
    again = cnnlab.replace_head(model, 500, rngs=nnx.Rngs(1)).head
    assert not np.array_equal(head.kernel[...], other.kernel[...])
    np.testing.assert_array_equal(head.kernel[...], again.kernel[...])


def test_dtypes_and_a_missing_bias_carry_over():
    head = cnnlab.replace_head(lenet(dtype="bfloat16"), 5).head
    assert (head.dtype, head.kernel[...].dtype) == (jnp.bfloat16, jnp.float32)
    foreign = Foreign(nnx.Rngs(0), use_bias=False, param_dtype=jnp.bfloat16)
    fc = cnnlab.replace_head(foreign, 4).fc
    assert fc.bias is None and fc.kernel[...].dtype == jnp.bfloat16
    assert cnnlab.replace_head(Foreign(nnx.Rngs(0)), 4)(jnp.ones((1, 12))).shape == (1, 4)


def test_the_head_of_a_wrapped_network_is_found():
    model = Standardized(lenet(softmax_output=True), [0.5] * 3, [0.25] * 3)
    new = cnnlab.replace_head(model, 5)
    assert new(jnp.ones((1, 16, 16, 3))).shape == (1, 5)
    assert model.network.network.head.out_features == 10


def test_old_class_names_are_forgotten_and_how_it_is_built_is_kept_up():
    model = lenet()
    model.classes, model.image_shape = ("a", "b"), (16, 16, 3)
    new = cnnlab.replace_head(model, 5)
    assert not hasattr(new, "classes") and new.image_shape == (16, 16, 3)
    assert model.classes == ("a", "b")
    name, options = new.made_by
    again = cnnlab.create_model(name, **json.loads(options))
    assert nnx.graphdef(again.head) == nnx.graphdef(new.head)


@pytest.mark.parametrize("name", ["lenet"])
def test_a_network_without_classes_has_no_head_to_replace(name):
    with pytest.raises(ValueError, match=r"called head or fc, got None \(num_classes=0\); do build the network with"):
        cnnlab.replace_head(cnnlab.create_model(name, num_classes=0), 5)


def test_what_has_no_last_layer_is_refused():
    with pytest.raises(ValueError, match="Expected the last layer of Linear .* got none; do build"):
        cnnlab.replace_head(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), 5)
    odd = Foreign(nnx.Rngs(0))
    odd.fc = nnx.Conv(1, 1, (1, 1), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="Expected the last layer of Foreign .* got Conv;"):
        cnnlab.replace_head(odd, 5)
    with pytest.raises(ValueError, match="Expected at least one class, got 0; do pass how many there are."):
        cnnlab.replace_head(lenet(), 0)
