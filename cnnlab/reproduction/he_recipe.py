"""How the paper trains residual networks and their plain twins on CIFAR-10 (He et al. 2015, section 4.2)."""

from __future__ import annotations

from cnnlab.training import Recipe

_HE = Recipe(
    name="he2015",
    source="K. He et al. 2015, arXiv:1512.03385, section 4.2",
    epochs=164,
    batch_size=128,
    order="shuffled",
    last_batch="keep",
    learning_rate=0.1,
    schedule="step",
    milestones=[82, 123],
    momentum=0.9,
    weight_decay=1e-4,
    weight_decays={"*": 1.0},
    flip="random",
    crop=4,
    standardize=True,
    target_accuracy=2.0,
)


def he_recipe(*, careful_start: bool = False, quick_epochs: int | None = None) -> Recipe:
    """Return the paper's recipe.

    SGD with momentum 0.9 and batches of 128; the rate is 0.1, a tenth of it from half of the time on and a hundredth
    from three quarters on; weight decay 1e-4 on every parameter; images are padded by 4 pixels, cut at random and
    mirrored at random. Nothing is steered by the test images: the network after the last epoch counts.

    What differs from the paper: its iterations, 32,000, 48,000 and 64,000, are here the whole epochs nearest by, 82,
    123 and 164 of 391 iterations, which make 32,062, 48,093 and 64,124. All 50,000 training images are trained on,
    where the paper chose its schedule with 45,000. Images are standardised by mean and standard deviation of each
    channel, where the paper subtracts the mean of each pixel, and they are padded before that, so with black.

    Args:
        careful_start: for 110 layers. The paper trains at rate 0.01 until the training error is below 80 %, "about
            400 iterations", and then at 0.1. Here the rate rises from 0.01 to 0.1 in a straight line over the first
            epoch, 391 iterations.
        quick_epochs: a small version, so many epochs with a schedule of the same shape; batches of 32 at a quarter of
            the rate, so that a few thousand images make enough updates.
    """
    recipe = _HE
    if careful_start:
        recipe = recipe.replace(name="he2015-110", warmup_epochs=1.0, warmup_start=0.1)
    if quick_epochs is not None:
        recipe = recipe.replace(
            name=f"{recipe.name}-quick",
            epochs=quick_epochs,
            milestones=[quick_epochs / 2, quick_epochs * 3 / 4],
            batch_size=32,
            learning_rate=recipe.learning_rate / 4,
        )
    return recipe
