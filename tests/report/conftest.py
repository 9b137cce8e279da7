"""Run folders as training leaves them, written by hand: no training here."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

CLASSES = ["cat", "dog", "<script>alert(1)</script>", "ship & sail"]
MATRIX = [[70, 25, 3, 2], [30, 60, 5, 5], [0, 1, 99, 0], [4, 4, 12, 80]]
VOID = {"meta", "img", "br", "link", "input", "hr"}


def evaluation(classes, matrix):
    counts = np.array(matrix)
    hits, precision = np.diag(counts), np.diag(counts) / counts.sum(axis=0)
    recall = hits / counts.sum(axis=1)
    f1 = 2 * precision * recall / (precision + recall)
    return {
        "split": "test",
        "images": int(counts.sum()),
        "loss": 1.2,
        "accuracy": float(hits.sum() / counts.sum()),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "f1": float(f1.mean()),
        "classes": classes,
        "per_class": [
            {"name": name, "precision": p, "recall": r, "f1": f, "support": n}
            for name, p, r, f, n in zip(
                classes,
                precision.tolist(),
                recall.tolist(),
                f1.tolist(),
                counts.sum(axis=1).tolist(),
                strict=True,
            )
        ],
        "confusion_matrix": matrix,
    }


def history(epochs, monitor):
    lines = []
    for epoch in range(1, epochs + 1):
        accuracy = 0.6 - 0.3 / epoch if epoch <= 4 else 0.5
        lines.append(
            {
                "epoch": epoch,
                "train_loss": 2.0 / epoch,
                "train_accuracy": 1 - 0.7 / epoch,
                "monitor": monitor,
                "loss": 1.0 + 1 / epoch,
                "accuracy": accuracy,
                "learning_rate": 0.01 if epoch < 6 else 0.001,
                "best_accuracy": 0.525 if epoch >= 4 else accuracy,
                "best_epoch": min(epoch, 4),
                "seconds": 2.5,
                "images_per_second": 5432.1,
                "event": "cut" if epoch == 5 else None,
                "an unknown key": [1, 2],
            }
        )
    return lines


@pytest.fixture(scope="session")
def make_run():
    """A function that writes a run folder and returns it."""

    def make(folder, *, seed=0, epochs=7, finished=True, protocol="thesis", classes=CLASSES, matrix=MATRIX):
        folder.mkdir(parents=True)
        recipe = {
            "format": 1,
            "model": {"name": "lenet", "options": {"hidden": [400, 120]}, "parameters": 264806},
            "dataset": {
                "name": "cifar10",
                "fingerprint": "sha256:abc",
                "held_out_images": 0 if protocol == "thesis" else 5000,
                "test_images": 400,
            },
            "seed": seed,
            "recipe": {"name": "thesis", "epochs": 100, "batch_size": 32, "shuffle": False},
        }
        environment = {"python": "3.11.7", "jax": "0.10.1", "command": "cnnlab train --out 'a <b>'"}
        lines = history(epochs, "test" if protocol == "thesis" else "validation")
        (folder / "recipe.json").write_text(json.dumps(recipe))
        (folder / "environment.json").write_text(json.dumps(environment))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if finished:
            result = {
                "stop_reason": "converged",
                "epochs": epochs,
                "best_epoch": 4,
                "best_accuracy": 0.525,
                "compile_seconds": 14.25,
                "train_seconds": 734.2,
                "protocol": protocol,
                "evaluation": evaluation(classes, matrix),
            }
            (folder / "result.json").write_text(json.dumps(result))
        return folder

    return make


class Page(HTMLParser):
    """What a browser makes of a page: text and attributes; every tag must be closed where it should be."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.source, self.open, self.tags, self.words, self.links = text, [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closed out of order at {self.getpos()}"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="session")
def read_page():
    """A function that parses report.html and fails on unbalanced tags."""
    return lambda path: Page(path.read_text(encoding="utf-8"))
