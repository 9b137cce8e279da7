"""Summaries: exact counts, nothing allocated, the network left as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.layers import Conv
from cnnlab.models import list_models, model_info
from cnnlab.models.registry import REGISTRY, register_model


class Net(nnx.Module):
    """A network made of what a test gives it: layers, and a function of itself and the images."""

    def __init__(self, forward, **layers):
        self.forward = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def __call__(self, images):
        return self.forward(self, images)


def rows(summary):
    return {row.name: row for row in summary.layers}


def linear(inputs, outputs):
    return nnx.Linear(inputs, outputs, rngs=nnx.Rngs(0))


def test_the_layers_of_lenet_are_those_one_counts_by_hand():
    found = cnnlab.summarize("lenet")
    counts = [(row.name, row.kind, row.output_shape, row.parameters, row.multiply_adds) for row in found.layers]
    # Each convolution at its full resolution, though the network asks for it pooled and CPU computes it in blocks.
    assert counts == [
        ("conv1", "Conv", (1, 14, 14, 6), 75 * 6 + 6, 28 * 28 * 6 * 75),
        ("conv2", "Conv", (1, 5, 5, 16), 150 * 16 + 16, 10 * 10 * 16 * 150),
        ("hidden.0", "Linear", (1, 400), 400 * 400 + 400, 400 * 400),
        ("hidden.1", "Linear", (1, 120), 400 * 120 + 120, 400 * 120),
        ("hidden.2", "Linear", (1, 256), 120 * 256 + 256, 120 * 256),
        ("hidden.3", "Linear", (1, 84), 256 * 84 + 84, 256 * 84),
        ("head", "Linear", (1, 10), 84 * 10 + 10, 84 * 10),
    ]
    assert found.activation_bytes == 4 * (14 * 14 * 6 + 5 * 5 * 16 + 400 + 120 + 256 + 84 + 10)
    assert (found.parameters, found.multiply_adds) == (264_806, 853_864)


def resnet_by_hand(depths: tuple[int, ...]) -> int:
    """Multiply-adds of a ResNet of basic blocks at 224 pixels and 1000 classes."""
    total = 112 * 112 * 64 * 7 * 7 * 3
    inputs, side = 64, 56
    for stage, depth in enumerate(depths):
        width = 64 << stage
        side = side if stage == 0 else side // 2
        total += side * side * width * 9 * (inputs + (2 * depth - 1) * width)
        total += side * side * width * inputs if inputs != width else 0
        inputs = width
    return total + inputs * 1000


def vgg_by_hand(stages: tuple[int, ...]) -> int:
    """Multiply-adds of a VGG at 224 pixels and 1000 classes."""
    total, inputs, side = 0, 3, 224
    for stage, depth in enumerate(stages):
        width = min(64 << stage, 512)
        total += side * side * width * 9 * (inputs + (depth - 1) * width)
        inputs, side = width, side // 2
    return total + 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000


ALEXNET_SINGLE = (
    55 * 55 * 64 * 11 * 11 * 3
    + 27 * 27 * 192 * 25 * 64
    + 13 * 13 * 9 * (384 * 192 + 256 * 384 + 256 * 256)
    + 256 * 6 * 6 * 4096
    + 4096 * 4096
    + 4096 * 1000
)


# Beside the count by hand: thousand-millions of multiply-adds as torchvision's tables give them.
@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds", "published"),
    [
        ("resnet18", 11_689_512, resnet_by_hand((2, 2, 2, 2)), 1.81),
        ("resnet34", 21_797_672, resnet_by_hand((3, 4, 6, 3)), 3.66),
        ("resnet50", 25_557_032, None, 4.09),
        ("alexnet_single", 61_100_840, ALEXNET_SINGLE, 0.71),
        ("vgg16", 138_357_544, vgg_by_hand((2, 2, 3, 3, 3)), 15.47),
    ],
)
def test_networks_of_the_literature_have_the_published_counts(name, parameters, multiply_adds, published):
    found = cnnlab.summarize(name, num_classes=1000)
    assert found.image_shape == (1, 224, 224, 3)
    assert found.parameters == parameters
    assert multiply_adds is None or found.multiply_adds == multiply_adds
    assert round(found.multiply_adds / 1e9, 2) == published


@pytest.mark.parametrize(
    ("options", "side", "multiply_adds"),
    [
        (dict(padding="SAME"), 8, 8 * 8 * 12 * 9 * 4),
        (dict(padding="VALID"), 8, 6 * 6 * 12 * 9 * 4),
        (dict(padding=1, strides=2), 9, 5 * 5 * 12 * 9 * 4),
        (dict(padding=0, kernel_dilation=2), 9, 5 * 5 * 12 * 9 * 4),
        (dict(padding=1, feature_group_count=2), 8, 8 * 8 * 12 * 9 * 2),
        (dict(padding=1, dtype="bfloat16"), 8, 8 * 8 * 12 * 9 * 4),
    ],
    ids=str,
)
def test_a_convolution_counts_its_outputs_times_its_kernel(options, side, multiply_adds):
    # Four channels in: some of these are computed in blocks on CPU, which takes more products than are counted.
    dtype = jnp.dtype(options.pop("dtype", "float32"))
    model = Net(lambda m, x: m.conv(x), conv=Conv(4, 12, 3, **options, dtype=dtype, rngs=nnx.Rngs(0)))
    (row,) = cnnlab.summarize(model, image_size=side, in_channels=4, batch=3).layers
    assert row.multiply_adds == multiply_adds
    assert row.output_shape[0] == 3
    assert row.activation_bytes == np.prod(row.output_shape[1:]) * dtype.itemsize


def test_a_layer_that_is_called_twice_computes_twice_and_has_its_weights_once():
    model = Net(lambda m, x: m.mix(m.mix(x)).mean((1, 2)), mix=linear(3, 3))
    first, second = cnnlab.summarize(model, image_size=4).layers
    assert first.name == second.name == "mix"
    assert first.multiply_adds == second.multiply_adds == 4 * 4 * 3 * 3
    assert (first.parameters, second.parameters) == (12, 0)


def test_what_the_network_computes_outside_of_layers_is_a_row_of_its_own():
    model = Net(lambda m, x: jnp.einsum("bhwc,bhwd->bcd", x, x).sum(2) * m.scale, scale=nnx.Param(jnp.ones((1, 3))))
    (row,) = cnnlab.summarize(model, image_size=4, batch=2).layers
    assert (row.name, row.parameters, row.multiply_adds) == ("", 3, 4 * 4 * 3 * 3)
    assert "(network)" in str(cnnlab.summarize(model, image_size=4))


def test_a_layer_that_is_not_called_is_listed_with_its_weights():
    model = Net(lambda m, x: m.used(x), used=linear(3, 2), idle=linear(5, 7))
    used, idle = cnnlab.summarize(model, image_size=4).layers
    assert (idle.name, idle.output_shape, idle.parameters, idle.multiply_adds) == ("idle", (), 42, 0)
    assert used.name == "used" and "not called" in str(cnnlab.summarize(model, image_size=4))


def test_loops_and_rematerialised_layers_count_what_runs():
    def loop(m, x):
        turn = lambda x, _: (m.mix(x), None)  # noqa: E731
        x, _ = jax.lax.scan(turn, x, length=5)
        return jax.checkpoint(lambda x: m.again(x))(x)

    found = rows(cnnlab.summarize(Net(loop, mix=linear(3, 3), again=linear(3, 3)), image_size=4))
    assert found["mix"].multiply_adds == 5 * 4 * 4 * 9
    assert found["again"].multiply_adds == 4 * 4 * 9


def test_the_costliest_branch_of_a_condition_counts():
    def branch(m, x):
        return jax.lax.cond(x.sum() > 0, lambda x: x @ jnp.ones((3, 8)), lambda x: jnp.ones((1, 4, 4, 8)), x)

    assert cnnlab.summarize(Net(branch), image_size=4).multiply_adds == 4 * 4 * 3 * 8


def test_nothing_is_allocated_not_even_where_memory_would_not_do():
    before = jax.live_arrays()  # kept, so that none of them goes meanwhile
    with REGISTRY.temporarily():

        @register_model
        def huge(num_classes=10, *, rngs):
            """Twelve terabytes."""
            dense, norm = nnx.Linear(3072, 10**9, rngs=rngs), nnx.BatchNorm(10**9, rngs=rngs)
            drop = nnx.Dropout(0.5, rngs=rngs)
            forward = lambda m, x: m.drop(m.norm(m.dense(x.reshape(1, -1))))  # noqa: E731
            return Net(forward, dense=dense, norm=norm, drop=drop)

        info = model_info("huge")
        assert info.parameters == 3072 * 10**9 + 3 * 10**9
        assert info.multiply_adds == 3072 * 10**9
    assert len(jax.live_arrays()) == len(before)


def test_the_network_and_the_process_stay_as_they_were():
    model = cnnlab.create_model("lenet")
    model.train()
    graph, state = nnx.split(model)
    cnnlab.summarize(model, image_size=32)
    assert nnx.graphdef(model) == graph
    assert type(model.conv1) is Conv and not hasattr(model, "_watched_name")  # pyright: ignore[reportAttributeAccessIssue]
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), state)
    with pytest.raises(TypeError):  # an error on the way does no harm either
        cnnlab.summarize(model, image_size=31)
    assert jax.eval_shape(model, jnp.zeros((1, 32, 32, 3))).shape == (1, 10)  # pyright: ignore[reportArgumentType]
    assert cnnlab.summarize(model, image_size=32).layers == cnnlab.summarize("lenet").layers


def test_image_size_channels_and_batch_reach_the_network():
    found = cnnlab.summarize("lenet", image_size=28, in_channels=1, batch=5, num_classes=3)
    assert found.image_shape == (5, 28, 28, 1)
    assert rows(found)["conv1"].multiply_adds == 24 * 24 * 6 * 25
    assert rows(found)["head"].output_shape == (5, 3)
    assert cnnlab.summarize("lenet", image_size=28, in_channels=1, num_classes=3).multiply_adds == found.multiply_adds


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        ("lennet", {}, "Expected the name of a registered model, got 'lennet'; did you mean lenet"),
        ("lenet", {"depth": 3}, "Expected options of lenet .*, got depth"),
        ("lenet", {"image_size": 0}, "Expected images of at least 16 pixels for lenet, got 0"),
        ("lenet", {"batch": 0}, "Expected images of at least 1 pixel and a batch of at least 1, got 32 and 0"),
        (Net(lambda m, x: x), {}, "Expected the size of the network's images, got none; do give image_size=32"),
        (Net(lambda m, x: x), {"image_size": 8, "depth": 3}, "Expected options only with a model's name, got depth"),
    ],
    ids=range(6),
)
def test_what_cannot_be_summarised_is_an_error(model, options, text):
    with pytest.raises(ValueError, match=text):
        cnnlab.summarize(model, **options)


def test_the_table_has_a_line_per_layer_and_the_totals():
    lines = str(cnnlab.summarize("lenet", batch=2)).splitlines()
    assert lines[0].startswith("lenet on images 2x32x32x3")
    (conv,) = [line.split() for line in lines if line.startswith("conv1 ")]
    assert conv == ["conv1", "Conv", "2x14x14x6", "456", "352,800", "4,704"]
    assert lines[-1].split() == ["total", "2x32x32x3", "264,806", "853,864", "9,784"]
    assert len({len(line) for line in lines[2:]}) == 1


def test_the_registry_tells_what_a_model_costs():
    info = model_info("lenet")
    assert (info.family, info.input_size, info.parameters, info.multiply_adds) == ("lenet", 32, 264_806, 853_864)
    assert "Careddu" in info.paper


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_no_weight_of_a_registered_model_is_left_out_or_idle(name):
    found = cnnlab.summarize(name)
    model = nnx.eval_shape(lambda: cnnlab.create_model(name))
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert all(row.output_shape for row in found.layers)
    assert found.multiply_adds > 0
