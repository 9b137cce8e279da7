"""Cutting a set in two so that every class keeps its share."""

import numpy as np

from cnnlab.data.errors import DatasetError

TEST_FRACTION = 0.1
"""Share of a set that becomes its test split when the set comes without one."""


def stratified_choice(labels: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Choose `n` positions, each class in proportion to its size.

    A class with `m` of the `total` examples gives `n * m / total` of them, rounded by largest remainder (ties
    go to the lower class). Which ones is decided by the raw stream of PCG64, which NumPy promises never to
    change, so the same labels, `n` and `seed` give the same choice on every machine and version.

    Args:
        labels: `int32 [total]`, classes from 0.
        n: how many to choose, `1 <= n < total`.
        seed: any non-negative integer.

    Returns:
        `int64 [n]`, positions in ascending order.

    Raises:
        DatasetError: `n` leaves one of the two parts empty.

    Example:
        >>> stratified_choice(np.array([0, 0, 0, 0, 1, 1]), 3).size
        3
    """
    total = len(labels)
    if not 1 <= n < total:
        raise DatasetError(
            f"Expected to set apart between 1 and {total - 1} of {total} examples, got {n}; do choose a number between."
        )
    members = np.bincount(labels)  # [classes]
    exact = members * (n / total)
    quota = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(quota - exact, kind="stable")  # most negative first: the largest remainder
    quota[by_remainder[: n - quota.sum()]] += 1

    keys = np.random.PCG64(seed).random_raw(total)  # uint64 [total]
    chosen = [
        positions[np.argsort(keys[positions], kind="stable")[:take]]
        for label, take in enumerate(quota)
        if len(positions := np.flatnonzero(labels == label))
    ]
    return np.sort(np.concatenate(chosen))


def default_test_choice(labels: np.ndarray) -> np.ndarray:
    """Positions of the test split of a set that has none: a stratified tenth, seed 0."""
    return stratified_choice(labels, max(1, round(len(labels) * TEST_FRACTION)), seed=0)


def complement(chosen: np.ndarray, total: int) -> np.ndarray:
    """Positions in `range(total)` that are not `chosen`, ascending: `int64 [total - len(chosen)]`."""
    rest = np.ones(total, bool)
    rest[chosen] = False
    return np.flatnonzero(rest)
