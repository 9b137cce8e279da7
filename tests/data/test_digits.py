import numpy as np
import pytest

from cnnlab.data import DatasetNotFound, digits, load_dataset


def test_digits_are_the_images_of_scikit_learn_each_once() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = load_dataset("digits")
    assert (len(data.train), len(data.test), data.image_shape) == (1297, 500, (8, 8, 1))
    ours = np.concatenate([data.train.images, data.test.images])[..., 0]
    labels = np.concatenate([data.train.labels, data.test.labels])
    theirs = datasets.load_digits()
    expected = sorted(
        (image.tobytes(), label)
        for image, label in zip((theirs.images * 255 / 16).round().astype(np.uint8), theirs.target, strict=True)
    )
    assert sorted((image.tobytes(), label) for image, label in zip(ours, labels, strict=True)) == expected
    assert (ours.min(), ours.max()) == (0, 255)


def test_the_cut_of_digits_is_stratified_and_always_the_same() -> None:
    first, again = load_dataset("digits"), load_dataset()
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint.startswith("ddd553312a8a")
    counts = np.bincount(first.test.labels)
    assert counts.min() >= 48 and counts.max() <= 51


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(DatasetNotFound, match="got none; do pip install scikit-learn"):
        load_dataset("digits")


def test_digits_can_be_enlarged_for_networks_that_need_larger_images():
    small, large = load_dataset("digits"), load_dataset("digits?size=32")
    assert large.image_shape == (32, 32, 1)
    np.testing.assert_array_equal(large.train.labels, small.train.labels)
    shrunk = large.test.images.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    # Bilinear enlargement blurs, so the mean over each block of 4 x 4 only resembles the pixel it came from.
    assert np.corrcoef(shrunk.ravel(), small.test.images.ravel())[0, 1] > 0.9
