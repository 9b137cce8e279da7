"""Muon against its definition in NumPy (float64, rtol 1e-5), and which parameters it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.training import Recipe, make_optimizer
from cnnlab.training.muon import is_hidden_weight, newton_schulz, scale_by_muon

RNG = np.random.default_rng(0)
SHAPES = {
    ("conv1", "kernel"): (3, 3, 2, 8),  # 18 x 8, tall
    ("conv1", "bias"): (8,),
    ("block", 0, "conv", "kernel"): (3, 3, 2, 8),  # of the size of the first
    ("block", 1, "conv", "kernel"): (1, 1, 4, 8),  # 4 x 8, wide
    ("dense", "kernel"): (8, 18),  # of the size of the first when that is turned
    ("head", "kernel"): (6, 5),
    ("head", "bias"): (5,),
}
HIDDEN = [path for path, shape in SHAPES.items() if len(shape) > 1 and path[0] != "head"]
A, B, C = 3.4445, -4.7750, 2.0315


def drawn() -> dict:
    return {path: RNG.normal(size=shape) for path, shape in SHAPES.items()}


START, GRADIENTS = drawn(), [drawn() for _ in range(5)]


def nested(flat: dict) -> dict:
    tree: dict = {}
    for path, value in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = jnp.float32(value)
    return tree


def flat(tree: dict) -> dict:
    return {tuple(key.key for key in path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def direction(momentum: np.ndarray, steps: int) -> np.ndarray:
    """The definition, on the matrix [h * w * in, out] as it stands; in exact numbers the transpose gives the same."""
    x = momentum.reshape(-1, momentum.shape[-1])
    x = x / np.sqrt((x**2).sum())
    for _ in range(steps):
        gram = x.T @ x
        x = A * x + x @ (B * gram + C * gram @ gram)
    return x.reshape(momentum.shape)


def by_hand(rates, muon_rates, recipe: Recipe, factors=None) -> dict:
    weights = {path: value.copy() for path, value in START.items()}
    momentum = {path: np.zeros_like(value) for path, value in START.items()}
    for gradient, rate, muon_rate in zip(GRADIENTS, rates, muon_rates, strict=True):
        for path, w in weights.items():
            g, hidden = gradient[path], path in HIDDEN
            m = recipe.muon_momentum if hidden else recipe.momentum
            momentum[path] = m * momentum[path] + g
            ahead = m * momentum[path] + g if hidden or recipe.nesterov else momentum[path]
            update = direction(ahead, recipe.muon_steps) if hidden else ahead
            update = update + (recipe.weight_decay * w if w.ndim > 1 else 0)
            factor = (factors or {}).get(path, 1.0)
            if hidden and recipe.muon_normalize:
                w = w * np.sqrt(w.shape[-1]) / np.sqrt((w**2).sum())
            weights[path] = w - factor * (muon_rate if hidden else rate) * update
    return weights


def optimized(recipe: Recipe, scale: float = 1.0, wrapped: bool = False) -> dict:
    tx = make_optimizer(recipe, 1)
    wrap = (lambda tree: {"network": tree}) if wrapped else (lambda tree: tree)
    params = wrap(nested(START))
    state, update = tx.init(params), jax.jit(tx.update)
    for gradient in GRADIENTS:
        updates, state = update(wrap(nested(gradient)), state, params)
        params = jax.tree.map(lambda p, u: p + jnp.float32(scale) * u, params, updates)
    return flat(params["network"] if wrapped else params)


def assert_close(got: dict, expected: dict, rtol: float = 1e-5) -> None:
    assert got.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(got[path], value, rtol=rtol, atol=rtol, err_msg=str(path))


MUON = Recipe(
    optimizer="muon",
    schedule="linear",
    epochs=5,
    learning_rate=0.1,
    momentum=0.8,
    nesterov=True,
    muon_learning_rate=0.24,
    muon_momentum=0.6,
    muon_steps=3,
)
FALLING = np.array([1.0, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize(
    "changes", [{}, {"weight_decay": 0.3}, {"muon_normalize": True}, {"nesterov": False, "muon_steps": 5}], ids=str
)
def test_five_updates_are_those_of_the_definition(changes):
    recipe = MUON.replace(**changes)
    assert_close(optimized(recipe), by_hand(0.1 * FALLING, 0.24 * FALLING, recipe))


def test_a_wrapper_around_the_network_changes_nothing():
    assert_close(optimized(MUON, wrapped=True), by_hand(0.1 * FALLING, 0.24 * FALLING, MUON))


def test_a_factor_on_the_rate_leaves_the_rescaling_whole():
    recipe = MUON.replace(muon_normalize=True, learning_rates={"conv1": 0.5})
    factors = {path: 0.5 for path in SHAPES if path[0] == "conv1"}
    assert_close(optimized(recipe), by_hand(0.1 * FALLING, 0.24 * FALLING, recipe, factors))


def test_under_the_plateau_rule_a_cut_acts_on_both_rates_alike():
    recipe = MUON.replace(schedule="plateau", weight_decay=0.3)
    for rate in (0.1, 0.01):
        expected = by_hand([rate] * 5, [2.4 * rate] * 5, recipe)
        assert_close(optimized(recipe, scale=rate), expected)


def test_hidden_weights_are_those_with_two_dimensions_outside_the_head():
    found = [path for path, shape in SHAPES.items() if is_hidden_weight(path, jnp.zeros(shape))]
    assert found == HIDDEN and len(HIDDEN) == 4
    assert not is_hidden_weight(("network", "head", "kernel"), jnp.zeros((2, 2)))
    assert is_hidden_weight(("header", "kernel"), jnp.zeros((2, 2)))


def test_only_momentum_is_kept_of_a_hidden_weight():
    state = make_optimizer(MUON, 1).init(nested(START))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) <= sum(v.size for v in START.values()) + 3


def test_five_iterations_bring_singular_values_near_one_and_keep_the_singular_vectors():
    matrix = RNG.normal(size=(16, 64))
    got = np.asarray(newton_schulz(jnp.float32(matrix), 5), np.float64)
    values = np.linalg.svd(got, compute_uv=False)
    assert 0.65 < values.min() and values.max() < 1.25
    u, _, vh = np.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ got @ vh.T
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-4)


def test_the_length_of_a_gradient_does_not_matter_and_none_gives_none():
    matrix = jnp.float32(RNG.normal(size=(4, 6)))
    np.testing.assert_allclose(newton_schulz(matrix * 1e-6, 5), newton_schulz(matrix, 5), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(newton_schulz(jnp.zeros((4, 6)), 5), np.zeros((4, 6)))


def test_a_batch_of_matrices_is_each_of_them():
    batch = jnp.float32(RNG.normal(size=(3, 4, 6)))
    each = jnp.stack([newton_schulz(matrix, 5) for matrix in batch])
    np.testing.assert_allclose(newton_schulz(batch, 5), each, rtol=1e-5, atol=1e-6)


def test_weights_of_one_size_share_their_matrix_products():
    """18 x 8 twice and 8 x 18 turned are one batch, 4 x 8 another: three products an iteration for each."""
    tx = scale_by_muon(0.9, 2)
    hidden = nested({path: START[path] for path in HIDDEN})
    text = jax.jit(tx.update).trace(hidden, tx.init(hidden)).lower(lowering_platforms=("cpu",)).as_text()
    assert text.count("stablehlo.dot_general") == 2 * 3 * 2  # iterations, products, sizes


@pytest.mark.parametrize(("platform", "half"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_the_products_are_bfloat16_on_gpu_and_tpu_alone(platform, half):
    traced = jax.jit(lambda x: newton_schulz(x, 3)).trace(jnp.zeros((4, 6)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products and all(("bf16" in line) == half for line in products)
    assert jax.eval_shape(lambda x: newton_schulz(x, 3), jnp.zeros((4, 6))).dtype == jnp.float32
