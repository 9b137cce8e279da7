"""From a recipe to the training step: its loss, augmentation and average, around the one step of `step.py`."""

from __future__ import annotations

from functools import partial

import optax

from cnnlab.data import Split

from .augment import make_augmentation
from .averaging import make_averaging
from .recipe import Recipe
from .step import TrainStep, cross_entropy, make_train_step


def make_recipe_step(
    tx: optax.GradientTransformation, recipe: Recipe, train: Split, steps_per_epoch: int, *, jit: bool = True
) -> TrainStep:
    """Return the training step that the recipe asks for; its state needs `average=recipe.average != "none"`.

    Args:
        tx: the optimiser, by `make_optimizer`.
        recipe: its label smoothing, augmentation and average are looked at.
        train: training images, uint8 `[n, h, w, c]`, and labels, for the statistics that an augmentation may need.
        steps_per_epoch: training steps per epoch; a ramp of the average ends after `recipe.epochs` of them.
        jit: as for `make_train_step`.

    Raises:
        RecipeError: an augmentation that the images are too small for.
    """
    averaging = make_averaging(
        recipe.average,
        decay=recipe.average_decay,
        every=recipe.average_every * recipe.accumulate,
        ramp=recipe.average_ramp,
        total_steps=recipe.epochs * steps_per_epoch,
    )
    return make_train_step(
        tx,
        loss=partial(cross_entropy, label_smoothing=recipe.label_smoothing),
        augment=make_augmentation(recipe, train),
        averaging=averaging,
        jit=jit,
    )
