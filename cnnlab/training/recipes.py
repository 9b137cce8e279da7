"""The named recipes, each with its source and its measured result."""

from __future__ import annotations

import difflib
from pathlib import Path

from .race_recipes import RACE_RECIPES
from .recipe import Recipe, RecipeError

_THESIS = Recipe(
    name="thesis",
    source="M. N. Careddu, 'Convolutional Neural Network: studio e applicazione in Julia', chapter 3",
    result="claimed 65 % on CIFAR-10; measured in docs/reproduction.md",
    epochs=100,
    batch_size=32,
    order="dataset",
    learning_rate=0.01,
    schedule="plateau",
    momentum=0.9,
    noise=0.1,
)

_RECIPES = {
    recipe.name: recipe
    for recipe in (
        _THESIS,
        _THESIS.replace(
            name="thesis-held-out",
            source="the thesis' recipe, steered by 5,000 training images instead of the test set",
            result="measured in docs/reproduction.md",
            held_out=5000,
        ),
        Recipe(
            name="lenet-modern",
            source="cnnlab; rate and weight decay chosen on held-out images by examples/choose_lenet_recipe.py",
            result="measured in docs/reproduction.md",
            epochs=60,
            batch_size=64,
            order="shuffled",
            last_batch="drop",
            learning_rate=0.03,
            schedule="cosine",
            warmup_epochs=1.0,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            flip="random",
            crop=2,
            standardize=True,
            held_out=5000,
        ),
        Recipe(
            name="finetune",
            source="cnnlab; a starting point for a network with weights on a folder of images, see docs/finetuning.md",
            result="not measured yet",
            epochs=20,
            batch_size=32,
            order="shuffled",
            last_batch="keep",  # there may be no whole one
            learning_rate=0.01,
            schedule="cosine",
            warmup_epochs=1.0,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            flip="random",
            crop=4,
            held_out=0.1,
            target_accuracy=2.0,  # never: few held-out images are soon all right
        ),
        *RACE_RECIPES,
    )
}


def list_recipes() -> list[Recipe]:
    """Return the named recipes."""
    return list(_RECIPES.values())


def get_recipe(name: str | Path | Recipe) -> Recipe:
    """Return the recipe of that name, or read it from a .toml or .json file; RecipeError otherwise."""
    if isinstance(name, Recipe):
        return name
    if str(name) in _RECIPES:
        return _RECIPES[str(name)]
    if Path(name).suffix in (".toml", ".json"):
        return Recipe.read(name)
    near = difflib.get_close_matches(str(name), _RECIPES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(_RECIPES)}."
    raise RecipeError(f"Expected the name of a recipe or a .toml or .json file, got {str(name)!r}; {hint}")
