"""`cnnlab summary`: the layers of a network and what they cost."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from .settings import model_options


def summary(
    model: Annotated[Positional[str], arg(metavar="NAME")],
    *,
    image_size: Annotated[int | None, arg(metavar="PIXELS", help_behavior_hint="")] = None,
    batch: int = 1,
    options: Annotated[UseAppendAction[tuple[str, ...]], arg(name="model-set", metavar="KEY=VALUE")] = (),
) -> int:
    """Print the layers of a network with output shapes, parameters, multiply-adds and activation memory.

    Args:
        model: which; see cnnlab models.
        image_size: height and width of the images; by default those the network is meant for.
        batch: number of images; it changes the shapes only.
        options: set an option of the model, such as num_classes=1000.
    """
    from cnnlab.models import model_info, summarize

    info, chosen = model_info(model), model_options(model, options)
    if image_size is not None and chosen.setdefault("image_size", image_size) != image_size:
        raise ValueError(
            f"Expected one size of images, got --image-size {image_size} and --model-set "
            f"image_size={chosen['image_size']}; do give one of the two."
        )
    print(summarize(model, batch=batch, **chosen))
    print(f"\n{info.summary}" + (f"\n{info.paper}" if info.paper else ""))
    return 0
