"""The recipes of the races on CIFAR-10: a mean test accuracy of 94, 95 or 96 % as fast as can be.

They go with the network `cifarnet`, each with the options that its `source` names: no recipe can set those, so that
`fit` takes them as `model_options`. `benchmarks/race.py` runs them and docs/race.md tells the rules. The published
scripts take the sum of the losses of a batch of B images where cnnlab takes the mean, so here the rates of
gradient descent are B times theirs, and the weight decay, which PyTorch adds to the gradient, 1 / B of theirs. What
Muon does does not depend on the size of a gradient.
"""

from __future__ import annotations

from .recipe import Recipe

_PAPER = "K. Jordan, '94% on CIFAR-10 in 3.29 Seconds on a Single GPU', 2024, arXiv:2404.00498"
_BIAS = "the bias of the whitening trains to the end, in theirs for 3 epochs"
_MOMENTUM = 0.85

# The paper gives rate and weight decay "per 1024 examples" and "decoupled": a rate of 11.5 is divided by
# 1 + 1 / (1 - momentum) = 7.667, since each gradient acts so often under Nesterov's momentum, and by the 1024 images of
# the sum. Times those 1024, 11.5 / 7.667 = 1.5 is the rate for the mean. One update takes rate * 0.0153 / 11.5 of the
# weight off, which is what a weight decay of 0.0153 / 11.5 = 1.330e-3 in the gradient does. Biases of norms learn 64
# times as fast and have a 64th of the weight decay, so that they shrink as fast as the weights do.
_NESTEROV = 1 + 1 / (1 - _MOMENTUM)

_RACE94 = Recipe(
    name="race94",
    source=f"{_PAPER}; 10 epochs for the published 9.9; {_BIAS}",
    result="not measured yet; docs/race.md",
    epochs=10,
    batch_size=1024,
    order="shuffled",
    last_batch="drop",
    optimizer="sgd",
    learning_rate=11.5 / _NESTEROV,
    schedule="linear",
    warmup_epochs=2.3,  # 23 % of the steps
    warmup_start=0.2,
    final_rate=0.07,
    momentum=_MOMENTUM,
    nesterov=True,
    weight_decay=0.0153 / 11.5,
    average="lookahead",
    average_decay=0.95**5,
    average_every=5,
    average_ramp=3.0,
    target_accuracy=2.0,  # never: the last epoch is what counts
    flip="alternating",
    crop=2,
    crop_fill="reflect",
    standardize=True,
    label_smoothing=0.2,
    held_out=0,
    freeze=["whiten.kernel"],
    learning_rates={"*.norms.*": 64.0},
    weight_decays={"*.norms.*": 1 / 64, "whiten.bias": 1.0},
)

# Sums over 2000 images: the rate of the biases, 0.053, is 106 for the mean, that of the head, 0.67, is 1340, or 12.64
# times as much. Biases and head shrink by 2000 * 2e-6 = 0.004 in an update at the full rate, and as that is part of the
# gradient, momentum makes it 0.004 / (1 - 0.85) in the long run. Here weight decay is apart from the gradient under
# "muon": 106 * d = 0.004 / 0.15 gives d = 2.516e-4, and the head has a 12.64th of it. The filters have none.
_MUON_BIAS, _MUON_HEAD = 0.053, 0.67

RACE_RECIPES = (
    _RACE94.replace(result="94.19 % with six views, 93.44 % with one (1 run, on a CPU); docs/race.md"),
    _RACE94.replace(
        name="race94-muon",
        result="94.21 % with six views, 93.40 % with one (1 run, on a CPU); docs/race.md",
        source=f"K. Jordan, airbench94_muon, 2024; needs cifarnet's logit_scale=1/256 and unit_head=True; {_BIAS}",
        epochs=8,
        batch_size=2000,
        optimizer="muon",
        learning_rate=_MUON_BIAS * 2000,
        muon_learning_rate=0.24,
        muon_momentum=0.6,
        muon_steps=3,
        muon_normalize=True,
        warmup_epochs=0.0,
        final_rate=0.0,
        average="none",
        weight_decay=2e-6 / _MUON_BIAS / (1 - _MOMENTUM),
        learning_rates={"head": _MUON_HEAD / _MUON_BIAS},
        weight_decays={"*.norms.*": 1.0, "whiten.bias": 1.0, "head": _MUON_BIAS / _MUON_HEAD, "*.convs.*": 0.0},
    ),
    _RACE94.replace(
        name="race95",
        source=f"{_PAPER}; needs cifarnet's widths=(128, 384, 384); {_BIAS}",
        epochs=15,
        learning_rate=10.0 / _NESTEROV,
        weight_decay=0.0153 / 10.0,
        warmup_epochs=0.23 * 15,
    ),
    _RACE94.replace(
        name="race96",
        source=f"{_PAPER}; needs cifarnet's widths=(128, 384, 512), depth=3 and norm_momentum=0.9; without the "
        f"filtering of the images that is published too; {_BIAS}",
        epochs=37,
        learning_rate=9.0 / _NESTEROV,
        weight_decay=0.012 / 9.0,
        warmup_epochs=0.1 * 37,
        final_rate=0.0,
        crop=4,
        cutout=12,
    ),
)
