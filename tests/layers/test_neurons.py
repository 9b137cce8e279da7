"""The first building blocks: what a perceptron can and cannot compute, and that back-propagation is the gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import FeedForward, Perceptron, SigmoidNeuron, perceptron_update

CASES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
AND, OR, NAND, XOR = (
    np.array(answers, np.float32) for answers in ([0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 0])
)

# Back-propagation in float32 against differences in float64, relative to the largest gradient.
BACKPROPAGATION = 1e-5


# Perceptron and sigmoid neuron.


@pytest.mark.parametrize(
    ("weights", "bias", "answers"),
    [((1, 1), -1.5, AND), ((1, 1), -0.5, OR), ((-2, -2), 3, NAND), ((1, 1), -1, AND), ((0, 0), 0, 0 * AND)],
    ids=["and", "or", "nand", "and: a sum equal to the threshold is not above it", "zero is not above zero"],
)
def test_a_perceptron_with_weights_chosen_by_hand_is_a_gate(weights: Any, bias: float, answers: np.ndarray) -> None:
    np.testing.assert_array_equal(Perceptron(2, weights=weights, bias=bias)(jnp.asarray(CASES)), answers)


def test_two_layers_of_perceptrons_compute_xor() -> None:
    either, not_both = Perceptron(2, weights=(1, 1), bias=-0.5), Perceptron(2, weights=(-1, -1), bias=1.5)
    both_of = Perceptron(2, weights=(1, 1), bias=-1.5)
    x = jnp.asarray(CASES)
    np.testing.assert_array_equal(both_of(jnp.stack([either(x), not_both(x)], axis=-1)), XOR)


def learn(answers: np.ndarray, epochs: int) -> np.ndarray:
    """How many of the four cases a perceptron answers rightly after each epoch of Rosenblatt's rule."""
    neuron = Perceptron(2, rngs=nnx.Rngs(0))

    def epoch(state: Any, _: None) -> Any:
        for case, answer in zip(CASES, answers, strict=True):
            state = perceptron_update(*state, case, answer)
        outputs = jnp.asarray(CASES) @ state[0] + state[1] > 0
        return state, (outputs == answers).sum()

    _, right = jax.jit(lambda state: jax.lax.scan(epoch, state, None, epochs))((neuron.weights[...], neuron.bias[...]))
    return np.asarray(right)


@pytest.mark.parametrize("answers", [AND, OR, NAND], ids=["and", "or", "nand"])
def test_a_perceptron_learns_what_a_line_separates_and_then_stays(answers: np.ndarray) -> None:
    right = learn(answers, 50)
    assert right[0] < 4 or right[1] == 4
    assert (right[20:] == 4).all()


def test_a_perceptron_never_learns_xor() -> None:
    assert learn(XOR, 500).max() < 4


def test_one_update_of_a_perceptron_is_the_rule_by_hand() -> None:
    weights, bias, case = jnp.array([1.0, -2.0]), jnp.array(0.5), jnp.array([3.0, 1.0])  # output 1: 3 - 2 + 0.5 > 0
    wrong = perceptron_update(weights, bias, case, jnp.array(0.0), learning_rate=0.5)
    np.testing.assert_array_equal(wrong[0], [1 - 0.5 * 3, -2 - 0.5 * 1])
    np.testing.assert_array_equal(wrong[1], 0.5 - 0.5)
    right = perceptron_update(weights, bias, case, jnp.array(1.0))
    np.testing.assert_array_equal(right[0], weights)
    np.testing.assert_array_equal(right[1], bias)


def test_a_sigmoid_neuron_is_its_formula_and_nears_a_perceptron_with_large_weights() -> None:
    z = CASES.astype(np.float64) @ [0.7, -1.3] + 0.2
    output = SigmoidNeuron(2, weights=(0.7, -1.3), bias=0.2)(jnp.asarray(CASES))
    np.testing.assert_allclose(output, 1 / (1 + np.exp(-z)), rtol=1e-6)  # float32 against float64
    steep = SigmoidNeuron(2, weights=(100, 100), bias=-150)(jnp.asarray(CASES))
    np.testing.assert_allclose(steep, AND, atol=1e-6)


@pytest.mark.parametrize("kind", [Perceptron, SigmoidNeuron])
def test_a_neuron_takes_any_leading_dimensions_and_draws_its_weights_from_rngs(kind: Any) -> None:
    neuron, again, other = (kind(5, rngs=nnx.Rngs(seed)) for seed in (0, 0, 1))
    assert neuron(jnp.ones((2, 3, 5))).shape == (2, 3)
    assert neuron(jnp.ones(5)).shape == ()
    np.testing.assert_array_equal(neuron.weights[...], again.weights[...])
    assert np.any(neuron.weights[...] != other.weights[...])


def test_a_neuron_without_weights_or_with_others_than_its_inputs_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"Expected weights or rngs, got neither; do give one number per input, or nnx\."
    ):
        Perceptron(2)
    with pytest.raises(ValueError, match="Expected 2 weights, one per input, got 3; do match them"):
        SigmoidNeuron(2, weights=(1, 2, 3))


# Feed-forward network.


