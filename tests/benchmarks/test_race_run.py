"""One entrant of the race: what it trains is what `cnnlab.fit` trains, and nothing compiles under its clock."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.data import dataset_from_arrays
from cnnlab.evaluation import evaluate
from cnnlab.training import get_recipe

OPTIONS: dict[str, Any] = {"widths": [3, 4, 5]}


@pytest.fixture(scope="module")
def data() -> Any:
    """Small images that a class brightens in one place."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 150).astype(np.int32)
    images = rng.integers(0, 200, (150, 10, 10, 3), np.uint8)
    images[np.arange(150), labels] += 50
    return dataset_from_arrays(images[:100], labels[:100], images[100:], labels[100:], classes=[*"abcdefghij"])


def a_racer(room: Any, data: Any, name: str) -> tuple[Any, list[str], dict[str, Any]]:
    """A racer over two epochs of three steps, what it will say, and how its network is built."""
    recipe = get_recipe(name).replace(epochs=2, batch_size=30, warmup_epochs=0.5 if name == "race94" else 0)
    options, said = {**room("race_run").ENTRIES[name].options, **OPTIONS}, []
    return room("race_run").Racer(recipe, options, data, said.append), said, options


@pytest.fixture
def compilations():
    """A list that grows with every program that JAX compiles."""
    found: list[str] = []

    def listen(event: str, _: float, **__: Any) -> None:
        if "compile" in event:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
def test_a_run_depends_on_its_seed_alone_and_tells_where_the_time_went(room, data, compilations) -> None:
    racer, said, _ = a_racer(room, data, "race94")
    jax.clear_caches()  # what other tests have compiled would hide that this listens to the right events
    assert racer.warm_up() > 0 and len(compilations) > 5
    compilations.clear()
    found = racer.run(3)
    assert compilations == []  # neither under the clock nor around it
    parts = found["prepare_seconds"] + found["train_seconds"] + found["evaluate_seconds"]
    assert found["seconds"] == pytest.approx(parts, abs=1e-6) and min(found.values()) > 0
    assert any("epoch 2 of 2, step 3 of 3: loss" in line for line in said)
    assert racer.run(3)["train_loss"] == found["train_loss"] != racer.run(4)["train_loss"]
    assert compilations == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["race94", "race94-muon"])
def test_a_run_is_what_fit_trains_with_the_same_recipe_and_seed(room, data, name: str) -> None:
    racer, _, options = a_racer(room, data, name)
    racer.warm_up()
    found = racer.run(3)
    fitted = cnnlab.fit("cifarnet", data, racer.recipe, seed=3, model_options=options, progress=False)
    last = fitted.history[-1]
    # The same steps in the same programs.
    assert found["train_loss"] == last["train_loss"]
    assert found["accuracy_plain"] == pytest.approx(100 * last["accuracy"], abs=1e-9)
    augmented = evaluate(fitted.last.model, data.test, test_time_augmentation="multi-crop")
    assert found["accuracy"] == pytest.approx(100 * augmented.accuracy, abs=1e-9)


def test_the_network_computes_in_the_precision_of_the_recipe(room, data) -> None:
    for precision in ("float32", "bfloat16"):
        recipe = get_recipe("race94").replace(batch_size=30, precision=precision)
        racer = room("race_run").Racer(recipe, OPTIONS, data, print)
        logits = nnx.eval_shape(lambda racer=racer: racer._network(0)(jnp.zeros((1, 10, 10, 3))))
        assert logits.dtype == precision


def test_a_batch_larger_than_the_data_is_an_error(room, data) -> None:
    with pytest.raises(room("measure").BenchmarkError, match="Expected a batch of 1024 training images, got 100"):
        room("race_run").Racer(get_recipe("race94"), OPTIONS, data, print)
