"""A small network with a convolution, for tests of training."""

from flax import nnx


class Convolutional(nnx.Module):
    """A convolution of 20 channels, by default XLA's own, for which an epoch on CPU is one dispatch per step."""

    def __init__(self, rngs: nnx.Rngs, conv=nnx.Conv):
        self.conv = conv(1, 20, (3, 3), rngs=rngs)  # so many that cnnlab makes no matrix product of it
        self.norm = nnx.BatchNorm(20, rngs=rngs)
        self.head = nnx.Linear(20, 3, rngs=rngs)

    def __call__(self, images):
        return self.head(nnx.relu(self.norm(self.conv(images))).mean(axis=(1, 2)))
