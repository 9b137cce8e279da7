"""A learning rate to start with, found in a hundred steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnlab.data import Dataset, load_dataset
from cnnlab.training import Recipe, get_recipe
from cnnlab.training.checks import expect_seed
from cnnlab.training.compilation_cache import use_compilation_cache
from cnnlab.training.find_rate import RateSearch, search_rate

from .plan import ModelSource, Plan


def find_learning_rate(
    model: ModelSource,
    data: str | Dataset = "digits?size=32",
    recipe: str | Path | Recipe = "thesis",
    *,
    seed: int = 0,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    model_options: dict[str, Any] | None = None,
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> RateSearch:
    """Suggest a learning rate by a range test: train a copy of the network while the rate rises, and watch the loss.

    The rate goes from `low` to `high` by equal factors, one update at each, with the recipe's optimiser, batch size and
    augmentation on its training images. It ends early when the smoothed loss is four times the lowest, or a loss is not
    finite. The suggestion is a tenth of the rate at which the smoothed loss is lowest: there the loss still falls fast,
    and it is far from where training breaks. With "muon" both rates rise together; the suggestion is that of
    `learning_rate`, and `found.applied(recipe)` moves `muon_learning_rate` with it. Nothing is left behind: fitting
    afterwards gives what it would have given.

    Sources: L. Smith, "Cyclical Learning Rates for Training Neural Networks", 2015, arXiv:1506.01186 (the test);
    S. Gugger, "How Do You Find A Good Learning Rate", 2018 (exponential steps, smoothing, the tenth).

    Args:
        model: as for `cnnlab.fit`; it is not changed.
        data: as for `cnnlab.fit`.
        recipe: as for `cnnlab.fit`; its rate and schedule do not matter, but for "muon" the ratio of its two rates.
        seed: of initial weights, noise and order.
        low: the first rate.
        high: the last.
        steps: updates.
        model_options: options of a registered model.
        data_dir: where to look for the data.
        progress: tell the progress of getting the data.

    Returns:
        `cnnlab.training.RateSearch`, with `suggestion`, `applied(recipe)`, and the curve in `rates`, `losses` and
        `smoothed`.

    Raises:
        ValueError: unknown names or impossible values, or losses that never fall.

    Example:
        >>> recipe = cnnlab.get_recipe("lenet-modern")
        >>> found = cnnlab.find_learning_rate("lenet", "digits?size=32", recipe)  # doctest: +SKIP
        >>> run = cnnlab.fit("lenet", "digits?size=32", found.applied(recipe))  # doctest: +SKIP
    """
    recipe, seed = get_recipe(recipe), expect_seed(seed)
    dataset = load_dataset(data, data_dir, progress=progress) if isinstance(data, str) else data
    plan = Plan(model, model_options or {}, dataset, None, data_dir, recipe)
    use_compilation_cache()
    return search_rate(plan.network(seed), plan.train, recipe, seed=seed, low=low, high=high, steps=steps)
