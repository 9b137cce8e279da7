"""From a recipe to what happens to training images."""

from __future__ import annotations

from cnnlab.data import Split
from cnnlab.data.augmentation import Augmentation, build_augmentation
from cnnlab.data.colours import mean_colour, principal_colours

from .recipe import Recipe, RecipeError


def make_augmentation(recipe: Recipe, train: Split) -> Augmentation | None:
    """Return the augmentation that the recipe asks for, or None for none.

    Args:
        recipe: its fields of augmentation are looked at, and `standardize`: the square of `cutout` then holds the mean
            colour of `train`. After a standardisation by these images that is 0; a network that goes on with the
            standardisation of other images sees another colour.
        train: the training images, for the statistics that an augmentation needs; read only where one does.

    Raises:
        RecipeError: a cutout larger than the images.
    """
    height, width = train.images.shape[1:3]
    if recipe.cutout > min(height, width):
        raise RecipeError(f"Expected a cutout inside images of {height}x{width}, got {recipe.cutout}; do lower cutout.")
    numbers = (recipe.crop, recipe.pca_colour, recipe.cutout, recipe.noise, recipe.mixup, recipe.cutmix)
    if recipe.flip == "none" and not any(numbers):
        return None
    return build_augmentation(
        crop=recipe.crop,
        crop_fill=recipe.crop_fill,
        flip=recipe.flip,
        pca_colour_scale=recipe.pca_colour,
        principal_colours=principal_colours(train) if recipe.pca_colour else None,
        cutout_size=recipe.cutout,
        cutout_fill=mean_colour(train) if recipe.cutout and recipe.standardize else 0.0,
        noise=recipe.noise,
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
    )
