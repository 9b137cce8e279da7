import hashlib

import numpy as np
import pytest

from cnnlab.data import Dataset, DatasetError, Split, dataset_from_arrays, fingerprint_of
from cnnlab.data.splitting import complement, stratified_choice


def make_split(n: int, classes: int = 3, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 4, 5, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, classes, n).astype(np.int32))


def make_dataset(n: int = 60) -> Dataset:
    train, test = make_split(n), make_split(12, seed=1)
    return Dataset("x", train, test, ("a", "b", "c"), "made here", fingerprint_of(train, test))


def test_a_split_knows_its_length_and_takes_slices_as_views_and_arrays_as_copies() -> None:
    split = make_split(10)
    assert len(split) == 10
    view, copy = split.take(slice(2, 5)), split.take([7, 1])
    assert np.shares_memory(view.images, split.images) and len(view) == 3
    np.testing.assert_array_equal(copy.images, split.images[[7, 1]])
    np.testing.assert_array_equal(copy.labels, split.labels[[7, 1]])


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int32), "Expected images uint8"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int32), r"got uint8 \[2, 4, 4\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64), r"Expected labels int32 \[n\], got int64"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int32), "got 2 images and 3 labels"),
    ],
)
def test_a_split_refuses_what_is_not_images_and_labels(images, labels, text) -> None:
    with pytest.raises(DatasetError, match=text):
        Split(images, labels)


def test_a_dataset_tells_its_shape_and_number_of_classes() -> None:
    dataset = make_dataset()
    assert dataset.image_shape == (4, 5, 3)
    assert dataset.num_classes == 3


def test_a_label_without_a_class_name_is_an_error() -> None:
    split = make_split(9)
    with pytest.raises(DatasetError, match="Expected train labels from 0 to 1, got 0 to 2; do renumber"):
        Dataset("x", split, split, ("a", "b"), "made here", "")


def test_splits_of_different_image_shape_are_an_error() -> None:
    other = Split(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32))
    with pytest.raises(DatasetError, match=r"got \(4, 5, 3\) and \(4, 4, 3\)"):
        Dataset("x", make_split(9), other, ("a", "b", "c"), "made here", "")


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(DatasetError, match="Expected examples in the test split, got none"):
        Dataset("x", make_split(9), make_split(9).take(slice(0, 0)), ("a", "b", "c"), "made here", "")


def test_the_fingerprint_is_sha256_over_dtype_shape_and_bytes_of_all_four_arrays() -> None:
    dataset = make_dataset()
    expected = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        n = len(split)
        expected.update(f"uint8[{n}, 4, 5, 3]".encode() + split.images.tobytes())
        expected.update(f"int32[{n}]".encode() + split.labels.tobytes())
    assert dataset.fingerprint == expected.hexdigest()


@pytest.mark.parametrize("which", ["images", "labels"])
def test_one_changed_value_changes_the_fingerprint(which: str) -> None:
    dataset = make_dataset()
    changed = Split(dataset.test.images.copy(), dataset.test.labels.copy())
    getattr(changed, which)[-1] ^= 1
    assert fingerprint_of(dataset.train, changed) != dataset.fingerprint


def test_hold_out_keeps_order_loses_nothing_and_repeats_nothing() -> None:
    dataset = make_dataset()
    rest, held = dataset.hold_out(13, seed=4)
    assert (len(rest), len(held)) == (47, 13)
    keys = [image.tobytes() for image in dataset.train.images]
    where = [[keys.index(image.tobytes()) for image in part.images] for part in (rest, held)]
    assert where[0] == sorted(where[0]) and where[1] == sorted(where[1])
    assert sorted(where[0] + where[1]) == list(range(60))
    np.testing.assert_array_equal(held.labels, dataset.train.labels[where[1]])


def test_hold_out_depends_on_the_seed_alone() -> None:
    dataset = make_dataset()
    first, again, other = (dataset.hold_out(10, seed)[1].images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n", [0, -1, 60])
def test_hold_out_that_leaves_a_part_empty_is_an_error(n: int) -> None:
    with pytest.raises(DatasetError, match=f"between 1 and 59 of 60 examples, got {n}"):
        make_dataset().hold_out(n)


def test_a_stratified_choice_gives_every_class_its_share() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), [50, 30, 15, 5])
    chosen = stratified_choice(labels, 20)
    assert np.bincount(labels[chosen]).tolist() == [10, 6, 3, 1]
    np.testing.assert_array_equal(np.sort(np.concatenate([chosen, complement(chosen, 100)])), np.arange(100))


def test_a_stratified_choice_rounds_by_largest_remainder() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), [5, 4, 1])  # shares of 3: 1.5, 1.2, 0.3
    assert np.bincount(labels[stratified_choice(labels, 3)], minlength=3).tolist() == [2, 1, 0]


def test_a_stratified_choice_is_the_same_on_every_machine() -> None:
    labels = np.tile(np.arange(2, dtype=np.int32), 10)
    assert stratified_choice(labels, 6, seed=0).tolist() == [2, 3, 8, 11, 13, 18]


def test_arrays_become_a_dataset_with_numbered_classes() -> None:
    images = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    dataset = dataset_from_arrays(images, [0, 1, 2, 1], images[:2], np.array([0, 1], np.int64))
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.train.labels.dtype == np.int32
    assert len(dataset.fingerprint) == 64


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (np.zeros((2, 4, 4, 3)), [0, 1], "Expected images uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.0, 1.0], "Expected integer labels"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, -1], "Expected labels from 0, got -1"),
    ],
)
def test_arrays_that_would_be_changed_silently_are_refused(images, labels, text) -> None:
    with pytest.raises(DatasetError, match=text):
        dataset_from_arrays(images, labels, images, labels)
