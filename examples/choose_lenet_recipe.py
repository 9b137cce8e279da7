"""Choose rate and weight decay of the recipe `lenet-modern` on held-out training images; the test set is not read.

    python examples/choose_lenet_recipe.py

Time: 48 epochs in all, not timed on a quiet machine. Writes docs/results/lenet-modern-choice.json.
"""

import json
from pathlib import Path

from flax import nnx

import cnnlab
from cnnlab.training import Trainer, describe_environment

CANDIDATES = [(0.01, 5e-4), (0.03, 5e-4), (0.1, 5e-4), (0.03, 0.0)]  # learning rate, weight decay
EPOCHS, SEED = 12, 0
TARGET = Path(__file__).resolve().parent.parent / "docs" / "results" / "lenet-modern-choice.json"


def main() -> None:
    """Train each candidate briefly and write what the held-out images say."""
    dataset = cnnlab.load_dataset("cifar10")
    base = cnnlab.get_recipe("lenet-modern").replace(epochs=EPOCHS, standardize=False)
    train, held_out = dataset.hold_out(base.held_out)
    rows = []
    for rate, decay in CANDIDATES:
        trainer = Trainer(base.replace(learning_rate=rate, weight_decay=decay), train, held_out, "validation")
        outcome = trainer.run(cnnlab.create_model("lenet", rngs=nnx.Rngs(SEED)), seed=SEED)
        last = outcome.position.history[-1]
        rows.append({"learning_rate": rate, "weight_decay": decay, "validation_accuracy": last["accuracy"]})
        print(f"rate {rate:g}, weight decay {decay:g}: {last['accuracy']:.2%} of the held-out images", flush=True)
    value = {"epochs": EPOCHS, "seed": SEED, "rows": rows, "environment": describe_environment()}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
