"""Dropout: numbers that are left out at random while training."""

from __future__ import annotations

from flax import nnx


class Dropout(nnx.Dropout):
    """Set each number to zero with probability `rate` while training: any shape to the same shape.

    In train mode what stays is divided by 1 - rate, so that the expectation is the input; in eval mode nothing happens.

    Source: N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014. The first
    networks with dropout (Krizhevsky 2012) multiplied by 1 - rate in evaluation in place of the division.

    Args:
        rate: probability to drop, at least 0 and below 1. With 0 the layer holds no random state.
        rngs: source of the random numbers; its stream "dropout".

    Raises:
        ValueError: a rate outside [0, 1).
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        if not 0 <= rate < 1:
            raise ValueError(f"Expected a dropout rate in [0, 1), got {rate!r}; do choose one such as 0.5.")
        super().__init__(rate, deterministic=False, rngs=rngs if rate else None)
