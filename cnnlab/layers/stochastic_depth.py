"""Stochastic depth: a residual branch that is left out for some images while training."""

from __future__ import annotations

from flax import nnx


class StochasticDepth(nnx.Dropout):
    """Drop whole images of a residual branch: `[batch, h, w, c]` to the same shape.

    In train mode each image's branch is, independently, zero with probability `rate` and divided by 1 - rate
    otherwise, so that its expectation is the branch itself; in eval mode nothing happens.

    Source: G. Huang et al., "Deep Networks with Stochastic Depth", 2016, arXiv:1603.09382. The paper drops a branch
    for a whole batch, and multiplies it by 1 - rate in evaluation in place of the division; the form here, common
    since, gives the images of a batch different depths and leaves the evaluated network independent of the rate.

    Args:
        rate: probability to drop, at least 0 and below 1. With 0 the layer holds no random state.
        rngs: source of the random numbers; its stream "dropout".

    Raises:
        ValueError: a rate outside [0, 1).
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        if not 0 <= rate < 1:
            raise ValueError(f"Expected a drop rate in [0, 1), got {rate!r}; do choose one such as 0.2.")
        super().__init__(rate, broadcast_dims=(1, 2, 3), deterministic=False, rngs=rngs if rate else None)