def layers_of(model: FeedForward) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels and biases in float64, from the input on."""
    layers = [*model.hidden, model.head]
    return [(np.array(layer.kernel[...], np.float64), np.array(layer.bias[...], np.float64)) for layer in layers]


ACTIVATIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "relu": lambda z: np.maximum(z, 0),
    "linear": lambda z: z,
}


def numpy_feed_forward(layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray, activation: str) -> np.ndarray:
    for kernel, bias in layers[:-1]:
        x = ACTIVATIONS[activation](x @ kernel + bias)
    return x @ layers[-1][0] + layers[-1][1]


def numpy_loss(layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray, y: np.ndarray, activation: str) -> float:
    return float(np.square(numpy_feed_forward(layers, x, activation) - y).sum())


def gradient(model: FeedForward, x: np.ndarray, y: np.ndarray) -> nnx.State:
    graph, params = nnx.split(model)
    return jax.grad(lambda p: jnp.square(nnx.merge(graph, p)(jnp.asarray(x)) - y).sum())(params)


def example(activation: str) -> tuple[FeedForward, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    model = FeedForward(3, (4, 2), 2, activation=activation, rngs=nnx.Rngs(1))
    return model, rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal((5, 2)).astype(np.float32)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_feed_forward_network_is_the_same_written_in_numpy(activation: str) -> None:
    model, x, _ = example(activation)
    expected = numpy_feed_forward(layers_of(model), x, activation)
    np.testing.assert_allclose(model(jnp.asarray(x)), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_back_propagation_yields_the_numerical_gradient(activation: str) -> None:
    model, x, y = example(activation)
    found = nnx.to_pure_dict(gradient(model, x, y))
    layers, step = layers_of(model), 1e-5
    numerical = []
    for arrays in layers:
        for array in arrays:
            differences = np.zeros(array.shape)
            for index in np.ndindex(*array.shape):
                losses = []
                for sign in (1, -1):
                    array[index] += sign * step
                    losses.append(numpy_loss(layers, x, y, activation))
                    array[index] -= sign * step
                differences[index] = (losses[0] - losses[1]) / (2 * step)
            numerical.append(differences)
    ours = [found["hidden"][0], found["hidden"][1], found["head"]]
    ours = [layer[part] for layer in ours for part in ("kernel", "bias")]
    tolerance = BACKPROPAGATION * max(np.abs(n).max() for n in numerical)
    for a, b in zip(ours, numerical, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def test_accumulating_the_gradients_of_all_cases_is_the_gradient_of_all_cases() -> None:
    model, x, y = example("tanh")
    of_all = jax.tree.leaves(gradient(model, x, y))
    of_each = [jax.tree.leaves(gradient(model, x[i : i + 1], y[i : i + 1])) for i in range(len(x))]
    for together, *apart in zip(of_all, *of_each, strict=True):
        np.testing.assert_allclose(sum(apart), together, rtol=0, atol=1e-6 * max(1, np.abs(together).max()))


def test_updating_after_each_case_is_another_path_than_updating_after_all() -> None:
    model, x, y = example("tanh")
    graph, start = nnx.split(model)

    def step(params: nnx.State, rows: slice) -> nnx.State:
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient(nnx.merge(graph, params), x[rows], y[rows]))

    after_all, after_each = step(start, slice(None)), start
    for i in range(len(x)):
        after_each = step(after_each, slice(i, i + 1))
    initial, final_all, final_each = (
        numpy_loss(layers_of(nnx.merge(graph, params)), x, y, "tanh") for params in (start, after_all, after_each)
    )
    assert max(final_all, final_each) < initial  # both learn
    assert final_all != pytest.approx(final_each, rel=1e-3)


def test_with_linear_activations_a_deep_network_is_one_affine_map_and_with_others_not() -> None:
    a, b = np.random.default_rng(2).standard_normal((2, 6, 3)).astype(np.float32)

    def bend(activation: str) -> float:
        """How far f(a) + f(b) - f(0) is from f(a + b), zero for an affine map."""
        f = FeedForward(3, (8, 8, 8), 2, activation=activation, rngs=nnx.Rngs(0))
        return float(np.abs(f(a) + f(b) - f(jnp.zeros_like(a)) - f(a + b)).max())

    assert bend("linear") < 1e-5
    assert min(bend("sigmoid"), bend("tanh"), bend("relu")) > 1e-2


def test_depth_and_width_are_arguments_and_features_are_the_last_hidden_layer() -> None:
    def build(hidden: tuple[int, ...], outputs: int = 3, **options: Any) -> FeedForward:
        return FeedForward(4, hidden, outputs, rngs=nnx.Rngs(0), **options)

    x = jnp.ones((2, 4))
    deep = build((7, 5))
    assert [layer.kernel.shape for layer in deep.hidden] == [(4, 7), (7, 5)]
    assert (deep.features(x).shape, deep(x).shape) == ((2, 5), (2, 3))
    headless = build((7, 5), outputs=0)
    np.testing.assert_array_equal(headless(x), deep.features(x))
    np.testing.assert_array_equal(build(()).features(x), x)
    assert build((7, 5), dtype="bfloat16")(x).dtype == jnp.bfloat16
