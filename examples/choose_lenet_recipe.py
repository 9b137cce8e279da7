"""Choose rate and weight decay of the recipe `lenet-modern` on held-out training images; the test set is not read.

    python examples/choose_lenet_recipe.py

Time: 48 epochs in all, about 6 minutes on two quiet cores. Writes docs/results/lenet-modern-choice.json.
"""

import json
from pathlib import Path

import cnnlab
from cnnlab.training import describe_environment

CANDIDATES = [(0.01, 5e-4), (0.03, 5e-4), (0.1, 5e-4), (0.03, 0.0)]  # learning rate, weight decay
EPOCHS, SEED = 12, 0
TARGET = Path(__file__).resolve().parent.parent / "docs" / "results" / "lenet-modern-choice.json"


def main() -> None:
    """Train each candidate briefly and write what the held-out images say."""
    dataset = cnnlab.load_dataset("cifar10")
    recipe = cnnlab.get_recipe("lenet-modern")
    train, held_out = dataset.hold_out(recipe.held_out)
    # The held-out images in the place of the test set: nothing here can see that.
    data = cnnlab.dataset_from_arrays(
        train.images, train.labels, held_out.images, held_out.labels, dataset.classes, name="cifar10, held out"
    )
    rows = []
    for rate, decay in CANDIDATES:
        candidate = recipe.replace(held_out=0, epochs=EPOCHS, learning_rate=rate, weight_decay=decay)
        last = cnnlab.fit("lenet", data, candidate, seed=SEED, progress=False).history[-1]
        rows.append({"learning_rate": rate, "weight_decay": decay, "validation_accuracy": last["accuracy"]})
        print(f"rate {rate:g}, weight decay {decay:g}: {last['accuracy']:.2%} of the held-out images", flush=True)
    value = {"epochs": EPOCHS, "seed": SEED, "rows": rows, "environment": describe_environment()}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
