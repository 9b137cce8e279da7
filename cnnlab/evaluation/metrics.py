"""Accuracy, precision, recall, F1 and the confusion matrix, from predictions on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the others: precision, recall and F1 in 0 to 1, 0 where undefined; images of it."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """What a network does on a set of images, every image counted once.

    Attributes:
        images: how many.
        loss: mean cross entropy in nats.
        accuracy: share of right answers, 0 to 1.
        precision: mean over classes (macro).
        recall: mean over classes (macro).
        f1: mean over classes (macro).
        per_class: one entry per class.
        confusion_matrix: int64 `[classes, classes]`; rows are true, columns predicted classes.
    """

    images: int
    loss: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    per_class: tuple[ClassMetrics, ...]
    confusion_matrix: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(entry.name for entry in self.per_class)

    def to_dict(self, split: str = "test") -> dict[str, Any]:
        """Return plain JSON values, with the name of the evaluated split."""
        scalars = {name: getattr(self, name) for name in ("images", "loss", "accuracy", "precision", "recall", "f1")}
        return {
            "split": split,
            **scalars,
            "classes": list(self.classes),
            "per_class": [asdict(entry) for entry in self.per_class],
            "confusion_matrix": self.confusion_matrix.tolist(),
        }

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.classes, "macro mean"))
        rows = [f"{'':{width}}  precision  recall  f1      images"]
        for c in self.per_class:
            rows.append(f"{c.name:{width}}  {c.precision:9.4f}  {c.recall:6.4f}  {c.f1:6.4f}  {c.support:6d}")
        macro = f"{self.precision:9.4f}  {self.recall:6.4f}  {self.f1:6.4f}  {self.images:6d}"
        rows.append(f"{'macro mean':{width}}  {macro}")
        rows.append(f"accuracy {self.accuracy:.2%}, loss {self.loss:.4f}")
        return "\n".join(rows)


def evaluation_from_predictions(
    labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], *, loss: float = float("nan")
) -> Evaluation:
    """Count predictions.

    Args:
        labels: int `[n]`, true classes.
        predicted: int `[n]`.
        classes: names; their number is that of the classes.
        loss: mean cross entropy, when known.

    Raises:
        ValueError: no image, lengths differ, or a label or prediction is no class.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    count = len(classes)
    if labels.shape != predicted.shape or labels.ndim != 1 or labels.size == 0:
        raise ValueError(
            f"Expected as many labels as predictions, at least one, got shapes {labels.shape} and {predicted.shape}."
        )
    smallest, largest = min(labels.min(), predicted.min()), max(labels.max(), predicted.max())
    if smallest < 0 or largest >= count:
        wrong = smallest if smallest < 0 else largest
        raise ValueError(f"Expected classes 0 to {count - 1}, got {wrong}; do pass a name for each class.")
    matrix = np.bincount(labels.astype(np.int64) * count + predicted, minlength=count * count).reshape(count, count)
    right, actual, answered = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision = right / np.maximum(answered, 1)
    recall = right / np.maximum(actual, 1)
    f1 = 2 * right / np.maximum(actual + answered, 1)
    per_class = tuple(
        ClassMetrics(name, float(p), float(r), float(f), int(n))
        for name, p, r, f, n in zip(classes, precision, recall, f1, actual, strict=True)
    )
    return Evaluation(
        images=len(labels),
        loss=loss,
        accuracy=int(right.sum()) / len(labels),
        precision=float(precision.mean()),
        recall=float(recall.mean()),
        f1=float(f1.mean()),
        per_class=per_class,
        confusion_matrix=matrix,
    )
